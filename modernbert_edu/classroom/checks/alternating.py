"""Checks of 06_alternating_attention."""

from __future__ import annotations

import torch
from torch import Tensor

from .machinery import NotYet, check, compare, pair, recognise, short


def band_by_loops(lengths: list[int], window: int) -> Tensor:
    """The mask as its definition says it, pair by pair: (T, T) bool."""
    document = [number for number, n in enumerate(lengths) for _ in range(n)]
    T = len(document)
    mask_TT = torch.zeros(T, T, dtype=torch.bool)
    for query in range(T):
        for key in range(T):
            mask_TT[query, key] = document[query] == document[key] and abs(query - key) <= window
    return mask_TT


@check
def check_band_mask(fn) -> str:
    """`fn(lengths, window) -> (T, T) bool`: True where the row's token may look at the column's in a local layer."""
    cases = [([9, 4], 4), ([6], 2), ([3, 5, 1], 2), ([4, 4], 0), ([1], 3), ([2, 7, 3], 1), ([5, 6], 64)]
    for lengths, window in cases:
        got, want = fn(list(lengths), window), band_by_loops(lengths, window)
        case = f"lengths {lengths}, window {window}"
        if isinstance(got, Tensor) and got.shape == want.shape and got.dtype != torch.bool:
            raise NotYet(f"{case}: the mask must be boolean, not {got.dtype}; compare, do not multiply")
        mistakes = {words: wrong.long() for words, wrong in _band_mistakes(lengths, window).items()}
        compare(got.long() if isinstance(got, Tensor) else got, want.long(), case, mistakes, tolerance=0)
    return f"agrees with the plain loops on {len(cases)} layouts"


def _band_mistakes(lengths: list[int], window: int) -> dict[str, Tensor]:
    n = torch.tensor(lengths)
    document = torch.repeat_interleave(torch.arange(len(lengths)), n)
    place = torch.arange(len(document))
    inside = place - (n.cumsum(0) - n)[document]  # position within the document
    apart, near_inside = place[:, None] - place, (inside[:, None] - inside).abs() <= window
    same, near = document[:, None] == document, apart.abs() <= window
    return {
        "did you invert the mask? True means: may be looked at": ~(same & near),
        "the window is missing; every key of the document is allowed": same,
        "the documents are missing; a token must not see another document": near,
        "joined with or; a key must be near and in the same document": same | near,
        "a key exactly `window` tokens away may still be looked at": same & (apart.abs() < window),
        "do not halve the window; it is the number of keys on each side": same & (apart.abs() <= window // 2),
        "only keys to the left are allowed; this attention looks both ways": same & (apart >= 0) & near,
        "only keys to the right are allowed; this attention looks both ways": same & (apart <= 0) & near,
        "a token may look at itself": same & near & (apart != 0),
        "positions begin anew in each document, so alone they do not tell documents apart": near_inside,
    }


def seen_by_products(layer_types: str, window: int, token: int, length: int) -> int:
    """Tokens that reach `token`, by following every path: a product of one boolean matrix a layer."""
    place = torch.arange(length)
    band = ((place[:, None] - place).abs() <= window).double()
    reaches = torch.eye(length, dtype=torch.float64)
    for kind in layer_types:
        step = torch.ones_like(band) if kind == "G" else band
        reaches = ((step @ reaches) > 0).double()
    return int(reaches[token].sum())


@check
def check_tokens_seen(fn) -> str:
    """`fn(layer_types, window, token, length) -> int`: how many input tokens the output at `token` depends on."""
    cases = [("LLL", 5, 20, 41), ("L", 64, 150, 300), ("LL", 3, 1, 10), ("LL", 3, 18, 20), ("LLLL", 5, 7, 20),
             ("G", 2, 5, 30), ("GLL", 2, 5, 30), ("LLG", 2, 5, 30), ("LGL", 1, 0, 12), ("L", 4, 0, 1)]  # fmt: skip
    for layer_types, window, token, length in cases:
        case = f'layers "{layer_types}", window {window}, token {token} of {length}'
        mistakes = _seen_mistakes(layer_types, window, token, length)
        want = seen_by_products(layer_types, window, token, length)
        compare(fn(layer_types, window, token, length), want, case, mistakes)
    return f"agrees with products of masks on {len(cases)} stacks"


def _seen_mistakes(layer_types: str, w: int, token: int, length: int) -> dict[str, int]:
    layers, local = len(layer_types), layer_types.count("L")
    right, clipped = length - 1 - token, min(1 + 2 * w * layers, length)

    def between(reach: int) -> int:
        return min(token + reach, length - 1) - max(token - reach, 0) + 1

    return {
        "a global layer lets everything through, wherever in the stack it stands": between(w * layers),
        "a global layer adds more than nothing: it lets everything through": between(w * local),
        "that is one local layer; each further one reaches `window` tokens further": between(w),
        "the token itself counts once, not once in each layer": layers * (2 * w + 1),
        "the token itself is seen too": 2 * w * layers,
        "both sides count: `window` tokens to the left and to the right, in each layer": 1 + w * layers,
        "the window is already the number of keys on one side; do not halve it": between(w // 2 * layers),
        "there are no tokens before the first and after the last": 1 + 2 * w * layers,
        "where one side meets the end of the text, the other side does not grow instead": clipped,
        "the right side stops at the last token, length - 1": min(w * layers, token) + min(w * layers, right + 1) + 1,
    }


@check
def check_keys_of_block(fn) -> str:
    """`fn(b, block, window, lengths) -> (first, end)`: the keys, first to end - 1, that some query of block b sees."""
    cases = [(4, 4, [20]), (4, 2, [10]), (4, 2, [5, 7]), (4, 3, [2, 3, 6]), (8, 2, [3, 3, 3, 9]), (4, 0, [6, 6]),
             (4, 9, [7, 8]), (64, 64, [200, 100])]  # fmt: skip
    blocks = 0
    for block, window, lengths in cases:
        mask_TT = band_by_loops(lengths, window)
        count = -(-sum(lengths) // block)
        for b in sorted(range(count), key=lambda b: abs(b - count // 2)):  # the ends last: mistakes look alike there
            keys = mask_TT[b * block : (b + 1) * block].any(dim=0).nonzero()
            want = int(keys.min()), int(keys.max()) + 1
            case = f"block {b} of {block} queries, window {window}, lengths {lengths}"
            first, end = pair(fn(b, block, window, list(lengths)), case, "first and end")
            try:
                got = int(first), int(end)
            except (TypeError, ValueError):
                raise NotYet(f"{case}: first and end are whole numbers, not {short(first)} and {short(end)}") from None
            blocks += 1
            if got != want:
                known = recognise(got, _block_mistakes(b, block, window, lengths), lambda a, b: a == b)
                raise NotYet(f"{case}: {known or f'expected keys {want[0]} to {want[1]}, got {got[0]} to {got[1]}'}")
    return f"finds the keys of {blocks} blocks"


def _block_mistakes(b: int, block: int, window: int, lengths: list[int]) -> dict[str, tuple[int, int]]:
    T = sum(lengths)
    ends = torch.tensor(lengths).cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    first, last = b * block, min((b + 1) * block, T) - 1

    def of(query: int) -> int:
        return next(i for i, end in enumerate(ends) if query < end)

    def within(left: int, right: int) -> tuple[int, int]:
        return max(starts[of(first)], first - left), min(ends[of(last)], last + 1 + right)

    low, high = within(window, window)
    full = (b + 1) * block
    return {
        "end is one past the last key, as in range(first, end)": (low, high - 1),
        "no key lies before token 0 or after the last one": (first - window, last + 1 + window),
        "no key lies before token 0 or after the last one, and the last block may be short": (
            first - window,
            full + window,
        ),
        "no document sees another: stop where those of the first and last query begin and end": (
            max(0, first - window),
            min(T, last + 1 + window),
        ),
        "a block may hold the end of one document and the beginning of the next": (
            max(starts[of(first)], first - window),
            min(ends[of(first)], last + 1 + window),
        ),
        "those are the block's own tokens; its queries also see `window` keys outside": within(0, 0),
        "the keys after the block are missing": within(window, 0),
        "the keys before the block are missing": within(0, window),
        "do not halve the window; it is the number of keys on each side": within(window // 2, window // 2),
        "a key exactly `window` tokens away is still seen": within(window - 1, window - 1),
        "a query sees `window` keys on each side, not whole documents": (starts[of(first)], ends[of(last)]),
    }
