"""Wrong answers to the exercises of 07_unpadding."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_FLAT = "def through_flat_axis(x_BSD, real_BS, layer):\n    "
_BACK = "y_TE = layer(x_BSD[real_BS])\n    y = y_TE.new_zeros(*real_BS.shape, y_TE.shape[-1])\n    "

PLANTED["check_through_flat_axis"] = [
    (_FLAT + "return layer(x_BSD[real_BS])", "bring it back to the rectangle"),
    (_FLAT + "return layer(x_BSD)", "the places of the pads are not zero"),
    (_FLAT + "return layer(x_BSD) * real_BS[:, :, None]", "computed 12 places for 7 tokens"),
    (_FLAT + "y = x_BSD.clone()\n    y[real_BS] = layer(x_BSD[real_BS])\n    return y", "hold the input"),
    (
        _FLAT + _BACK + "y[real_BS] = layer(x_BSD.transpose(0, 1)[real_BS.T])\n    return y",
        "gathered column by column",
    ),
    (
        _FLAT + "lengths = real_BS.sum(1).tolist()\n    y = torch.zeros_like(x_BSD)\n"
        "    parts = layer(torch.cat([x[:n] for x, n in zip(x_BSD, lengths)])).split(lengths)\n"
        "    for row, part in zip(y, parts):\n        row[: len(part)] = part\n    return y",
        "with pads in front: the first tokens of each row were taken",
    ),
    (
        _FLAT + "lengths = real_BS.sum(1).tolist()\n    parts = layer(x_BSD[real_BS]).split(lengths)\n"
        "    return torch.stack([F.pad(part, (0, 0, 0, real_BS.shape[1] - len(part))) for part in parts])",
        "came back to the front of their row",
    ),
    (_FLAT + "return x_BSD * real_BS[:, :, None]", "that is the input"),
    (
        _FLAT + "y = torch.zeros_like(x_BSD)\n    y[real_BS] = layer(x_BSD[real_BS])\n    return y",
        "your function raised RuntimeError",
    ),
    (
        _FLAT + "rows = []\n    for x, real in zip(x_BSD, real_BS):\n        y = layer(x[real])\n"
        "        row = y.new_zeros(len(real), y.shape[-1])\n        row[real] = y\n        rows.append(row)\n"
        "    return torch.stack(rows)",
        "the layer was called 3 times",
    ),
    (_FLAT + _BACK + "y[real_BS] = y_TE", "returned None"),
]

_FIT = (
    "def first_fit(lengths, budget):\n    rows, rooms = [], []\n"
    "    for document, length in enumerate(lengths):\n        "
)
_OPEN = (
    "if row is None:\n            row = len(rows)\n            rows.append([])\n            rooms.append(budget)\n"
    "        rows[row].append({})\n        rooms[row] -= length\n    return rows"
)
_FOUND = "row = next((r for r, room in enumerate(rooms) if room >= length), None)\n        "
_FITTING = "fitting = [r for r, room in enumerate(rooms) if room >= length]\n        "

PLANTED["check_first_fit"] = [
    (_FIT + _FOUND + _OPEN.format("length"), "those are the lengths"),
    (
        _FIT + "row = len(rows) - 1 if rows and rooms[-1] >= length else None\n        " + _OPEN.format("document"),
        "only the last row was asked",
    ),
    (
        _FIT
        + _FITTING
        + "row = min(fitting, key=lambda r: rooms[r], default=None)\n        "
        + _OPEN.format("document"),
        "which is best fit",
    ),
    (
        _FIT
        + _FITTING
        + "row = max(fitting, key=lambda r: rooms[r], default=None)\n        "
        + _OPEN.format("document"),
        "the emptiest row",
    ),
    (_FIT + _FOUND.replace(">=", ">") + _OPEN.format("document"), "room >= length, not >"),
    (
        (_FIT + _FOUND + _OPEN.format("document")).replace(
            "enumerate(lengths):", "sorted(enumerate(lengths), key=lambda pair: -pair[1]):"
        ),
        "the documents were sorted first",
    ),
    (_FIT + "row = 0 if rows else None\n        " + _OPEN.format("document"), "more than the budget"),
    (
        _FIT + _FOUND + "if row is None:\n            rows.append([document])\n            rooms.append(budget)\n"
        "            continue\n        rows[row].append(document)\n        rooms[row] -= length\n    return rows",
        "more than the budget",
    ),
    (
        _FIT + _FOUND + "if row is None:\n            rows.append([])\n            rooms.append(budget)\n"
        "            continue\n        rows[row].append(document)\n        rooms[row] -= length\n    return rows",
        "is in no row",
    ),
    (_FIT + _FOUND + _OPEN.format("document").replace("return rows", "return len(rows)"), "expected rows"),
    (_FIT + _FOUND + _OPEN.format("document").replace("return rows", "rows"), "returned None"),
]

_LEAKS = "def leaks(forward, first, second):\n    before = forward([first, second])\n    "
_OTHER = "other = lambda ids: (ids + 1) % 100\n    "
_CHANGED = "a = forward([first, other(second)])[0]\n    b = forward([other(first), second])[1]\n    "

PLANTED["check_leaks"] = [
    (_LEAKS + _OTHER + _CHANGED + "return not torch.equal(a, before[0])", "the second document sees the first"),
    (_LEAKS + _OTHER + _CHANGED + "return not torch.equal(b, before[1])", "the first document sees the second"),
    (
        _LEAKS
        + "other = lambda ids: torch.cat([(ids[:1] + 1) % 100, ids[1:-1], ids[-1:]])\n    "
        + _CHANGED
        + "return not torch.equal(b, before[1])",
        "the first document sees the second",
    ),
    (
        _LEAKS + "a, b = forward([first, second.flip(0)])[0], forward([first.flip(0), second])[1]\n    "
        "return not (torch.allclose(a, before[0]) and torch.allclose(b, before[1]))",
        "every token sees every other",
    ),
    (
        _LEAKS
        + "other = lambda ids: torch.cat([ids[:1], (ids[1:-1] + 1) % 100, ids[-1:]])\n    "
        + _CHANGED
        + "return not (torch.equal(a, before[0]) and torch.equal(b, before[1]))",
        "the two tokens beside the border",
    ),
    (
        _LEAKS
        + _OTHER
        + _CHANGED
        + "return not (torch.allclose(a, before[0], atol=1e-2) and torch.allclose(b, before[1], atol=1e-2))",
        "a thousandth",
    ),
    (
        _LEAKS + "alone = forward([first])[0], forward([second])[0]\n    "
        "return not (torch.equal(alone[0], before[0]) and torch.equal(alone[1], before[1]))",
        "differs from the same alone by rounding",
    ),
    (
        _LEAKS + _OTHER + _CHANGED + "return torch.equal(a, before[0]) and torch.equal(b, before[1])",
        "every token sees every other",
    ),
    (
        _LEAKS + _OTHER + "after = forward([other(first), other(second)])\n    "
        "return not torch.equal(after[0], before[0])",
        "there is no leak: the output of each document is its own",
    ),
    (_LEAKS + "other = lambda ids: ids + 1\n    " + _CHANGED + "return not torch.equal(a, before[0])", "0 to 99"),
    (_LEAKS + _OTHER + _CHANGED + "return (a - before[0]).abs().max()", "return True or False"),
    (_LEAKS + _OTHER + _CHANGED + "not torch.equal(a, before[0])", "returned None"),
]
