"""Checks of 07_unpadding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .machinery import NotYet, check, close, compare, recognise, short


@check
def check_through_flat_axis(fn) -> str:
    """`fn(x_BSD, real_BS, layer) -> (B, S, E)`: `layer` on the real tokens only, in one call; zeros at the pads."""
    rectangles = {
        "with pads at the end": [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]],
        "with pads in front": [[0, 0, 1], [1, 1, 1]],
        "without pads": [[1, 1], [1, 1], [1, 1]],
        "with pads in the middle, and an output of another width": [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]],
    }
    for case, rows in rectangles.items():
        real = torch.tensor(rows).bool()
        D, E = 4, 6 if "width" in case else 4
        x, weight, bias = torch.randn(*real.shape, D), torch.randn(D, E), torch.randn(E)
        calls = []

        def layer(given, weight=weight, bias=bias, calls=calls):
            calls.append(tuple(given.shape))
            return torch.tanh(given @ weight + bias)

        got = fn(x.clone(), real.clone(), layer)
        _compare_rectangle(got, x, real, torch.tanh(x @ weight + bias), case)
        computed = sum(torch.Size(shape[:-1]).numel() for shape in calls)
        if computed != real.sum():
            raise NotYet(
                f"{case}: the numbers are right, but the layer computed {computed} places for {real.sum()} tokens"
            )
        if len(calls) != 1:
            raise NotYet(f"{case}: the numbers are right, but the layer was called {len(calls)} times; once is enough")
    return f"computes real tokens only and brings them home, in {len(rectangles)} batches"


def _compare_rectangle(got, x: Tensor, real: Tensor, y: Tensor, case: str) -> None:
    want = y * real[:, :, None]
    columns = torch.zeros_like(y)
    columns[real] = y.transpose(0, 1)[real.T]
    front, back = torch.zeros_like(y), torch.zeros_like(y)
    for row, n in enumerate(real.sum(dim=1).tolist()):
        front[row, :n] = y[row, :n]
        back[row, :n] = y[row][real[row]]
    mistakes = {
        "that is the flat axis, (T, E); bring it back to the rectangle": y[real],
        "that is the input; put the layer's output back": x * real[:, :, None],
        "the places of the pads are not zero: the layer was there": y,
        "the tokens were gathered column by column and put back row by row": columns,
        "the first tokens of each row were taken; where the real ones are, only real_BS says": front,
        "the tokens came back to the front of their row, not to the places where they were": back,
    }
    if x.shape == y.shape:
        mistakes["the places of the pads hold the input; they are to be zero"] = torch.where(real[:, :, None], y, x)
    if isinstance(got, Tensor) and got.shape != want.shape:
        known = recognise(got, mistakes, lambda a, b: close(a, b, 1e-5))
        if known:
            raise NotYet(f"{case}: {known}")
    compare(got, want, case, mistakes)


@check
def check_first_fit(fn) -> str:
    """`fn(lengths, budget) -> [[document, ...], ...]`: each document into the first row that has room for it."""
    lists = [([5, 6, 2, 3], 8), ([4, 4, 4], 8), ([7], 7), ([3, 8, 3, 2, 5, 1, 8, 2], 8), ([1, 5, 4, 5, 1, 4], 6)]
    generator = torch.Generator().manual_seed(0)
    lists += [(torch.randint(1, 50, (40,), generator=generator).tolist(), budget) for budget in (50, 75, 200)]
    for lengths, budget in lists:
        shown = lengths if len(lengths) < 9 else f"{len(lengths)} lengths"
        case = f"with {shown} and budget {budget}"
        got = _rows(fn(list(lengths), budget), case)
        want = _fit(lengths, budget, _first)
        if got == want:
            continue
        mistakes = {
            "those are the lengths; a row holds the numbers of its documents, 0, 1, ...": [
                [lengths[document] for document in row] for row in want
            ],
            "only the last row was asked for room; the rows before it may have some": _fit(lengths, budget, _last),
            "each went into the fullest row with room, which is best fit; first fit takes the earliest": _fit(
                lengths, budget, min
            ),
            "each went into the emptiest row; first fit takes the earliest with room": _fit(lengths, budget, _emptiest),
            "a document may fill a row to the last place: room >= length, not >": _fit(
                lengths, budget, _first, needs=1
            ),
            "the documents were sorted first; take them in the order given": _fit(
                lengths, budget, _first, order=sorted(range(len(lengths)), key=lambda i: -lengths[i])
            ),
        }
        raise NotYet(f"{case}: {recognise(got, mistakes, _equal) or _what_is_wrong(got, want, lengths, budget)}")
    return f"agrees with the definition on {len(lists)} lists of lengths"


def _equal(a, b) -> bool:
    return a == b


def _rows(got, case: str) -> list[list[int]]:
    if got is None:
        raise NotYet("your function returned None; does it end with a return?")
    try:
        return [[int(document) for document in row] for row in got]
    except (TypeError, ValueError):
        raise NotYet(f"{case}: expected rows, each a list of documents, got {short(got)}") from None


def _first(choices: list[tuple[int, int]]) -> tuple[int, int]:
    return choices[0]


def _emptiest(choices: list[tuple[int, int]]) -> tuple[int, int]:
    return max(choices, key=lambda choice: choice[0])  # the earliest of several


def _last(choices: list[tuple[int, int]]) -> tuple[int, int]:
    return choices[-1]


def _fit(lengths: Sequence[int], budget: int, choose: Callable, needs: int = 0, order=None) -> list[list[int]]:
    """Rows by a rule: `choose` picks among (room, row) of the rows with room; `needs` is what must be left over."""
    rows, rooms = [], []
    for document in range(len(lengths)) if order is None else order:
        length = lengths[document]
        choices = [(room, row) for row, room in enumerate(rooms) if room >= length + needs]
        if choose is _last:
            choices = [(room, row) for room, row in choices if row == len(rows) - 1]
        row = choose(choices)[1] if choices else len(rows)
        if row == len(rows):
            rows.append([])
            rooms.append(budget)
        rows[row].append(document)
        rooms[row] -= length
    return rows


def _what_is_wrong(got, want, lengths, budget) -> str:
    packed = sorted(document for row in got for document in row)
    missing = sorted(set(range(len(lengths))) - set(packed))
    if missing:
        return f"document {missing[0]} is in no row"
    if len(packed) > len(lengths):
        twice = next((a for a, b in zip(packed, packed[1:], strict=False) if a == b), packed[-1])
        return f"document {twice} is in the rows twice, or there is no such document"
    for number, row in enumerate(got):
        total = sum(lengths[document] for document in row)
        if total > budget:
            return f"row {number} holds {total} tokens, more than the budget"
    if any(not row for row in got):
        return "a row is empty; open a row when a document needs one"
    number = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a != b), min(len(got), len(want)))
    here = got[number] if number < len(got) else "nothing"
    return f"row {number}: expected the documents {want[number] if number < len(want) else 'none'}, got {here}"


@check
def check_leaks(fn) -> str:
    """`fn(forward, first, second) -> bool`: whether a document's output depends on the other's tokens."""
    table, first, second = torch.randn(100, 8), torch.randint(100, (7,)), torch.randint(100, (5,))
    first[2] = second[1] = 99  # the highest id there is: one more is none
    for what, (model, leaky) in _models(table).items():
        got = fn(model, first.clone(), second.clone())
        if got is None:
            raise NotYet("your function returned None; does it end with a return?")
        if isinstance(got, Tensor) and got.numel() == 1 and got.dtype == torch.bool:
            got = got.item()
        if not isinstance(got, bool):
            raise NotYet(f"return True or False, not {short(got)}")
        if got != leaky:
            raise NotYet(f"a leak was not found: {what}" if leaky else f"there is no leak: {what}")
    return "tells 5 leaks from 2 models that have none"


def _models(table: Tensor) -> dict[str, tuple[Callable, bool]]:
    """Models of several kinds of leak: {in words: (forward(list of ids) -> list of (n, V), whether it leaks)}."""

    def model(others: Callable, share: float = 1.0, noise: float = 0.0) -> Callable:
        def forward(documents):
            for ids in documents:
                if ids.numel() and (ids.min() < 0 or ids.max() > 99):
                    raise NotYet("token ids are 0 to 99, and the model was given others")
            x = [table[ids] for ids in documents]
            own = [one + one.mean(dim=0) for one in x]
            rounding = 1 + noise * sum(map(len, documents))  # another shape, another order of adding up
            return [(one + share * others(x, i)) * rounding for i, one in enumerate(own)]

        return forward

    def mean(parts):
        return torch.cat(parts).mean(dim=0) if parts else 0.0

    def at_the_border(x, i):
        added = torch.zeros_like(x[i])
        if i + 1 < len(x):
            added[-1] = x[i + 1][0]
        if i > 0:
            added[0] = x[i - 1][-1]
        return added

    return {
        "every token sees every other": (model(lambda x, i: mean(x)), True),
        "the output of each document is its own": (model(lambda x, i: 0.0), False),
        "the second document sees the first": (model(lambda x, i: mean(x[:i])), True),
        "the first document sees the second": (model(lambda x, i: mean(x[i + 1 :])), True),
        "the two tokens beside the border see each other, no other does": (model(at_the_border), True),
        "they see little of each other, a thousandth": (model(lambda x, i: mean(x), share=1e-3), True),
        "a document packed differs from the same alone by rounding, about 1e-6": (
            model(lambda x, i: 0.0, noise=1e-7),
            False,
        ),
    }
