"""Wrong answers to the exercises of 06_alternating_attention."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_BAND = """def band_mask(lengths, window):
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(len(document))
    apart = place[:, None] - place[None, :]
    same, near = document[:, None] == document[None, :], apart.abs() <= window
    """

PLANTED["check_band_mask"] = [
    (_BAND + "return same & (apart.abs() < window)", "exactly `window` tokens away may still"),
    (_BAND + "return same & (apart.abs() <= window // 2)", "do not halve the window"),
    (_BAND + "return near", "the documents are missing"),
    (_BAND + "return same", "the window is missing"),
    (_BAND + "return same | near", "joined with or"),
    (_BAND + "return ~(same & near)", "did you invert the mask?"),
    (_BAND + "return same & (apart >= 0) & near", "only keys to the left"),
    (_BAND + "return same & (apart <= 0) & (apart >= -window)", "only keys to the right"),
    (_BAND + "return same & near & (apart != 0)", "a token may look at itself"),
    (
        _BAND + "inside = torch.cat([torch.arange(n) for n in lengths])\n"
        "    return (inside[:, None] - inside).abs() <= window",
        "positions begin anew in each document",
    ),
    (_BAND + "return same.float() * near", "must be boolean"),
    (_BAND + "return (same & near)[None]", "expected the shape"),
    (_BAND + "same & near", "returned None"),
    ("def band_mask(lengths, window):\n    return lengths <= window", "your function raised TypeError"),
]

_SEEN = "def tokens_seen(layer_types, window, token, length):\n    layers = len(layer_types)\n    "
_GLOBAL = "if 'G' in layer_types:\n        return length\n    "
_ENDS = "return min(token + reach, length - 1) - max(token - reach, 0) + 1"

PLANTED["check_tokens_seen"] = [
    (_SEEN + _GLOBAL + f"reach = window\n    {_ENDS}", "that is one local layer"),
    (_SEEN + _GLOBAL + "return layers * (2 * window + 1)", "counts once, not once in each layer"),
    (_SEEN + _GLOBAL + "return 1 + 2 * window * layers", "no tokens before the first and after the last"),
    (_SEEN + _GLOBAL + "return min(1 + 2 * window * layers, length)", "the other side does not grow instead"),
    (_SEEN + _GLOBAL + "return 2 * window * layers", "the token itself is seen too"),
    (_SEEN + _GLOBAL + "return 1 + window * layers", "both sides count"),
    (_SEEN + _GLOBAL + f"reach = window // 2 * layers\n    {_ENDS}", "do not halve it"),
    (_SEEN + f"reach = window * layers\n    {_ENDS}", "wherever in the stack it stands"),
    (_SEEN + f"reach = window * layer_types.count('L')\n    {_ENDS}", "it lets everything through"),
    (
        _SEEN + "if layer_types[-1] == 'G':\n        return length\n    " + f"reach = window * layers\n    {_ENDS}",
        "wherever in the stack it stands",
    ),
    (
        _SEEN + "if layer_types[0] == 'G':\n        return length\n    " + f"reach = window * layers\n    {_ENDS}",
        "wherever in the stack it stands",
    ),
    (
        _SEEN + _GLOBAL + "reach = window * layers\n    return min(token + reach, length) - max(token - reach, 0) + 1",
        "the right side stops at the last token",
    ),
    (_SEEN + _GLOBAL + "return None", "returned None"),
]

_KEYS = """def keys_of_block(b, block, window, lengths):
    T = sum(lengths)
    first, last = b * block, min((b + 1) * block, T) - 1
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    start = max([0] + [e for e in ends if e <= first])
    end = min(e for e in ends if e > last)
    """

PLANTED["check_keys_of_block"] = [
    (_KEYS + "return max(start, first - window), min(end, last + window + 1) - 1", "one past the last key"),
    (_KEYS + "return first - window, last + 1 + window", "no key lies before token 0"),
    (_KEYS + "return first - window, (b + 1) * block + window", "no key lies before token 0"),
    (_KEYS + "return max(0, first - window), min(T, last + 1 + window)", "no document sees another"),
    (
        _KEYS + "end = min(e for e in ends if e > first)\n"
        "    return max(start, first - window), min(end, last + 1 + window)",
        "a block may hold the end of one document",
    ),
    (_KEYS + "return first, last + 1", "those are the block's own tokens"),
    (_KEYS + "return max(start, first - window), last + 1", "the keys after the block are missing"),
    (_KEYS + "return first, min(end, last + 1 + window)", "the keys before the block are missing"),
    (
        _KEYS + "return max(start, first - window // 2), min(end, last + 1 + window // 2)",
        "do not halve the window",
    ),
    (_KEYS + "return max(start, first - window + 1), min(end, last + window)", "exactly `window` tokens away"),
    (_KEYS + "return start, end", "not whole documents"),
    (_KEYS + "return range(start, end), block", "whole numbers"),
    (_KEYS + "return first", "return two things"),
]
