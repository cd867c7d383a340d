"""Fine-tuning: a pretrained encoder, a head, labelled text -> a classifier, judged on text it has not seen.

encode    texts, pairs or words -> ids and labels, what is too long cut or windowed, and counted
train     AdamW, 6 % warm-up, linear decay; evaluated several times an epoch, the best weights kept
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import Model
from ..classifier import SequenceClassifier, TokenClassifier
from ..data.batches import SequenceBatches, pad_batch
from ..data.masking import IGNORED
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..runtime import progress, seed_everything
from ..training.optim import parameter_groups
from ..training.pretrain import autocast
from ..training.schedule import linear
from .forms import METRICS, Task
from .table import Examples, label_names
from .windows import LONG, continued, counted, divide, one_a_text


@dataclass(frozen=True)
class Settings:
    """How to fine-tune. The defaults of rate, weight decay and epochs are the task's own (forms.py)."""

    rate: float
    weight_decay: float
    epochs: int
    batch_size: int = 32
    warmup_share: float = 0.06
    max_length: int | None = None  # None: what the model takes
    long: str = "cut"  # or "windows": longer texts in several overlapping pieces, their logits averaged
    stride: float = 0.5  # from one window to the next, as a share of a window
    pooling: str = "cls"
    dropout: float = 0.0
    evaluations: int = 2  # an epoch
    patience: int | None = None  # evaluations without a better one, after which training ends
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.rate <= 1:
            raise InputError(f"the learning rate must be above 0 and at most 1, not {self.rate!r}; try 5e-5")
        for name in ("epochs", "batch_size", "evaluations"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {getattr(self, name)!r}")
        if self.max_length is not None and self.max_length < 8:
            raise InputError(f"max_length {self.max_length} leaves no room for a text; give at least 8 tokens")
        if self.long not in LONG:
            raise InputError(f"long texts can be {' or '.join(map(repr, LONG))}, not {self.long!r}")
        if not 0 < self.stride <= 1:
            raise InputError(f"the stride is a share of a window, above 0 and at most 1, not {self.stride!r}; try 0.5")

    @classmethod
    def for_task(cls, task: Task, **changes) -> Settings:
        given = {name: value for name, value in changes.items() if value is not None}
        return cls(**{**dict(rate=task.rate, weight_decay=task.weight_decay, epochs=task.epochs), **given})


@dataclass
class Encoded:
    """Examples as a model reads them: a row each, or a row for each window of a text."""

    input_ids: list[list[int]]
    token_type_ids: list[list[int]]
    answers: list  # a class number, a float, or one class number a token with -100 where there is none
    cut: int = 0  # texts that lost something
    owners: list[int] | None = None  # with windows: the number of the text that each row belongs to

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass
class FineTuned:
    """The model with its best weights, and what it does on the held-out examples."""

    model: SequenceClassifier | TokenClassifier
    metrics: dict[str, float]
    settings: Settings
    seconds: float
    examples_per_second: float
    cut: tuple[int, int]  # texts that lost something, in training and held out
    history: list[dict] = field(repr=False, default_factory=list)
    windows: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))  # (texts, their windows) of each part


# ---- texts -> ids ----------------------------------------------------------------------------------------------------


def encode(
    part: Examples, task: Task, names: Sequence[str], tokenizer: Tokenizer, max_length: int, long: str = "cut",
    stride: float = 0.5,
) -> Encoded:  # fmt: skip
    """Ids, types and answers. Of a pair that is too long the longer text is cut first; labels of cut words are lost.
    With `long="windows"` such a text becomes several rows (windows.py)."""
    if task.form == "words":
        return _encode_words(part, names, tokenizer, max_length, long)
    number = {name: i for i, name in enumerate(names)}
    texts = [
        tokenizer.encode_batch([t[k] for t in part.texts], add_special_tokens=False) for k in range(len(task.columns))
    ]
    encoded = Encoded([], [], [], owners=[] if long == "windows" else None)
    for owner, (ids, answer) in enumerate(zip(zip(*texts, strict=True), part.answers, strict=True)):
        room = max_length - 1 - len(ids)
        if long == "windows":
            pieces, lost = divide(ids, room, stride)
            encoded.owners += [owner] * len(pieces)
        else:
            pieces, lost = [shorten(ids, room)], sum(map(len, ids)) > room
        encoded.cut += lost
        for piece in pieces:
            row, types = [tokenizer.cls_id], [0]
            for kind, one in enumerate(piece):
                row += [*one, tokenizer.sep_id]
                types += [kind] * (len(one) + 1)
            encoded.input_ids.append(row)
            encoded.token_type_ids.append(types)
            encoded.answers.append(answer if task.form == "number" else number[answer])
    return encoded


def shorten(texts: Sequence[list[int]], room: int) -> list[list[int]]:
    """Texts cut at their ends until together they fit into `room`, always the longest first."""
    lengths = [len(text) for text in texts]
    while sum(lengths) > room:
        longest = lengths.index(max(lengths))
        others = max((n for i, n in enumerate(lengths) if i != longest), default=0)
        lengths[longest] = max(others - 1, lengths[longest] - (sum(lengths) - room))  # to the next longest at once
    return [list(text[:n]) for text, n in zip(texts, lengths, strict=True)]


def _encode_words(part: Examples, names: Sequence[str], tokenizer: Tokenizer, max_length: int, long: str) -> Encoded:
    """Each word's label stands at its first token. A byte-level BPE spells a word with the space before it, so all but
    the first are tokenised with one; word pieces know no spaces."""
    number = {name: i for i, name in enumerate(names)}
    spaced = tokenizer.name == "byte-level BPE"
    encoded = Encoded([], [], [], owners=[] if long == "windows" else None)
    for owner, (words, labels) in enumerate(zip(part.texts, part.answers, strict=True)):
        spelled = [" " + word if spaced and i else word for i, word in enumerate(words)]
        ids = tokenizer.encode_batch(spelled, add_special_tokens=False)
        length, room = sum(map(len, ids)), max_length - 2
        pieces, lost = continued(ids, [number[str(label)] for label in labels], room if long == "windows" else length)
        if long == "windows":
            encoded.owners += [owner] * len(pieces)
        else:
            pieces, lost = [(row[:room], answers[:room]) for row, answers in pieces], length > room
        encoded.cut += lost
        for row, answers in pieces:
            encoded.input_ids.append([tokenizer.cls_id, *row, tokenizer.sep_id])
            encoded.token_type_ids.append([0] * (len(row) + 2))
            encoded.answers.append([IGNORED, *answers, IGNORED])
    return encoded


def batch(encoded: Encoded, indices: Sequence[int], form: str, pad_id: int, device: torch.device) -> dict[str, Tensor]:
    """The arguments of a classifier's forward. ModernBERT leaves the pads out at once; BERT computes them."""
    input_ids, mask = pad_batch([encoded.input_ids[i] for i in indices], pad_id)
    types, _ = pad_batch([encoded.token_type_ids[i] for i in indices], 0)
    answers = [encoded.answers[i] for i in indices]
    labels = pad_batch(answers, IGNORED)[0] if form == "words" else torch.tensor(answers)
    given = dict(input_ids=input_ids, attention_mask=mask, token_type_ids=types, labels=labels)
    return {name: tensor.to(device) for name, tensor in given.items()}


# ---- training --------------------------------------------------------------------------------------------------------


def finetune(
    pretrained: Model,
    tokenizer: Tokenizer,
    task: Task,
    train: Examples,
    held_out: Examples,
    settings: Settings,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    label: str = "model",
) -> FineTuned:
    """Train a classifier that begins with `pretrained`'s weights; the weights best on `held_out` are kept.

    Of a `pretrained` that is a classifier itself all is taken but the last layer, which begins anew.

    The best of several evaluations on the same examples is a little too good: a number to report needs a test part of
    its own. Raises `InputError` for labels that cannot be learnt from, and where the loss stops being a number.
    """
    device = torch.device(device)
    names = label_names(train, held_out, task)
    longest = settings.max_length or pretrained.config.max_position_embeddings
    if longest > pretrained.config.max_position_embeddings and pretrained.config.positions == "learned":
        raise InputError(
            f"the model has {pretrained.config.max_position_embeddings} positions; max_length {longest} is too long"
        )
    encoded, tested = (
        encode(part, task, names, tokenizer, longest, settings.long, settings.stride) for part in (train, held_out)
    )
    seed_everything(settings.seed)
    made = TokenClassifier if task.form == "words" else SequenceClassifier
    options = {} if task.form == "words" else {"pooling": settings.pooling}
    model = made.from_pretrained(pretrained, names, dropout=settings.dropout, **options).to(device)

    per_epoch = -(-len(encoded) // settings.batch_size)
    steps = per_epoch * settings.epochs
    warmup = max(1, round(settings.warmup_share * steps))
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay), lr=settings.rate, betas=(0.9, 0.98), eps=1e-6
    )
    scale = _answers_scale(encoded, task)
    best: dict = {"score": -float("inf"), "weights": None, "metrics": {}, "since": 0}
    history, seconds = [], 0.0
    every = max(1, per_epoch // settings.evaluations)
    order = SequenceBatches(range(len(encoded)), settings.batch_size, settings.seed).take(steps)
    with progress(total=steps, desc=f"finetune {label}", unit="step") as bar:
        for step, indices in enumerate(order, start=1):
            start = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * linear(step, warmup=warmup, total=steps)
            loss = _step(
                model.train(),
                optimizer,
                _scaled(batch(encoded, indices, task.form, tokenizer.pad_id, device), scale),
                device,
                dtype,
            )
            seconds += time.perf_counter() - start
            if loss != loss:
                raise InputError(f"the loss of {label} is not a number after {step} steps; lower the learning rate")
            history.append(dict(what="train_loss", value=loss, unit="nats", step=step, seconds=seconds))
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update()
            if step % every and step < steps:
                continue
            metrics = evaluate(model, tested, task, tokenizer.pad_id, device=device, dtype=dtype, scale=scale)
            history += [
                dict(what=name, value=value, unit="share", step=step, seconds=seconds)
                for name, value in metrics.items()
            ]
            if metrics[task.metrics[0]] > best["score"]:
                best |= dict(
                    score=metrics[task.metrics[0]], metrics=metrics, since=0, weights=copy.deepcopy(model.state_dict())
                )
            else:
                best["since"] += 1
                if settings.patience is not None and best["since"] >= settings.patience:
                    break
    model.load_state_dict(best["weights"])
    _unscale(model, scale)
    return FineTuned(
        model.eval(),
        best["metrics"],
        settings,
        seconds,
        step * settings.batch_size / seconds,
        (encoded.cut, tested.cut),
        history,
        (counted(encoded.owners), counted(tested.owners)),
    )


def _step(model, optimizer, given: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> float:
    with autocast(device, dtype):
        loss = model(**given).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _answers_scale(encoded: Encoded, task: Task) -> tuple[float, float] | None:
    """Mean and spread of a regression's targets: a network learns numbers near zero, not 50,000 and not 0.001."""
    if task.form != "number":
        return None
    answers = np.array(encoded.answers)
    return float(answers.mean()), float(answers.std()) or 1.0


def _scaled(given: dict[str, Tensor], scale: tuple[float, float] | None) -> dict[str, Tensor]:
    return given if scale is None else {**given, "labels": (given["labels"] - scale[0]) / scale[1]}


def _unscale(model, scale: tuple[float, float] | None) -> None:
    """Put mean and spread into the last layer, so that the saved model answers in the user's own units."""
    if scale is not None:
        with torch.no_grad():
            model.classifier.weight.mul_(scale[1])
            model.classifier.bias.mul_(scale[1]).add_(scale[0])


@torch.no_grad()
def evaluate(
    model, encoded: Encoded, task: Task, pad_id: int, *, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32, scale: tuple[float, float] | None = None, batch_size: int = 32,
) -> dict[str, float]:  # fmt: skip
    """The task's metrics over all texts. Rows of like length share a batch, so few pads are computed; the logits of a
    text's windows are averaged."""
    device = torch.device(device)
    model.eval()
    truth, said = [], []
    order = sorted(range(len(encoded)), key=lambda i: len(encoded.input_ids[i]))
    for start in range(0, len(order), batch_size):
        given = batch(encoded, order[start : start + batch_size], task.form, pad_id, device)
        labels = given.pop("labels")
        with autocast(device, dtype):
            logits = model(**given).logits.float()
        if task.form == "words":
            chosen = labels != IGNORED
            logits, labels = logits[chosen], labels[chosen]
        said.append(logits)
        truth.append(labels)
    logits, truth = torch.cat(said), torch.cat(truth)
    if encoded.owners is not None and task.form != "words":
        owners = torch.tensor([encoded.owners[i] for i in order], device=device)
        logits, truth = one_a_text(logits, truth, owners)
    if task.form == "number":
        said = logits[:, 0] if scale is None else logits[:, 0] * scale[1] + scale[0]
    else:
        said = logits.argmax(-1)
    truth, said = truth.cpu().numpy(), said.cpu().numpy()
    return {name: METRICS[name](truth, said) for name in task.metrics}


def check_model(model: Model, tokenizer: Tokenizer | None, name: str) -> None:
    """Whether a model that was opened can be fine-tuned. Raises `InputError` if not."""
    if tokenizer is None:
        raise InputError(f"{name} has no tokenizer; put the tokenizer.json that it was trained with beside it")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            f"{name}: the tokenizer has {tokenizer.vocab_size} ids and the model {model.config.vocab_size}; "
            "put the tokenizer that it was trained with beside it"
        )


def repeated(settings: Settings, seeds: int) -> list[Settings]:
    return [replace(settings, seed=settings.seed + i) for i in range(seeds)]
