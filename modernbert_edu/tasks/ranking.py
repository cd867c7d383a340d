"""Which documents come first: by words, by one vector a text, by one vector a token; and how good a ranking is.

    by words     code_words, Bm25         the baseline that every retriever has to beat
    by vectors   exact_top_k, late_top_k  every document is compared: no approximation, no index
    judged by    evaluate_ranking         MRR, nDCG, recall and accuracy, as sentence-transformers counts them
                 reciprocal_ranks, and intervals.py over them

A ranking is a pair (scores, indices) of (Q, k) tensors, best first: float32, and the documents' positions as int64.
Equal scores go to the lower position everywhere, so a ranking depends on no library's sorting. `k` beyond the number of
documents gives all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

QUERY_BLOCK = 1024  # queries, or query tokens, compared at once: with a chunk of documents 64 MiB of scores

# ---- by words --------------------------------------------------------------------------------------------------------

# Between the parts of an identifier: underscores; aB -> a B; HTTPServer -> HTTP Server, but URLs stays whole.
_PARTS = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z](?!s(?![a-z]))[a-z])")


def code_words(text: str) -> list[str]:
    """The words of a text or a program in lower case, in order; an identifier is followed by its parts.

    "HTTPServer.read_line(2)" -> httpserver, http, server, read_line, read, line, 2. Digits stay with the letters before
    them (utf8). A word is a run of letters, digits and underscores; nothing is stemmed, and no word is left out.
    """
    return [word for whole in re.findall(r"\w+", text) for word in _with_parts(whole)]


@lru_cache(maxsize=1 << 16)  # most of a program's words have been seen before
def _with_parts(whole: str) -> list[str]:
    parts = [part for part in _PARTS.split(whole) if part]
    return [word.lower() for word in ([whole] if parts == [whole] else [whole, *parts])]


class Bm25:
    """BM25 over a list of texts, by the library bm25s.

    The score of document d is the sum over the query's words w, a repeated word counted again, of

        ln(1 + (N - n_w + 0.5) / (n_w + 0.5)) * f / (f + k1 * (1 - b + b * |d| / mean length))

    N documents, n_w of them with w, f times w in d, |d| words in d. This is the variant that Lucene computes (Kamphuis
    and others, ECIR 2020) and the library's default, with the library's k1 = 1.5 and b = 0.75; the factor k1 + 1 of
    other variants changes no order. Raises `InputError` without texts.
    """

    def __init__(
        self, texts: Sequence[str], words: Callable[[str], list[str]] = code_words, *, k1: float = 1.5, b: float = 0.75
    ):
        self.size = len(_several(texts, "texts"))
        self.words = words
        self._index = bm25_library().BM25(k1=k1, b=b, method="lucene")
        vocabulary: dict[str, int] = {}
        found = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(text)] for text in texts]
        if not vocabulary:  # a mean length of 0 would be divided by; no query holds the empty word
            vocabulary, found = {"": 0}, [[0]] * self.size
        self._index.index((found, vocabulary), show_progress=False)

    def save(self, folder: str | Path) -> None:
        """Write the index, but for the function `words`, to a folder as npy and json files."""
        self._index.save(folder)

    @classmethod
    def load(cls, folder: str | Path, words: Callable[[str], list[str]] = code_words) -> Bm25:
        """Open what `save` wrote: scores are mapped from the disk, nothing is unpickled. `words` is as it was then.

        Raises OSError, ValueError, KeyError or TypeError for what is not whole.
        """
        made = cls.__new__(cls)
        made._index = bm25_library().BM25.load(folder, mmap=True, allow_pickle=False)
        made.size, made.words = made._index.scores["num_docs"], words
        return made

    @property
    def vocabulary_size(self) -> int:
        known = self._index.vocab_dict
        return len(known) - ("" in known)  # which the library adds

    def scores(self, query: str) -> Tensor:
        """(N,) scores in the texts' order; all 0 for a query none of whose words occurs in any text."""
        ids = self._index.get_tokens_ids(list(filter(None, self.words(query))))
        return torch.from_numpy(self._index.get_scores_from_ids(ids)) if ids else torch.zeros(self.size)

    def top_k(self, queries: Sequence[str], k: int) -> tuple[Tensor, Tensor]:
        """(scores, indices), each (Q, k), on the CPU."""
        k = min(_checked(k), self.size)
        rows = [_top_k(self.scores(query)[None], k) for query in _several(queries, "queries")]
        return torch.cat([scores for scores, _ in rows]), torch.cat([indices for _, indices in rows])


def bm25_library():
    """The module. Raises `InputError` where it is not installed."""
    try:
        import bm25s
    except ImportError:
        raise InputError("BM25 needs the package bm25s: pip install bm25s") from None
    return bm25s


def _several(texts: Sequence[str], what: str) -> Sequence[str]:
    if isinstance(texts, str):  # a string is a sequence of strings, too
        raise InputError(f"{what} must be a list of texts, not one text; put it in brackets")
    if len(texts) == 0:
        raise InputError(f"there are no {what}; give one or more")
    return texts


# ---- by vectors ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def exact_top_k(queries: Tensor, documents: Tensor, k: int, *, chunk: int = 16384) -> tuple[Tensor, Tensor]:
    """The documents with the largest dot products: queries (Q, D), documents (N, D) -> (scores, indices), each (Q, k).

    Of unit vectors the dot product is the cosine. `chunk` documents are compared at a time, so N x Q scores never lie
    in memory. Either side may be stored in float16 or bfloat16: it is multiplied in float32. The work happens on the
    queries' device, to which chunks of documents are moved, and the result stays there. Raises `InputError` for shapes
    that do not fit, and for vectors that hold NaN.
    """
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise InputError(
            f"queries (Q, D) and documents (N, D) are needed, not {tuple(queries.shape)} and {tuple(documents.shape)}"
        )
    if not len(queries) or not len(documents):
        raise InputError("there is nothing to rank; give one query and one document or more")
    _checked(chunk, "chunk")

    def blocks(queries_QD: Tensor) -> Iterator[Tensor]:
        for documents_ND in documents.split(chunk):
            yield queries_QD @ documents_ND.to(queries.device).float().T

    found = [_merged(blocks(block.float()), _checked(k)) for block in queries.split(QUERY_BLOCK)]
    return torch.cat([scores for scores, _ in found]), torch.cat([indices for _, indices in found])


@torch.no_grad()
def late_top_k(
    queries: Sequence[Tensor], documents: Sequence[Tensor], k: int, *, chunk: int = 16384
) -> tuple[Tensor, Tensor]:
    """Late interaction (ColBERT, Khattab and Zaharia 2020, equation 3): each text is a matrix with one row a token.

    A document's score is the sum over the query's tokens of the largest dot product with a token of the document.
    Lists of (tokens, D) tensors -> (scores, indices), each (Q, k), on the queries' device. Whole documents are compared
    about `chunk` tokens at a time. Number formats and errors are `exact_top_k`'s; a text without tokens is refused.
    """
    for what, texts in (("query", queries), ("document", documents)):
        if not len(texts):
            raise InputError("there is nothing to rank; give one query and one document or more")
        for i, text in enumerate(texts):
            if text.ndim != 2 or text.shape[1] != queries[0].shape[-1] or not len(text):
                raise InputError(
                    f"{what} {i} has the shape {tuple(text.shape)}; a row a token, all of one length, is needed"
                )
    device, slices = queries[0].device, _slices(documents, _checked(chunk, "chunk"))

    def blocks(query_rows: Sequence[Tensor]) -> Iterator[Tensor]:
        flat, owner = _flat(query_rows, device)
        own = torch.nn.functional.one_hot(owner).T.float()  # (Q, query tokens): summing by a product is deterministic
        for part in slices:
            tokens, document = _flat(documents[part], device)
            similar = tokens @ flat.T  # (document tokens, query tokens)
            largest = similar.new_full((part.stop - part.start, len(flat)), -torch.inf)
            largest.scatter_reduce_(0, document[:, None].expand_as(similar), similar, reduce="amax")
            yield own @ largest.T

    found = [_merged(blocks(queries[part]), _checked(k)) for part in _slices(queries, QUERY_BLOCK)]
    return torch.cat([scores for scores, _ in found]), torch.cat([indices for _, indices in found])


def _slices(texts: Sequence[Tensor], tokens: int) -> list[slice]:
    """Neighbouring texts with at most `tokens` tokens together; a longer text is alone."""
    starts, held = [0], 0
    for i, text in enumerate(texts):
        if held and held + len(text) > tokens:
            starts.append(i)
            held = 0
        held += len(text)
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(texts)], strict=True)]


def _flat(texts: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """All tokens of some texts as rows of one float32 matrix, and the text (0, 1, ...) that each belongs to."""
    lengths = torch.tensor([len(text) for text in texts])
    owner = torch.repeat_interleave(torch.arange(len(texts)), lengths)
    return torch.cat(list(texts)).to(device).float(), owner.to(device)


def _merged(blocks: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k best of scores that come as blocks (Q, some documents), in the documents' order."""
    scores = indices = None
    start = 0
    for block in blocks:
        found, where = _top_k(block, min(k, block.shape[1]))
        where, start = where + start, start + block.shape[1]
        if scores is not None:
            # Equal scores stand in the documents' order here too: those found before lie lower.
            found, where = torch.cat([scores, found], dim=1), torch.cat([indices, where], dim=1)
            found, order = _top_k(found, min(k, found.shape[1]))
            where = where.gather(1, order)
        scores, indices = found, where
    return scores, indices


def _top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of (Q, N), equal ones by position: torch.topk gives their values, not which it takes.

    Everything above the k-th value is kept, and of what equals it the first ones; only these k are sorted.
    """
    best = scores.topk(k, dim=1).values
    if best[:, 0].isnan().any():  # topk counts NaN as the largest
        raise InputError("a score is not a number; the vectors hold NaN or infinity")
    least = best[:, -1:]
    keep = scores >= least
    crowded = keep.sum(dim=1) > k
    if crowded.any():
        above, level = scores[crowded] > least[crowded], scores[crowded] == least[crowded]
        room = k - above.sum(dim=1, keepdim=True)
        keep[crowded] = above | (level & (level.cumsum(dim=1) <= room))
    indices = keep.nonzero()[:, 1].view(len(scores), k)
    found, order = scores.gather(1, indices).sort(dim=1, descending=True, stable=True)
    return found, indices.gather(1, order)


def _checked(k: int, name: str = "k") -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {k!r}")
    return int(k)


# ---- how good --------------------------------------------------------------------------------------------------------


def evaluate_ranking(
    indices: Tensor | Sequence[Sequence[int]],
    relevant: Sequence[int] | Sequence[set[int]],
    *,
    mrr: Sequence[int] = (10,),
    ndcg: Sequence[int] = (10,),
    recall: Sequence[int] = (10, 100),
    accuracy: Sequence[int] = (1,),
    documents: int | None = None,
) -> dict[str, float]:
    """Means over queries of what the rankings (Q, k), best first, do with each query's relevant document or documents.

    mrr@k       1 / the rank of the first relevant document, 0 where it is not among the first k
    ndcg@k      each relevant document counts 1 / log2(1 + rank); divided by the largest sum that can be had
    recall@k    the share of the relevant documents among the first k
    accuracy@k  whether one of them is among the first k

    -> {"mrr@10", "ndcg@10", "recall@10", "recall@100", "accuracy@1"}, or at the k asked for, computed by
    sentence-transformers' InformationRetrievalEvaluator. A ranking shorter than the largest k would miss what it
    never looked for: it raises `InputError`, unless it holds all of `documents`.
    """
    rows, wanted = _rows(indices, relevant)
    deepest, columns = max((*mrr, *ndcg, *recall, *accuracy), default=1), len(rows[0])
    if columns < deepest and columns != documents:
        raise InputError(
            f"the rankings hold {columns} documents and a measure looks at {deepest}; "
            "ask for more, or pass documents=, the size of the corpus, if these are all"
        )
    judge = _evaluator()(
        queries={i: "" for i in range(len(rows))},
        corpus={},  # it need not be searched: the rankings are here
        relevant_docs=dict(enumerate(wanted)),
        mrr_at_k=list(mrr),
        ndcg_at_k=list(ndcg),
        precision_recall_at_k=list(recall),
        accuracy_at_k=list(accuracy),
        map_at_k=[],
    )
    hits = [[dict(corpus_id=d, score=-rank) for rank, d in enumerate(row)] for row in rows]
    found = judge.compute_metrics(hits)
    chosen = dict(mrr=mrr, ndcg=ndcg, recall=recall, accuracy=accuracy)
    return {f"{name}@{k}": float(found[f"{name}@k"][k]) for name, ks in chosen.items() for k in ks}


def _evaluator() -> type:
    try:
        try:
            from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
        except ModuleNotFoundError:  # where it was in version 5
            from sentence_transformers.evaluation import InformationRetrievalEvaluator
    except ImportError:
        raise InputError(
            "judging a ranking needs the package sentence-transformers: pip install sentence-transformers"
        ) from None
    return InformationRetrievalEvaluator


def reciprocal_ranks(
    indices: Tensor | Sequence[Sequence[int]], relevant: Sequence[int] | Sequence[set[int]], k: int = 10
) -> np.ndarray:
    """(Q,): 1 / the rank of the first relevant document, 0 where none is among the first k. Their mean is mrr@k."""
    rows, wanted = _rows(indices, relevant)
    ranks = [
        next((rank for rank, d in enumerate(row[: _checked(k)], start=1) if d in good), np.inf)
        for row, good in zip(rows, wanted, strict=True)
    ]
    return 1 / np.array(ranks, dtype=np.float64)


def _rows(indices, relevant) -> tuple[list[list[int]], list[set[int]]]:
    """Rankings as lists and relevant documents as sets, one of each a query."""
    try:
        rows = torch.as_tensor(indices)
    except (TypeError, ValueError):
        raise InputError("rankings must be equally long lists of document numbers, one a query") from None
    if rows.ndim != 2 or not rows.numel() or rows.is_floating_point():
        raise InputError(f"rankings are (queries, k) document numbers, not {rows.dtype} of shape {tuple(rows.shape)}")
    if len(relevant) != len(rows):
        raise InputError(
            f"there are {len(rows)} rankings and relevant documents for {len(relevant)} queries; pair them"
        )
    rows = rows.tolist()
    wanted = [{int(d) for d in good} if isinstance(good, Iterable) else {int(good)} for good in _plain(relevant)]
    for i, (row, good) in enumerate(zip(rows, wanted, strict=True)):
        if not good:
            raise InputError(f"query {i} has no relevant document; leave it out")
        if len(set(row)) < len(row):
            raise InputError(f"the ranking of query {i} names a document twice; each may stand there once")
    return rows, wanted


def _plain(relevant) -> Sequence:
    return relevant.tolist() if isinstance(relevant, Tensor | np.ndarray) else relevant
