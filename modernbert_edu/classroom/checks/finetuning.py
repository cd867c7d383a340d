"""Checks of 11_finetuning."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .machinery import NotYet, check, close, compare, compare_number, recognise, short


@check
def check_mean_pool(fn) -> str:
    """`fn(hidden_TD, cu_seqlens) -> (N, D)`: the mean over each document's own tokens, on the flat axis."""
    cases = [[3, 1, 4], [2, 2], [5, 1, 1, 2], [1], [4, 7, 3]]
    for lengths in cases:
        hidden = torch.randn(sum(lengths), 6)
        borders = [0, *itertools.accumulate(lengths)]
        want = torch.zeros(len(lengths), 6)
        for document, (start, end) in enumerate(itertools.pairwise(borders)):
            for token in range(start, end):
                want[document] += hidden[token] / (end - start)
        got = fn(hidden.clone(), torch.tensor(borders, dtype=torch.int32))
        case, mistakes = f"with documents of {lengths} tokens", _pool_mistakes(hidden, borders)
        if isinstance(got, Tensor) and got.shape != want.shape:
            known = recognise(got, mistakes, lambda a, b: close(a, b, 1e-5))
            if known:
                raise NotYet(f"{case}: {known}")
        compare(got, want, case, mistakes)
    return f"agrees with the loops on {len(cases)} batches"


def _pool_mistakes(hidden: Tensor, borders: list[int]) -> dict[str, Tensor]:
    parts = [hidden[i:j] for i, j in itertools.pairwise(borders)]
    lengths = torch.tensor([[len(part)] for part in parts])
    sums = torch.stack([part.sum(dim=0) for part in parts])
    return {
        "the sums were not divided by the number of tokens": sums,
        "every sum was divided by the longest length, as if pads counted; divide by its own": sums / lengths.max(),
        "every sum was divided by T; divide by the document's own length": sums / len(hidden),
        "every sum was divided by the mean length; divide by the document's own": sums / (len(hidden) / len(parts)),
        "every document got the mean over all T tokens": hidden.mean(dim=0).expand(len(parts), -1),
        "all documents became one; return a row for each": hidden.mean(dim=0),
        "the last document is missing: cu_seqlens has N + 1 entries": (sums / lengths)[:-1],
        "that is the first token of each document, [CLS] pooling": torch.stack([part[0] for part in parts]),
        "that is the largest number, not the mean": torch.stack([part.max(dim=0).values for part in parts]),
        "each document's first token was left out; [CLS] counts like any other": torch.stack(
            [part[1:].mean(dim=0) for part in parts]
        ),
        "each document's last token was left out; its end is cu_seqlens[i + 1], exclusive": torch.stack(
            [part[:-1].mean(dim=0) for part in parts]
        ),
        "that is (D, N); return (N, D)": (sums / lengths).T,
    }


@check
def check_align_labels(fn) -> str:
    """`fn(pieces, labels) -> list`: a label for [CLS], each token and [SEP]; -100 except at a word's first token."""
    cases = [
        ([[5], [6, 7], [8]], [1, 2, 0]),
        ([[5, 6, 7]], [3]),
        ([[9], [8], [7]], [2, 2, 1]),
        ([[5, 6], [7, 8], [9]], [0, 1, 0]),
        ([[5], [], [7, 8]], [1, 2, 0]),
    ]
    for pieces, labels in cases:
        case = f"with pieces {pieces} and labels {labels}"
        want = [-100]
        for word, label in zip(pieces, labels, strict=True):
            for place in range(len(word)):
                want.append(label if place == 0 else -100)
        want.append(-100)
        got = fn([list(word) for word in pieces], list(labels))
        if got is None:
            raise NotYet("your function returned None; does it end with a return?")
        got = got.tolist() if isinstance(got, Tensor) else got
        if not isinstance(got, list | tuple):
            raise NotYet(f"{case}: expected a list of labels, got {short(got)}")
        if list(got) != want:
            known = recognise(list(got), _label_mistakes(pieces, labels), lambda a, b: a == b)
            raise NotYet(f"{case}: {known or f'expected {want}, got {list(got)}'}")
    return f"puts every label at its word's first token, in {len(cases)} cases"


def _label_mistakes(pieces: list[list[int]], labels: list[int]) -> dict[str, list[int]]:
    words = list(zip(pieces, labels, strict=True))
    first = [one for word, label in words for one in [label, *[-100] * (len(word) - 1)][: len(word)]]
    every = [label for word, label in words for _ in word]
    last = [one for word, label in words for one in [*[-100] * (len(word) - 1), label][-len(word) :] if word]
    zeros = [one for word, label in words for one in [label, *[0] * (len(word) - 1)][: len(word)]]
    kept = [one for word, label in words for one in [label, *[-100] * (len(word) - 1)]]
    return {
        "[CLS] and [SEP] have a place too, each with -100": first,
        "[CLS] has a place in front, with -100": [*first, -100],
        "[SEP] has a place at the end, with -100": [-100, *first],
        "the label stands at every token of a word; the word would count as often as it has tokens": [
            -100, *every, -100
        ],
        "the label stands at the word's last token; put it at the first": [-100, *last, -100],
        "the tokens inside a word got class 0, and 0 is a class; the loss leaves out -100 only": [-100, *zeros, -100],
        "[CLS] and [SEP] got class 0, and 0 is a class; give them -100": [0, *first, 0],
        "a word without tokens has no place for its label; leave the label out": [-100, *kept, -100],
        "one label a word; the loss needs one a token": [-100, *labels, -100],
        "one label a word, and none for [CLS] and [SEP]; the loss needs one a token": list(labels),
    }  # fmt: skip


@check
def check_matthews(fn) -> str:
    """`fn(truth_N, said_N) -> float`: Matthews correlation of two tensors of 0 and 1; 0 where one is constant."""
    cases = [
        ([1, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1, 1, 1]),
        ([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0, 1]),
        ([1, 1, 1, 0, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 1, 0, 0, 0]),
        ([1, 0, 1, 0], [1, 0, 1, 0]),
        ([1, 1, 1, 0], [1, 1, 1, 1]),
        ([1, 1, 1, 1], [1, 0, 1, 0]),
    ]
    for truth, said in cases:
        counts = {(t, s): 0 for t in (0, 1) for s in (0, 1)}
        for t, s in zip(truth, said, strict=True):
            counts[t, s] += 1
        tp, tn, fp, fn_ = counts[1, 1], counts[0, 0], counts[0, 1], counts[1, 0]
        product = (tp + fp) * (tp + fn_) * (tn + fp) * (tn + fn_)
        want = (tp * tn - fp * fn_) / math.sqrt(product) if product else 0.0
        case = f"truth {truth}, said {said}"
        got = fn(torch.tensor(truth), torch.tensor(said))
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        if isinstance(got, float) and math.isnan(got) and not product:
            raise NotYet(f"{case}: 0 / 0; where an answer is constant, return 0")
        compare_number(got, want, case, _matthews_mistakes(tp, tn, fp, fn_, product))
    return f"agrees with the counts in {len(cases)} cases, constant answers among them"


def _matthews_mistakes(tp: int, tn: int, fp: int, fn: int, product: int) -> dict[str, float]:
    total, numerator = tp + tn + fp + fn, tp * tn - fp * fn
    return {
        "that is the accuracy": (tp + tn) / total,
        "that is the F1 of class 1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "the square root of the product is missing": numerator / product if product else 0.0,
        "the sign is wrong: TP * TN - FP * FN": -numerator / math.sqrt(product) if product else 0.0,
        "the products are added; subtract: TP * TN - FP * FN": (
            (tp * tn + fp * fn) / math.sqrt(product) if product else 0.0
        ),
        "TP * FP - TN * FN is another number; take TP * TN - FP * FN": (
            (tp * fp - tn * fn) / math.sqrt(product) if product else 0.0
        ),
        "that is 2 * accuracy - 1": 2 * (tp + tn) / total - 1,
        "that is the numerator; divide by the square root of the product of the four margins": float(numerator),
        "the divisor is the square root of all four margins multiplied, not of two": (
            numerator / math.sqrt((tp + fp) * (tp + fn)) if (tp + fp) * (tp + fn) else 0.0
        ),
    }
