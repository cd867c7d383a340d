"""Sequence packing: documents of different lengths into rows of one token budget, almost without waste.

A training step should always have the same number of tokens: the GPU is then evenly busy, the learning rate means the
same from step to step, and a compiled graph needs one shape only. `best_fit` puts each document into the fullest row
that still has room for it (the paper's section 2.2.1: more than 99 % full); `pack` then lays a row's documents end to
end, and attention keeps them apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from .errors import InputError


def best_fit(lengths: Sequence[int], token_budget: int, longest_first: bool = True) -> list[list[int]]:
    """Rows of document indices, each row's lengths adding up to at most `token_budget`.

    Each document goes where the least room is left after it, to the earliest such row; where it fits nowhere, it opens
    a new one. Longest first, the short ones are left for the gaps; otherwise the documents come in the order given.
    Raises `InputError` for a document longer than the budget.

    Rows with the same room left share a bucket, and one big integer has a bit for each bucket that is not empty:
    shifted right by the document's length, its lowest bit is the best fit. So a document costs the same with ten rows
    and with ten thousand.
    """
    order = _order(lengths, token_budget, longest_first)
    rows: list[list[int]] = []
    buckets: dict[int, list[int]] = {}  # room left -> heap of the rows that have it
    occupied = 0
    for document in order:
        length = lengths[document]
        fitting = occupied >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = heapq.heappop(buckets[room])
            if not buckets[room]:
                occupied ^= 1 << room
        else:
            room, row = token_budget, len(rows)
            rows.append([])
        rows[row].append(document)
        heapq.heappush(buckets.setdefault(room - length, []), row)
        occupied |= 1 << (room - length)
    return rows


def best_fit_by_loops(lengths: Sequence[int], token_budget: int, longest_first: bool = True) -> list[list[int]]:
    """The same, by looking at every row for every document: the definition."""
    rows: list[list[int]] = []
    rooms: list[int] = []
    for document in _order(lengths, token_budget, longest_first):
        best = None
        for row, room in enumerate(rooms):
            if room >= lengths[document] and (best is None or room < rooms[best]):
                best = row
        if best is None:
            best = len(rows)
            rows.append([])
            rooms.append(token_budget)
        rows[best].append(document)
        rooms[best] -= lengths[document]
    return rows


def _order(lengths: Sequence[int], token_budget: int, longest_first: bool) -> list[int]:
    if token_budget < 1:
        raise InputError(f"the token budget must be at least 1, not {token_budget}")
    for document, length in enumerate(lengths):
        if length > token_budget:
            raise InputError(
                f"document {document} has {length:,} tokens, more than the budget of {token_budget:,}; "
                "cut it, or raise the budget"
            )
        if length < 0:
            raise InputError(f"document {document} has {length} tokens; lengths must be 0 or more")
    documents = range(len(lengths))
    return sorted(documents, key=lambda document: -lengths[document]) if longest_first else list(documents)


def fullness(rows: Sequence[Sequence[int]], lengths: Sequence[int], token_budget: int) -> float:
    """The share of all rows' places that hold a token."""
    return sum(lengths[document] for row in rows for document in row) / (len(rows) * token_budget)
