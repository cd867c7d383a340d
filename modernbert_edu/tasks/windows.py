"""Long texts as several windows: nothing is lost, and a text still has one answer.

A text that is longer than the model takes becomes overlapping windows. In training each window is an example with the
text's label; so a text of ten windows counts ten times, and a window without what decides is told the label all the
same. In evaluation the logits of a text's windows are averaged.

Letters: R rows (windows), N texts, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.masking import IGNORED

LONG = ("cut", "windows")
SMALLEST = 4  # of a pair the longer text keeps at least this part of the room: otherwise windows of a token or two


def starts(length: int, size: int, stride: float = 0.5) -> list[int]:
    """Where the windows of `size` tokens begin in a text of `length`; `stride` is the share of a window between two.

    They cover the text, and the last one ends where the text ends.
    """
    last = max(0, length - size)
    return [*range(0, last, max(1, int(stride * size))), last]


def divide(texts: Sequence[list[int]], room: int, stride: float = 0.5) -> tuple[list[list[list[int]]], bool]:
    """One text or a pair -> (the same texts, again for each window; whether any token is in no window).

    The longest text is windowed; the other of a pair stands whole in every window, up to three quarters of `room`.
    """
    if sum(map(len, texts)) <= room:
        return [[list(text) for text in texts]], False
    longest = max(range(len(texts)), key=lambda i: len(texts[i]))
    kept = [list(text[: room - max(1, room // SMALLEST)]) for text in texts]
    size = room - sum(len(text) for i, text in enumerate(kept) if i != longest)
    rows = [
        [text if i != longest else list(texts[i][start : start + size]) for i, text in enumerate(kept)]
        for start in starts(len(texts[longest]), size, stride)
    ]
    return rows, any(len(kept[i]) < len(text) for i, text in enumerate(texts) if i != longest)


def continued(words: Sequence[list[int]], labels: Sequence[int], room: int) -> tuple[list[tuple[list, list]], bool]:
    """Words' ids and labels -> ((ids, answers) of each window, whether a single word was too long and was cut).

    Every word has one answer of its own, so nothing is averaged: each window goes on where the last one ended.
    """
    rows = [([], [])]
    for ids, label in zip(words, labels, strict=True):
        ids = ids[:room]
        if len(rows[-1][0]) + len(ids) > room:
            rows.append(([], []))
        rows[-1][0].extend(ids)
        rows[-1][1].extend([label, *[IGNORED] * (len(ids) - 1)] if ids else [])
    return rows, any(len(ids) > room for ids in words)


def one_a_text(logits: Tensor, labels: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """(R, C) logits and (R,) labels of windows -> (N, C) means over each text's windows and (N,) labels.

    `owners` (R,) numbers the texts from 0, each at least once.
    """
    texts = int(owners.max()) + 1
    sums = logits.new_zeros(texts, logits.shape[1]).index_add(0, owners, logits)
    answers = labels.new_zeros(texts).index_copy(0, owners, labels)  # all windows of a text have the same
    return sums / torch.bincount(owners, minlength=texts)[:, None], answers


def counted(owners: Sequence[int] | None) -> tuple[int, int]:
    """How many texts have more than one window, and how many windows these are together."""
    several = [n for n in Counter(owners or ()).values() if n > 1]
    return len(several), sum(several)
