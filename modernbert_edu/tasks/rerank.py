"""A cross-encoder: query and text are read together, `[CLS] query [SEP] text [SEP]` -> one number.

An embedder reads a text before it knows the question; here every token of the one attends to every token of the other.
That costs a forward pass a pair, so it only reorders the best of a first stage that can search everything.

    mine_negatives   texts that the first stage ranks high and that do not answer: what has to be told apart
    train_reranker   softmax over the right text and some of these, for each query
    Reranker         a trained model -> scores of pairs, or new orders of a first stage's candidates

The model is a `SequenceClassifier` with one label: what `checkpoint.save` writes of it opens as transformers'
`AutoModelForSequenceClassification` and as sentence-transformers' `CrossEncoder`. The scores here are logits, in
(-inf, inf); `CrossEncoder.predict` applies the sigmoid to them unless it is told otherwise, which changes no order.

Letters: Q queries, N texts, K candidates of a query.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoint import Model, load, save
from ..classifier import SequenceClassifier
from ..data.batches import SequenceBatches
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..runtime import progress, seed_everything
from ..training.optim import parameter_groups
from ..training.pretrain import autocast
from .finetune import Encoded, batch, check_model, encode
from .forms import Task
from .library import Pair
from .loop import train_steps
from .table import Examples

LABEL = "relevance"
PAIR = Task("rerank", ("query", "document"), label=LABEL, form="number")
PAIRS_AT_ONCE = 1024  # tokenised together when there are many queries
Negatives = Sequence[Sequence[str]] | Callable[[int, random.Random], Sequence[str]]


@dataclass(frozen=True)
class RerankSettings:
    """How to train a reranker. One step reads `batch_size` queries, each with 1 + `negatives` texts."""

    rate: float
    steps: int
    batch_size: int = 8
    negatives: int = 3
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    max_length: int | None = 512  # tokens of query and text together; None: what the model takes
    pooling: str = "cls"
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.rate <= 1:
            raise InputError(f"the learning rate must be above 0 and at most 1, not {self.rate!r}; try 5e-5")
        for name in ("steps", "batch_size", "negatives"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {getattr(self, name)!r}")


@dataclass
class RerankerRun:
    """A trained reranker, and what its training took. `seconds` is training alone, without the evaluations."""

    reranker: Reranker
    seconds: float
    examples: int  # pairs read, right and wrong ones
    cut: int  # of them were too long
    history: list[dict] = field(repr=False, default_factory=list)


# ---- scoring ---------------------------------------------------------------------------------------------------------


class Reranker:
    """A cross-encoder with its tokenizer. Pairs of more than `max_length` tokens (None: what the tokenizer was saved
    with, or what the model takes) are cut, the longer text first; `cut` says how many the last call cut.

    Raises `InputError` for a model that does not give one number, and a length that the model does not take.
    """

    def __init__(
        self, model: SequenceClassifier, tokenizer: Tokenizer, *, max_length: int | None = None,
        batch_tokens: int = 16_384, dtype: torch.dtype = torch.float32,
    ):  # fmt: skip
        if not isinstance(model, SequenceClassifier) or model.num_labels != 1:
            raise InputError("a reranker is a sequence classifier with one label; train one with train_reranker")
        self.model, self.tokenizer, self.batch_tokens, self.dtype = model, tokenizer, batch_tokens, dtype
        self.max_length = _checked_length(max_length, model, tokenizer)
        self.cut = 0

    @classmethod
    def load(cls, name: str | Path, *, device: torch.device | str = "cpu", **options) -> Reranker:
        """Open a folder or a Hub id. Raises `InputError` for anything but a cross-encoder with its tokenizer."""
        model, tokenizer = load(name)
        if not isinstance(model, SequenceClassifier) or model.num_labels != 1:
            raise InputError(f"{name} is no reranker: it needs a sequence classifier with one label")
        if tokenizer is None:
            raise InputError(f"{name} has no tokenizer; put the tokenizer.json that it was trained with beside it")
        return cls(model.to(device), tokenizer, **options)

    def save(self, folder: str | Path) -> Path:
        """A folder for `load`, and for transformers and sentence-transformers, which will cut at the same length."""
        tokenizer = copy.copy(self.tokenizer)
        tokenizer.max_length = self.max_length
        return save(self.model, tokenizer, folder)

    def rerank(self, query: str, texts: Sequence[str]) -> Tensor:
        """How well each text answers the query: (N,) float32 logits on the CPU, in the texts' order."""
        return self.score([query] * len(texts), texts)

    @torch.no_grad()
    def score(self, queries: Sequence[str], texts: Sequence[str]) -> Tensor:
        """(N,) float32 logits on the CPU of N pairs. Pairs of like length share a batch, so few pads are computed."""
        encoded = encode_pairs(queries, texts, self.tokenizer, self.max_length)
        self.cut = encoded.cut
        was_training, device = self.model.training, self.model.classifier.weight.device
        self.model.eval()
        scores = torch.empty(len(encoded))
        for chosen in _batches(encoded, self.batch_tokens):
            with autocast(device, self.dtype):
                scores[chosen] = _logits(self.model, encoded, chosen, self.tokenizer.pad_id).float().cpu()
        self.model.train(was_training)
        return scores

    def rerank_indices(self, queries: Sequence[str], texts: Sequence[str], indices) -> tuple[Tensor, Tensor]:
        """A first stage's candidates, `indices` (Q, K) into `texts`, in a new order: (scores (Q, K), indices (Q, K)).

        Each row holds what it held, the highest score first; equal scores keep the first stage's order.
        """
        indices = torch.as_tensor(indices, dtype=torch.int64).cpu()
        if indices.dim() != 2 or len(indices) != len(queries):
            raise InputError(f"indices must have a row for each of the {len(queries)} queries, not {indices.shape}")
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < len(texts):
            raise InputError(f"candidates must be numbers from 0 to {len(texts) - 1}, one for each text")
        K, cut = indices.shape[1], 0
        at_once = max(1, PAIRS_AT_ONCE // max(1, K))
        scores = torch.empty(indices.shape)
        for start in progress(range(0, len(queries), at_once), desc="rerank", unit=f" x {at_once} queries"):
            rows = indices[start : start + at_once]
            asked = [query for query in queries[start : start + at_once] for _ in range(K)]
            scores[start : start + at_once] = self.score(asked, [texts[i] for i in rows.flatten()]).view(rows.shape)
            cut += self.cut
        self.cut = cut
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return scores, indices.gather(1, order)


def encode_pairs(queries: Sequence[str], texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> Encoded:
    """`[CLS] query [SEP] text [SEP]` as ids, with the types 0 and 1 that BERT reads; `cut` counts what was too long."""
    pairs = list(zip(queries, texts, strict=True))
    return encode(Examples(pairs, [0.0] * len(pairs)), PAIR, (LABEL,), tokenizer, max_length)


def _logits(model: SequenceClassifier, encoded: Encoded, chosen: Sequence[int], pad_id: int) -> Tensor:
    given = batch(encoded, chosen, "number", pad_id, model.classifier.weight.device)
    del given["labels"]  # with one label the model's own loss would be a squared error
    return model(**given).logits[:, 0]


def _batches(encoded: Encoded, batch_tokens: int) -> Iterator[list[int]]:
    """Pairs by rising length, as many at a time as fit into a rectangle of `batch_tokens`; at least one."""
    chosen: list[int] = []
    for i in sorted(range(len(encoded)), key=lambda i: len(encoded.input_ids[i])):
        if chosen and (len(chosen) + 1) * len(encoded.input_ids[i]) > batch_tokens:
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen


def _checked_length(max_length: int | None, model: Model, tokenizer: Tokenizer) -> int:
    most = model.config.max_position_embeddings
    length = min(most, tokenizer.max_length or most) if max_length is None else max_length
    if length < 8:
        raise InputError(f"max_length {length} leaves no room for a query and a text; give at least 8 tokens")
    return min(length, most) if model.config.positions == "learned" else length


# ---- training --------------------------------------------------------------------------------------------------------


def mine_negatives(
    pairs: Sequence[Pair], indices, count: int, documents: Sequence[str] | None = None, seed: int = 0
) -> list[list[str]]:
    """`count` wrong texts for each pair: those a first stage ranks highest, without what answers the query.

    `indices` (Q, K) are the first stage's candidates for each pair's query, best first, as numbers of `documents`
    (default: the pairs' own, in order). Left out are the pair's document, the documents of other pairs with the same
    query, and every text equal to one of these. Where too few are left, others are drawn at random.
    Raises `InputError` where there are not enough different texts.
    """
    documents = [pair.document for pair in pairs] if documents is None else list(documents)
    if len(indices) != len(pairs):
        raise InputError(f"indices must have a row for each of the {len(pairs)} pairs, not {len(indices)}")
    right: dict[str, set[str]] = {}
    for pair in pairs:
        right.setdefault(pair.query, set()).add(pair.document)
    different, rng = sorted(set(documents)), random.Random(seed)
    mined = []
    for pair, row in zip(pairs, torch.as_tensor(indices).tolist(), strict=True):
        answers = right[pair.query]
        found = dict.fromkeys(documents[i] for i in row if documents[i] not in answers)  # each once, in order
        found = list(found)[:count]
        if len(found) < count:
            others = [text for text in different if text not in answers and text not in found]
            if len(others) < count - len(found):
                raise InputError(f"there are too few different texts for {count} wrong ones a query; ask for fewer")
            found += rng.sample(others, count - len(found))
        mined.append(found)
    return mined


def train_reranker(
    pretrained: Model,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    settings: RerankSettings,
    *,
    negatives: Negatives,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    label: str = "reranker",
    evaluate: Callable[[Reranker], dict[str, float]] | None = None,
    eval_every: int | None = None,
) -> RerankerRun:
    """Train a cross-encoder that begins with `pretrained`'s weights; its last layer begins at random.

    For a query with the right text's logit s0 and those of n wrong ones, s1 ... sn, the loss is
    -log(exp(s0) / sum_i exp(si)): the localized contrastive estimation of Gao, Dai and Callan 2021, "Rethink training
    of BERT rerankers in multi-stage retrieval pipeline" (arXiv 2101.08751). The wrong texts are the query's own hard
    ones, because the model will only see what a first stage found.

    `negatives` holds a list of wrong texts for each pair (`mine_negatives`), of which each step draws some, or is a
    function (pair's number, random generator) -> texts. AdamW, linear warm-up and decay; ModernBERT unpads.
    `evaluate(reranker)` gives metrics, before the first step, every `eval_every` steps and at the end.
    Raises `InputError` for bad settings, and where the loss stops being a number.
    """
    check_model(pretrained, tokenizer, label)
    if not pairs:
        raise InputError("there are no pairs to train on; give at least one query with its text")
    draw = _drawing(negatives, pairs, settings.negatives)
    device, rng = torch.device(device), random.Random(settings.seed)
    length = _checked_length(settings.max_length, pretrained, tokenizer)
    seed_everything(settings.seed)
    model = SequenceClassifier.from_pretrained(pretrained, (LABEL,), pooling=settings.pooling).to(device)
    run = RerankerRun(Reranker(model, tokenizer, max_length=length, dtype=dtype), 0.0, 0, 0)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay), lr=settings.rate, betas=(0.9, 0.98), eps=1e-6
    )

    def step(chosen: Sequence[int]) -> float:
        texts = [text for i in chosen for text in (pairs[i].document, *draw(i, rng))]  # the right one first
        queries = [pairs[i].query for i in chosen for _ in range(1 + settings.negatives)]
        encoded = encode_pairs(queries, texts, tokenizer, length)
        run.examples += len(encoded)
        run.cut += encoded.cut
        return _step(model.train(), optimizer, encoded, len(chosen), tokenizer.pad_id, dtype)

    order = SequenceBatches(range(len(pairs)), settings.batch_size, settings.seed).take(settings.steps)
    train_steps(
        run, optimizer, order, step, settings, label=label, seen=lambda: run.examples,
        judge=lambda: evaluate(run.reranker) if evaluate else {}, eval_every=eval_every,
    )  # fmt: skip
    model.eval()
    return run


def _step(model, optimizer, encoded: Encoded, queries: int, pad_id: int, dtype: torch.dtype) -> float:
    device = model.classifier.weight.device
    with autocast(device, dtype):
        logits = _logits(model, encoded, range(len(encoded)), pad_id)
    scores = logits.float().view(queries, -1)  # (queries, 1 + negatives), the right text in column 0
    loss = F.cross_entropy(scores, torch.zeros(queries, dtype=torch.int64, device=device))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _drawing(negatives: Negatives, pairs: Sequence[Pair], count: int) -> Callable[[int, random.Random], list[str]]:
    """(pair's number, generator) -> exactly `count` wrong texts, none of them the right one."""
    if not callable(negatives):
        if len(negatives) != len(pairs):
            raise InputError(f"negatives must hold a list for each of the {len(pairs)} pairs, not {len(negatives)}")
        given = negatives

        def negatives(i: int, rng: random.Random) -> list[str]:
            return rng.sample(given[i], min(count, len(given[i])))

    def draw(i: int, rng: random.Random) -> list[str]:
        texts = list(negatives(i, rng))
        if len(texts) != count or pairs[i].document in texts:
            wrong = "the right text is among the wrong ones" if len(texts) == count else f"{len(texts)} wrong texts"
            raise InputError(f"pair {i + 1}: {wrong}; each needs {count} that differ from its own text")
        return texts

    return draw
