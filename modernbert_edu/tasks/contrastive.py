"""Contrastive training: each question is to find its own text among all the texts of the batch.

    loss     cross-entropy over the scores of one question against every text of the batch, divided by a temperature
             (van den Oord et al. 2018, "InfoNCE"; with the other texts as negatives Henderson et al. 2017)
    cache    a batch of any size in little memory (Gao et al. 2021, "gradient caching", arXiv 2101.06983): vectors
             without gradients first, the loss's gradient for each vector, then chunk by chunk the encoder's

Letters: N questions of a batch, M texts (N or more), D size of a vector, S tokens, K size of a token's vector.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.batches import SequenceBatches, pad_batch
from ..errors import InputError, Paused
from ..retriever import Retriever, TokenEmbedder
from ..runtime import seed_everything
from ..training.checkpoints import Checkpoint, keep_only, newest_checkpoint, save_checkpoint
from ..training.optim import parameter_groups
from ..training.pretrain import autocast
from .library import Pair
from .loop import train_steps


@dataclass(frozen=True)
class ContrastiveSettings:
    """How a retriever is trained. Rates of 1e-3 suit the small models of the course, 5e-5 a published one."""

    rate: float
    steps: int
    batch_size: int = 64
    chunk_size: int | None = None  # texts computed at once with gradients; None: the whole batch
    temperature: float = 0.05
    warmup_share: float = 0.1
    query_length: int = 64  # tokens
    document_length: int = 256
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch_size", "query_length", "document_length"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {getattr(self, name)!r}")
        if self.batch_size < 2:
            raise InputError("a batch of one pair has no negatives; give batch_size 2 or more")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise InputError(f"chunk_size must be at least 1, not {self.chunk_size!r}")
        if not self.temperature > 0:
            raise InputError(f"temperature must be above 0, not {self.temperature!r}; 0.05 is usual")
        if not 0 < self.rate <= 1:
            raise InputError(f"the learning rate must be above 0 and at most 1, not {self.rate!r}")


@dataclass
class RetrieverRun:
    """What a training measured. `seconds` is training alone, evaluations are not counted."""

    seconds: float
    pairs: int  # seen in training, repeats counted
    history: list[dict] = field(repr=False, default_factory=list)

    @property
    def pairs_per_second(self) -> float:
        return self.pairs / self.seconds


# ---- the loss --------------------------------------------------------------------------------------------------------


def info_nce(scores_NM: Tensor, temperature: float, ignored_NM: Tensor | None = None) -> Tensor:
    """Mean over the questions of -log softmax(scores / temperature) at their own text, which is text n of question n.

    `ignored_NM` marks texts that are no negatives: another copy of the right text, say.
    """
    logits = scores_NM.float() / temperature
    if ignored_NM is not None:
        logits = logits.masked_fill(ignored_NM, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def score_matrix(queries: Tensor, documents: Tensor) -> Tensor:
    """Every question against every text: (N, D) and (M, D) -> (N, M) dot products.

    Token vectors (N, S, K) and (M, S', K), zeros at pads -> (N, M): each question's sum of best matches, divided by
    its number of tokens, so that one temperature suits questions of any length.
    """
    if queries.dim() == 2:
        return queries @ documents.T
    real_NS, real_MS = (vectors.abs().sum(dim=-1) > 0 for vectors in (queries, documents))
    matches = torch.einsum("nsk,mtk->nmst", queries, documents).masked_fill(~real_MS[None, :, None], float("-inf"))
    best_NMS = matches.amax(dim=-1) * real_NS[:, None]
    return best_NMS.sum(dim=-1) / real_NS.sum(dim=1)[:, None]


def same_text(pairs: Sequence[Pair]) -> Tensor:
    """(N, N) bool: text m is no negative of question n, for the two share their text or their question."""
    alike = torch.zeros(len(pairs), len(pairs), dtype=torch.bool)
    for side in ([pair.query for pair in pairs], [pair.document for pair in pairs]):
        numbers = {text: number for number, text in enumerate(side)}  # equal texts share one number
        same_N = torch.tensor([numbers[text] for text in side])
        alike |= same_N[:, None] == same_N
    return alike.fill_diagonal_(False)


# ---- training --------------------------------------------------------------------------------------------------------


def train_retriever(
    model: Retriever,
    pairs: Sequence[Pair],
    settings: ContrastiveSettings,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    label: str = "retriever",
    evaluate: Callable[[Retriever], dict[str, float]] | None = None,
    eval_every: int | None = None,
    out: Path | None = None,
    deadline: float | None = None,
) -> RetrieverRun:
    """Train `model` in place on (query, document) pairs, AdamW, linear warm-up and decay.

    Each step draws `batch_size` pairs; a text's negatives are the other texts of its batch. `evaluate(model)` gives
    metrics, before the first step, every `eval_every` steps and at the end. With `out`, the state is kept there after
    each evaluation, and a stopped training goes on from it, to the same bits on a CPU; it raises `Paused` where the
    next stretch would last beyond `deadline` (time.monotonic; the first stretch is always run). Raises `InputError`
    where the loss stops being a number, there are fewer pairs than a batch holds, or `out` holds another training.
    """
    if len(pairs) < settings.batch_size:
        raise InputError(f"{len(pairs)} pairs do not fill a batch of {settings.batch_size}; give more pairs")
    device = torch.device(device)
    seed_everything(settings.seed)
    model.to(device).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.rate, betas=(0.9, 0.98))
    run, begun = RetrieverRun(0.0, 0), 0
    whose = _identity(model, pairs, settings, dtype, device) if out is not None else {}
    if out is not None and (checkpoint := newest_checkpoint(out)):
        begun = _go_on(model, optimizer, run, checkpoint, whose, device)
    stretch = time.monotonic()

    def keep(number: int) -> None:
        nonlocal stretch
        if out is not None:
            _keep(model, optimizer, run, number, whose, out, device)
            keep_only(out, {number})
            now, last = time.monotonic(), stretch
            if deadline is not None and now + (now - last) > deadline:
                raise Paused(f"{label} paused after step {number:,} of {settings.steps:,}")
            stretch = now

    def step(chosen: list[Pair]) -> float:
        run.pairs += len(chosen)
        return _step(model.train(), optimizer, chosen, settings, device, dtype)

    train_steps(
        run, optimizer, islice(_batches(pairs, settings), begun, None), step, settings, label=label,
        seen=lambda: run.pairs, judge=lambda: evaluate(model) if evaluate else {}, eval_every=eval_every, begun=begun,
        keep=keep,
    )  # fmt: skip
    model.eval()
    return run


def _identity(model: Retriever, pairs: Sequence[Pair], settings: ContrastiveSettings, dtype, device) -> dict:
    """What must be the same for a training to go on."""
    texts = json.dumps([[pair.query, pair.document] for pair in pairs]).encode()
    return dict(settings=vars(settings), model=type(model).__name__, config=model.config.identity(),
                tokenizer=model.tokenizer.fingerprint, dtype=str(dtype), device=device.type,
                pairs=hashlib.sha256(texts).hexdigest())  # fmt: skip


def _keep(model: Retriever, optimizer, run: RetrieverRun, step: int, whose: dict, out: Path, device) -> None:
    moments = {f"{place}.{name}": tensor for place, state in optimizer.state_dict()["state"].items()
               for name, tensor in state.items()}  # fmt: skip
    random = {f"random.{i}": state for i, state in enumerate(_random_state(device)) if state is not None}
    state = dict(step=step, seconds=run.seconds, pairs=run.pairs, history=run.history, of=whose)
    save_checkpoint(out, model.state_dict(), {**moments, **random}, state)


def _go_on(model: Retriever, optimizer, run: RetrieverRun, checkpoint: Checkpoint, whose: dict, device) -> int:
    """Put everything back as it was: -> steps done."""
    others = [name for name, value in whose.items() if checkpoint.state.get("of", {}).get(name) != value]
    if others:
        folder = checkpoint.path.parents[1]
        raise InputError(f"{folder} holds a training of other {', '.join(others)}; give another folder or remove it")
    model.load_state_dict(checkpoint.weights())
    random, states = {}, {}
    for key, tensor in checkpoint.optimizer_state().items():
        place, name = key.split(".")
        if place == "random":
            random[int(name)] = tensor
        else:
            states.setdefault(int(place), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    _set_random_state((random[0], random.get(1)), device)
    run.seconds, run.pairs, run.history = (checkpoint.state[name] for name in ("seconds", "pairs", "history"))
    return checkpoint.step


def _batches(pairs: Sequence[Pair], settings: ContrastiveSettings) -> Iterator[list[Pair]]:
    order = SequenceBatches(range(len(pairs)), settings.batch_size, settings.seed)
    return ([pairs[i] for i in indices] for indices in order.take(settings.steps))


def _step(model, optimizer, pairs: Sequence[Pair], settings: ContrastiveSettings, device, dtype) -> float:
    queries = model.token_ids([pair.query for pair in pairs], "query", settings.query_length)
    documents = model.token_ids([pair.document for pair in pairs], "document", settings.document_length)
    ignored = same_text(pairs).to(device)

    def loss_of(queries: Tensor, documents: Tensor) -> Tensor:
        return info_nce(score_matrix(queries, documents), settings.temperature, ignored)

    backward = cached_backward if settings.chunk_size else plain_backward
    loss = backward(model, (queries, documents), loss_of, settings.chunk_size, device, dtype)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def plain_backward(model, sides, loss_of, chunk_size, device, dtype) -> float:
    """Gradients of the whole batch in one go: everything computed for it is kept until then."""
    loss = loss_of(*(embed(model, ids, device, dtype) for ids in sides))
    loss.backward()
    return loss.item()


def cached_backward(model, sides, loss_of, chunk_size: int, device, dtype) -> float:
    """The same gradients, with only `chunk_size` texts' activations in memory at a time, for one more forward pass.

    The loss needs all vectors at once, but of each vector the encoder needs only the loss's gradient for it. Random
    numbers (dropout) are drawn again as they were drawn the first time.
    """
    chunks = [[ids[i : i + chunk_size] for i in range(0, len(ids), chunk_size)] for ids in sides]
    widths = [max(map(len, ids)) for ids in sides]
    vectors, states = [], []
    with torch.no_grad():
        for side, width in zip(chunks, widths, strict=True):
            states.append([])
            parts = []
            for ids in side:
                states[-1].append(_random_state(device))
                parts.append(embed(model, ids, device, dtype, width))
            vectors.append(torch.cat(parts))
    vectors = [side.requires_grad_() for side in vectors]
    loss = loss_of(*vectors)
    loss.backward()
    after = _random_state(device)
    for side, side_states, width, whole in zip(chunks, states, widths, vectors, strict=True):
        for ids, state, gradient in zip(side, side_states, whole.grad.split(chunk_size), strict=True):
            _set_random_state(state, device)
            embed(model, ids, device, dtype, width).backward(gradient)
    _set_random_state(after, device)
    return loss.item()


def embed(model: Retriever, ids: Sequence[list[int]], device, dtype: torch.dtype, width: int | None = None) -> Tensor:
    """(N, D), or token vectors (N, S, K) filled up with zeros to `width` tokens."""
    input_ids, mask = pad_batch(ids, model.tokenizer.pad_id)
    with autocast(torch.device(device), dtype):
        vectors = model(input_ids.to(device), mask.to(device))
    if isinstance(model, TokenEmbedder) and width is not None:
        vectors = F.pad(vectors, (0, 0, 0, width - vectors.shape[1]))
    return vectors


def _random_state(device: torch.device) -> tuple:
    device = torch.device(device)
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], torch.device(device))
