"""Wrong answers to the exercises of 00_tour."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_REPORT = "def batch_report(real_BS, seconds):\n    real = real_BS.sum().item()\n    "

PLANTED["check_batch_report"] = [
    (_REPORT + "return real / real_BS.numel(), real / seconds", "the share of real tokens, not of pads"),
    (_REPORT + "return 1 - real / real_BS.numel(), real_BS.numel() / seconds", "pads were counted as tokens"),
    (_REPORT + "return real / seconds, 1 - real / real_BS.numel()", "the two are swapped"),
    (_REPORT + "return real_BS.numel() / real - 1, real / seconds", "divide by all places"),
    (_REPORT + "return 100 * (1 - real / real_BS.numel()), real / seconds", "in percent"),
    (_REPORT + "return (~real_BS).sum(), real / seconds", "how many pads there are"),
    (_REPORT + "return 1 - real / real_BS.numel(), seconds / real", "seconds per token"),
    (_REPORT + "return 1 - real / real_BS.numel(), len(real_BS) / seconds", "texts per second"),
    (_REPORT + "return 1 - real / real_BS.numel(), real * seconds", "multiplied by the seconds"),
    (_REPORT + "return 1 - real / real_BS.numel(), 2 * real / seconds", "expected 14, got 28"),
    (_REPORT + "return 1 - real / real_BS.numel()", "return two things"),
    (_REPORT + "return 1 - real_BS.float().mean(1), real / seconds", "expected a number, got Tensor"),
    (_REPORT + "1 - real / real_BS.numel(), real / seconds", "returned None"),
]

_AXIS = "def flat_axis(lengths):\n    sizes = torch.tensor(lengths)\n    cu = F.pad(sizes.cumsum(0), (1, 0))\n    "
_PLACES = "places = torch.cat([torch.arange(n) for n in lengths])\n    "

PLANTED["check_flat_axis"] = [
    (_AXIS + _PLACES + "return cu[1:], places", "lacks the 0 in front"),
    (_AXIS + _PLACES + "return cu[:-1], places", "lacks its last entry, T"),
    (_AXIS + _PLACES + "return F.pad(sizes, (1, 0)), places", "were not added up"),
    (_AXIS + _PLACES + "return sizes, places", "those are the lengths"),
    (_AXIS + _PLACES + "return places, cu", "the two are swapped"),
    (_AXIS + "return cu, torch.arange(int(cu[-1]))", "start again at 0"),
    (_AXIS + _PLACES + "return cu, places + 1", "count from 1"),
    (
        _AXIS + "return cu, torch.arange(len(lengths)).repeat_interleave(sizes)",
        "the number of each token's text",
    ),
    (_AXIS + "return cu, cu[:-1].repeat_interleave(sizes)", "subtract it from the place on the flat axis"),
    (_AXIS + "return cu, torch.arange(max(lengths)).repeat(len(lengths))", "pads got positions too"),
    (_AXIS + _PLACES + "return cu.tolist(), places", "expected a tensor, got list"),
    (_AXIS + _PLACES + "return cu, places.float()", "position_ids: the numbers are right, but torch.float32"),
    (_AXIS + _PLACES + "return cu / 1, places", "cu_seqlens: the numbers are right, but torch.float32"),
    (_AXIS + "return cu", "return two things"),
    (
        "def flat_axis(lengths):\n    lengths = [n for n in lengths if n]\n    sizes = torch.tensor(lengths)\n"
        "    return F.pad(sizes.cumsum(0), (1, 0)), torch.cat([torch.arange(n) for n in lengths])",
        "with lengths [4, 0, 2], cu_seqlens: an empty text keeps its entry",
    ),
]

_PAIRS = "def score_pairs(n, window):\n    if window is None:\n        return n * n\n    "
_SHORT = "if window >= n:\n        return n * n\n    "

PLANTED["check_score_pairs"] = [
    (_PAIRS + _SHORT + "return n * (2 * window + 1)", "near the two ends have fewer keys"),
    (_PAIRS + _SHORT + "return n * 2 * window - window * (window + 1)", "the token itself is a key too"),
    (_PAIRS + _SHORT + "return n * 2 * window", "neither the token itself nor the two ends"),
    (
        _PAIRS + "window //= 2\n    return n * (2 * window + 1) - window * (window + 1)",
        "on each side, not on both together",
    ),
    (_PAIRS + "return sum(min(i, window) + 1 for i in range(n))", "keys to the right count"),
    (_PAIRS + _SHORT + "return n * (2 * window + 1) - window * (window + 1) // 2", "there are two ends"),
    (_PAIRS + _SHORT + "return n * (2 * window + 1) - window * window", "which is w (w + 1) / 2"),
    (
        _PAIRS + "return n * (2 * window + 1) - window * (window + 1)",
        "with n 1, window 3: a text that is shorter than the window sees all of itself: expected 1, got -5",
    ),
    (_PAIRS + "return n * n", "that is a global layer"),
    (
        _PAIRS + "if 2 * window + 1 >= n:\n        return n * n\n"
        "    return n * (2 * window + 1) - window * (window + 1)",
        "with n 5, window 3: a text longer than window + 1 already loses pairs at its ends",
    ),
    (
        "def score_pairs(n, window):\n    if not window or window >= n:\n        return n * n\n"
        "    return n * (2 * window + 1) - window * (window + 1)",
        "window 0 is not None",
    ),
    (_PAIRS + _SHORT + "return n * (2 * window + 1) - 2 * (window * (window + 1) / 2)", "44.0 is a float"),
    (
        "def score_pairs(n, window):\n    return n * (2 * window + 1) - window * (window + 1) if window < n else n * n",
        "your function raised TypeError",
    ),
]
