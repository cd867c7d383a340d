"""The order of the data, as a plan that can be taken up anywhere.

    documents  ->  an epoch's random order  ->  windows of it, each packed into rows  ->  numbered microbatches

A microbatch's number decides everything random about it: which tokens are masked and what dropout draws. So a run that
is stopped and goes on, or goes on with another number of processes, computes the very same microbatches. Process r of
R takes those whose number leaves r when divided by R.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data.batches import pad_batch
from ..data.masking import IGNORED, MaskingSpec, mask_tokens
from ..errors import InputError
from ..packing import best_fit
from ..unpadding import Layout, pack
from .recipe import Recipe

ROWS_IN_WINDOW = 256  # packed together: the one row that stays half empty is then less than half a percent
MASKS, DROPOUT = 1, 2  # what a seed is for


def derived_seed(*numbers: int) -> int:
    """One seed from several numbers, such that neighbours have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Place:
    """Where the plan stands: the next row of a window of an epoch, and that row's number in the whole run."""

    epoch: int = 0
    window: int = 0
    row: int = 0
    number: int = 0


def plan(lengths: Sequence[int], recipe: Recipe, seed: int, start: Place | None = None) -> Iterator[tuple[Place, list]]:
    """Endless (place, the documents' indices): one microbatch after the other from `start` on.

    Packed, a row is filled by best fit up to `microbatch_tokens`; padded, it has as many sequences as fit at full
    length. Only lengths are looked at, so one number costs microseconds and a place costs one window.
    """
    start = start or Place()
    number = start.number
    windows = _windows(lengths, recipe)
    for epoch in itertools.count(start.epoch):
        first = start if epoch == start.epoch else Place(epoch)
        order = np.random.Generator(np.random.PCG64DXSM(derived_seed(seed, epoch))).permutation(len(lengths))
        for window in range(first.window, len(windows)):
            documents = order[slice(*windows[window])].tolist()
            rows = _rows(documents, lengths, recipe, derived_seed(seed, epoch, window))
            for row in range(first.row if window == first.window else 0, len(rows)):
                yield Place(epoch, window, row, number), rows[row]
                number += 1


def _windows(lengths: Sequence[int], recipe: Recipe) -> list[tuple[int, int]]:
    """Where each window of an epoch begins and ends: about `ROWS_IN_WINDOW` rows, none much smaller than the others."""
    n = len(lengths)
    if not recipe.packing:  # whole rectangles, so that only an epoch's last one is small
        step = recipe.microbatch_tokens // recipe.length * ROWS_IN_WINDOW
        return [(i, min(i + step, n)) for i in range(0, n, step)]
    count = max(1, round(sum(lengths) / (ROWS_IN_WINDOW * recipe.microbatch_tokens)))
    return [(i * n // count, (i + 1) * n // count) for i in range(count)]


def _rows(documents: list[int], lengths: Sequence[int], recipe: Recipe, seed: int) -> list[list[int]]:
    if not recipe.packing:
        size = recipe.microbatch_tokens // recipe.length
        return [documents[i : i + size] for i in range(0, len(documents), size)]
    rows = best_fit([lengths[document] for document in documents], recipe.microbatch_tokens)
    # Best fit takes the longest first, so without this the first rows would hold the long documents alone.
    shuffled = np.random.Generator(np.random.PCG64DXSM(seed)).permutation(len(rows))
    return [[documents[i] for i in rows[row]] for row in shuffled]


@dataclass
class Microbatch:
    """What one forward pass takes, masked: flat ids with a `layout`, or a rectangle with an `attention_mask`."""

    place: Place
    input_ids: Tensor
    labels: Tensor
    tokens: int  # real ones
    masked: int
    layout: Layout | None = None
    attention_mask: Tensor | None = None
    token_type_ids: Tensor | None = None
    next_labels: Tensor | None = None  # (B,), of BERT's second task
    state: dict | None = None  # of a stream that cannot be planned, to go on after this microbatch

    def inputs(self, device: torch.device) -> dict:
        """The arguments of a model's forward, on `device`."""
        names = ("input_ids", "labels", "layout", "attention_mask", "token_type_ids", "next_labels")
        found = {name: getattr(self, name) for name in names}
        return {name: value.to(device) for name, value in found.items() if value is not None}


class Documents(Dataset):
    """Documents as lists of ids, or BERT's pairs; asked for a place and its indices, it gives the microbatch."""

    def __init__(self, documents: Sequence, tokenizer, recipe: Recipe, seed: int):
        if not documents:
            raise InputError("there are no documents to train on; give a larger corpus")
        self.pairs = list(documents) if recipe.next_sentence else None
        ids = [pair.input_ids for pair in documents] if recipe.next_sentence else documents
        longest = max(map(len, ids))
        if longest > recipe.length:
            raise InputError(f"a document has {longest:,} tokens, more than the recipe's length, {recipe.length:,}")
        self.ids = [np.asarray(document, dtype=np.int32) for document in ids]  # a tenth of Python's own lists
        self.recipe, self.seed, self.pad_id = recipe, seed, tokenizer.pad_id
        self.vocabulary = MaskingSpec(tokenizer.mask_id, tokenizer.special_ids, tokenizer.ordinary_ids)

    @property
    def lengths(self) -> list[int]:
        return [len(document) for document in self.ids]

    def __getitem__(self, planned: tuple[Place, list[int]]) -> Microbatch:
        place, indices = planned
        documents = [self.ids[i].tolist() for i in indices]
        generator = torch.Generator().manual_seed(derived_seed(self.seed, place.number, MASKS))
        mask = None
        if self.recipe.packing:
            true_ids, layout = pack(documents)
        else:
            (true_ids, mask), layout = pad_batch(documents, self.pad_id), None
        input_ids, labels = mask_tokens(true_ids, self.vocabulary, rate=self.recipe.mask_rate, generator=generator)
        types, is_next = self._pair_inputs(indices) if self.pairs else (None, None)
        tokens, masked = sum(map(len, documents)), int((labels != IGNORED).sum())
        return Microbatch(place, input_ids, labels, tokens, masked, layout, mask, types, is_next)

    def _pair_inputs(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        chosen = [self.pairs[i] for i in indices]
        types = pad_batch([pair.token_type_ids for pair in chosen], 0)[0]
        return types, torch.tensor([0 if pair.is_next else 1 for pair in chosen])  # 0: it follows, as published


class Share(Iterable):
    """The plan's entries from number `first` on that are one process's."""

    def __init__(self, documents: Documents, start: Place, first: int, rank: int = 0, world: int = 1):
        self.documents, self.start, self.first, self.rank, self.world = documents, start, first, rank, world

    def __iter__(self) -> Iterator[tuple[Place, list[int]]]:
        for place, indices in plan(self.documents.lengths, self.documents.recipe, self.documents.seed, self.start):
            if place.number >= self.first and place.number % self.world == self.rank:
                yield place, indices


def microbatches(
    documents: Documents, start: Place | None = None, first: int = 0, rank: int = 0, world: int = 1, workers: int = 0
) -> Iterator[Microbatch]:
    """Endless microbatches of one process, in order. With `workers`, that many processes prepare them ahead."""
    share = Share(documents, start or Place(), first, rank, world)
    return iter(DataLoader(documents, sampler=share, batch_size=None, num_workers=workers, collate_fn=as_it_is))


def as_it_is(microbatch: Microbatch) -> Microbatch:
    return microbatch
