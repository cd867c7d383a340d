"""Checks of 10_large_from_base."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .machinery import NotYet, check, compare_or_recognise, recognise, short


@check
def check_center_tile_1d(fn) -> str:
    """`fn(x_N, new) -> (new,)`: the vector in the middle, going on periodically to both sides."""
    cases = [(7, 16), (2, 4), (3, 8), (4, 5), (5, 5), (3, 4), (2, 9)]
    for old, new in cases:
        x = torch.randn(old)
        want, offset = torch.empty(new), (new - old) // 2
        for i in range(new):  # step by whole periods until the place lies in the vector
            source = i - offset
            while source < 0:
                source += old
            while source >= old:
                source -= old
            want[i] = x[source]
        got = fn(x.clone(), new)
        compare_or_recognise(got, want, f"from {old} to {new} numbers", _tile_mistakes(x, new))
    return f"agrees with the definition at {len(cases)} sizes"


def _tile_mistakes(x: Tensor, new: int) -> dict[str, Tensor]:
    old, place = len(x), torch.arange(new)
    offset = (new - old) // 2
    shifted = place - offset
    inside = (shifted >= 0) & (shifted < old)
    fold = shifted % (2 * old)
    return {
        "that begins at place 0, which is edge tiling; the whole copy begins at (new - old) // 2": x[place % old],
        "the offset was rounded up; (new - old) // 2 rounds down": x[(place - (new - old + 1) // 2) % old],
        "the vector was moved to the left; a copy at the offset means that place i holds x[i - offset]": x[
            (place + offset) % old
        ],
        "the offset is (new - old) // 2, half of what is added": x[(place - (new - old)) % old],
        "the copy is in the middle, but the rest is zero; it goes on periodically": torch.where(
            inside, x[shifted % old], 0.0
        ),
        "the first and the last number were repeated to the ends; go on periodically": x[shifted.clamp(0, old - 1)],
        "the vector was mirrored at its ends; go on periodically": x[torch.minimum(fold, 2 * old - 1 - fold)],
        "each number was repeated in place; repeat the whole vector instead": x[place * old // new],
        "that has several whole copies and nothing else; cut it to `new` places": x.repeat(-(-new // old) + 1),
    }


@check
def check_depth_map(fn) -> str:
    """`fn(old, new) -> list of new numbers`: round(i * old / new), at most old - 1."""
    cases = [(22, 28), (4, 7), (3, 6), (2, 4), (5, 5), (1, 3), (6, 13), (4, 10)]
    for old, new in cases:
        case = f"from {old} to {new} layers"
        got = _numbers(fn(old, new), case)
        want = []
        for i in range(new):
            whole, rest = divmod(2 * i * old + new, 2 * new)  # i * old / new + 1/2, rounded down
            tie = rest == 0
            want.append(min(whole - (tie and whole % 2), old - 1))
        if got == want:
            continue
        words = recognise(got, _depth_mistakes(old, new), lambda a, b: a == b)
        raise NotYet(f"{case}: {words or _first_difference(got, want, old)}")
    return f"is the published rule for {len(cases)} pairs of depths"


def _numbers(got, case: str) -> list[int]:
    if got is None:
        raise NotYet("your function returned None; does it end with a return?")
    if isinstance(got, Tensor):
        got = got.tolist()
    if not isinstance(got, Sequence) or not all(isinstance(n, int | float) and n == int(n) for n in got):
        raise NotYet(f"{case}: expected a list of layer numbers, got {short(got)}")
    return [int(n) for n in got]


def _first_difference(got: list[int], want: list[int], old: int) -> str:
    if len(got) != len(want):
        return f"expected {len(want)} numbers, one for each new layer, got {len(got)}"
    i = next(i for i, (a, b) in enumerate(zip(got, want, strict=True)) if a != b)
    if not 0 <= got[i] < old:
        return f"new layer {i} copies layer {got[i]}, and the old layers are 0 to {old - 1}"
    return f"new layer {i} copies layer {want[i]}, not {got[i]}"


def _depth_mistakes(old: int, new: int) -> dict[str, list[int]]:
    last, place = old - 1, range(new)
    return {
        f"there is no layer {old}: the last is {last}; use min": [round(i * old / new) for i in place],
        "i * old / new was cut off to a whole number; round it": [min(i * old // new, last) for i in place],
        "halves went up; Python's round takes a half to the even number": [
            min(math.floor(i * old / new + 0.5), last) for i in place
        ],
        "i * old / new was rounded up; round to the nearest": [min(math.ceil(i * old / new), last) for i in place],
        "the whole stack was repeated from layer 0; neighbours stay neighbours: round(i * old / new)": [
            i % old for i in place
        ],
        "the last layer was repeated at the end; spread the repeats over the depth": [min(i, last) for i in place],
        "first went to first and last to last, evenly between; the rule is i * old / new": [
            round(i * (old - 1) / max(1, new - 1)) for i in place
        ],
        "that says to which new layer each old one goes; give for each new layer the old one": [
            round(i * new / old) for i in range(old)
        ],
    }


@check
def check_grow_qkv(fn) -> str:
    """`fn(weight, heads, new_heads)`: (3 H K, H K) -> (3 H' K, H' K), Q, K and V apart, heads whole."""
    cases = [(4, 7, 2), (2, 4, 2), (3, 5, 4), (2, 3, 4), (1, 2, 6), (3, 3, 2)]
    for H, new, K in cases:
        D, wide = H * K, new * K
        weight = torch.arange(1.0, 3 * D * D + 1).view(3 * D, D)
        want = torch.empty(3 * wide, wide)
        for part in range(3):
            for head in range(new):
                old_head = (head - (new - H) // 2) % H
                for k in range(K):
                    for column in range(wide):
                        source = weight[part * D + old_head * K + k, (column - (wide - D) // 2) % D]
                        want[part * wide + head * K + k, column] = source
        case = f"from {H} to {new} heads of {K}"
        compare_or_recognise(fn(weight.clone(), H, new), want, case, _qkv_mistakes(weight, H, new, K))
    return f"agrees with the loops at {len(cases)} sizes"


def _qkv_mistakes(weight: Tensor, H: int, new: int, K: int) -> dict[str, Tensor]:
    D, wide = H * K, new * K
    heads, cut, inside = (new - H) // 2 * K, (wide - D) // 2, torch.arange(wide)
    columns = (inside - cut) % D

    def grown(rows: Tensor, columns: Tensor = columns, parts: Sequence[int] = (0, 1, 2)) -> Tensor:
        return torch.cat([weight[rows + part * D] for part in parts])[:, columns]

    whole = (torch.arange(3 * wide) - (3 * wide - 3 * D) // 2) % (3 * D)
    aligned = (inside - heads) % D
    by_head = (torch.arange(new) - (new - H) // 2) % H
    interleaved = (by_head[:, None] * 3 * K + torch.arange(3 * K)).flatten()
    return {
        "Q, K and V were tiled as one matrix, so they mix; split into three, tile each, join": weight[whole][
            :, columns
        ],
        "a head was cut: round the offset of the rows down to whole heads": grown((inside - cut) % D),
        "the columns are the hidden axis: their offset is (new - old) // 2, heads do not matter there": grown(
            aligned, aligned
        ),
        "the rows begin at head 0, which is edge tiling; the copy is (new - old) // 2 heads in": grown(inside % D),
        "the columns begin at 0, which is edge tiling; their copy is in the middle too": grown(aligned, inside % D),
        "that is edge tiling, in rows and columns": grown(inside % D, inside % D),
        "all three parts are Q": grown(aligned, parts=(0, 0, 0)),
        "Q, K and V came back in another order": grown(aligned, parts=(2, 1, 0)),
        "each head has Q, K and V side by side there; here all of Q comes first, then all of K": weight[interleaved][
            :, columns
        ],
        "the columns were not grown: the new layer reads the wider hidden state": grown(aligned, torch.arange(D)),
        "the rows were not grown": weight[:, columns],
    }
