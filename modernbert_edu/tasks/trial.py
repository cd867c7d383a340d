"""Questions whose answers are known, the texts they are searched for among, and how well that goes.

    rank            by a model's vectors
    rank_by_words   by BM25, which needs no training
    metrics         how good a ranking is

Letters: Q questions, N texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..retriever import Retriever, TokenEmbedder
from .ranking import Bm25, evaluate_ranking, exact_top_k, late_top_k

DEPTH = 100  # of a ranking: recall@100 is the deepest measure


@dataclass(frozen=True)
class Trial:
    """Q questions, N texts, and for each question the positions of the texts that answer it."""

    queries: list[str]
    documents: list[str]
    relevant: list[set[int]]


def rank(model: Retriever, trial: Trial, k: int = DEPTH, *, bar: bool = False, **options) -> Tensor:
    """(Q, min(k, N)) positions of the texts, best first. `options` go to `encode`; `bar` shows how far the texts are.

    The texts are encoded last: `model.cut` then says how many of them were too long.
    """
    queries = model.encode(trial.queries, "query", **options)
    documents = model.encode(trial.documents, "document", bar=bar, **options)
    find = late_top_k if isinstance(model, TokenEmbedder) else exact_top_k
    return find(queries, documents, k)[1]


def rank_by_words(trial: Trial, k: int = DEPTH) -> Tensor:
    """(Q, min(k, N)) positions as BM25 orders them."""
    return Bm25(trial.documents).top_k(trial.queries, k)[1]


def metrics(ranking: Tensor, trial: Trial) -> dict[str, float]:
    """MRR@10, nDCG@10, recall@10 and @100, accuracy@1, as sentence-transformers computes them."""
    return evaluate_ranking(ranking, trial.relevant, documents=len(trial.documents))
