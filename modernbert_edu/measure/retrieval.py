"""Retrieval measured on what every reader has: the library and the packages of the Python that runs this.

    code       what a docstring says                      -> the function, without its docstrings
    prose      a docstring's first sentence, or a heading of the language reference -> what follows it
    modules    what a module says of itself               -> the whole module, to 8,192 tokens

One division by package serves all three: what a model is trained on and what it is judged on share no package. Models
are trained on code and prose together. BM25, which needs no training, is judged on the same questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..beginning import tokenizer_of_texts
from ..data.batches import chunk
from ..data.tokenizer import Tokenizer
from ..model import MaskedLM
from ..retriever import Embedder, Retriever
from ..tasks.library import Pair, functions, installed_files, library_files, modules, passages, split_by_package, topics
from ..tasks.passages import cut_text
from ..tasks.trial import DEPTH, Trial, metrics, rank, rank_by_words
from ..training.pretrain import train_mlm


@dataclass(frozen=True)
class RetrievalTask(Trial):
    """A trial with a name, and the packages whose texts it holds."""

    name: str
    packages: frozenset[str]

    @classmethod
    def of_pairs(cls, name: str, pairs: Sequence[Pair]) -> RetrievalTask:
        """Every pair's question, among all pairs' texts."""
        relevant = [{i} for i in range(len(pairs))]
        packages = frozenset(pair.package for pair in pairs)
        return cls([p.query for p in pairs], [p.document for p in pairs], relevant, name, packages)


@dataclass(frozen=True)
class LibraryData:
    """Pairs to train on, and the tasks to judge by, which share no package."""

    train: list[Pair]
    tasks: dict[str, RetrievalTask]

    @property
    def train_packages(self) -> frozenset[str]:
        return frozenset(pair.package for pair in self.train)


def library_data(
    *, per_package: int | None, modules_per_package: int, queries: int, held_out_share: float = 0.15,
    installed: bool = True, seed: int = 0, module_characters: int = 4_000, trained_per_package: int | None = None,
) -> LibraryData:  # fmt: skip
    """At most `per_package` functions of each package (`trained_per_package` of those to train on, where more are
    wanted), and at most `queries` questions a task.

    The language reference is never trained on. Reading and parsing takes about 20 seconds, 5 without the installed
    packages.
    """
    files = library_files() + (installed_files() if installed else [])
    code = functions(files, per_package, seed)
    train, held = split_by_package(code, held_out_share, seed)
    if trained_per_package is not None:
        packages = {pair.package for pair in held}
        train = [pair for pair in functions(files, trained_per_package, seed) if pair.package not in packages]
    prose, held_prose = passages(train), passages(held) + topics()
    held_packages = {pair.package for pair in held}
    held_files = [(package, path) for package, path in files if package in held_packages]
    long = modules(held_files, modules_per_package, module_characters, seed)
    train = [*train, *prose]
    held = {name: unseen(pairs, train) for name, pairs in (("code", held), ("prose", held_prose), ("modules", long))}
    tasks = {name: RetrievalTask.of_pairs(name, sample(pairs, queries, seed)) for name, pairs in held.items()}
    return LibraryData(train, tasks)


def unseen(pairs: Sequence[Pair], train: Sequence[Pair]) -> list[Pair]:
    """The pairs of which neither side stands in training: packages copy sentences from each other, too."""
    known = {text for pair in train for text in (pair.query, pair.document)}
    return [pair for pair in pairs if pair.query not in known and pair.document not in known]


def sample(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """At most `count` of the pairs, drawn at random."""
    return random.Random(seed).sample(list(pairs), min(count, len(pairs)))


# ---- models ----------------------------------------------------------------------------------------------------------


def learn_tokenizer(data: LibraryData, vocab_size: int, characters: int, seed: int = 0) -> Tokenizer:
    """A byte-level BPE from training pairs alone, drawn at random."""
    return tokenizer_of_texts([pair.text for pair in sample(data.train, len(data.train), seed)], characters, vocab_size)


def pretrain_on(model: MaskedLM, data: LibraryData, tokenizer: Tokenizer, *, length: int, held_out: int, **options):
    """Masked-language-model training on the texts of the training pairs: -> `TrainingRun`."""
    rows = tokenizer.encode_batch([pair.text for pair in data.train], add_special_tokens=False)
    sequences = [part for ids in rows for part in chunk(ids, length, tokenizer.cls_id, tokenizer.sep_id)]
    return train_mlm(model, sequences[held_out:], sequences[:held_out], tokenizer, **options)


# ---- judging ---------------------------------------------------------------------------------------------------------


def rank_by_chunks(model: Embedder, task: RetrievalTask, tokens: int, k: int = DEPTH, **options) -> torch.Tensor:
    """(Q, k) positions where a text is cut into chunks of at most `tokens` and its score is its best chunk's."""
    texts, owners = [], []
    for i, document in enumerate(task.documents):
        cut = cut_text(document, "document.py", model.tokenizer, tokens)[0]
        texts += [passage.text for passage in cut]
        owners += [i] * len(cut)
    queries = model.encode(task.queries, "query", **options)
    scores = queries @ model.encode(texts, "document", **options).T
    best = torch.full((len(queries), len(task.documents)), float("-inf"))
    best.scatter_reduce_(1, torch.tensor(owners).expand(len(queries), -1), scores, "amax")
    return best.sort(dim=1, descending=True, stable=True).indices[:, :k]


def judge(model: Retriever, task: RetrievalTask, **options) -> dict[str, float]:
    return metrics(rank(model, task, **options), task)


def judge_by_words(task: RetrievalTask) -> dict[str, float]:
    return metrics(rank_by_words(task), task)


def judging(data: LibraryData, names: Sequence[str], max_length: int | None = None) -> Callable[[Retriever], dict]:
    """For `train_retriever`: every task's metrics, named "code mrr@10" and so on."""

    def evaluate(model: Retriever) -> dict[str, float]:
        longest, model.max_length = model.max_length, max_length or model.max_length
        try:
            found = {name: judge(model, data.tasks[name]) for name in names}
        finally:
            model.max_length = longest
        return {f"{name} {metric}": value for name in names for metric, value in found[name].items()}

    return evaluate


def smaller(task: RetrievalTask, queries: int) -> RetrievalTask:
    """The first questions of a task, among all its texts."""
    return replace(task, queries=task.queries[:queries], relevant=task.relevant[:queries])
