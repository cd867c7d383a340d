"""Wrong answers to the exercises of 13_head_to_head."""

PLANTED: dict[str, list[tuple[str, str]]] = {}

_RATE = "def real_rate(mask_BS, seconds):\n    middle = sorted(seconds)\n    n = len(middle)\n    "
_RATE += "middle = (middle[(n - 1) // 2] + middle[n // 2]) / 2\n    "

PLANTED["check_real_rate"] = [
    (_RATE + "return mask_BS.numel() / middle", "the pads were counted"),
    (_RATE + "return len(mask_BS) / middle", "the texts were counted"),
    (_RATE + "return mask_BS.sum().item() / (sum(seconds) / n)", "that is the mean time"),
    (_RATE + "return mask_BS.sum().item() / min(seconds)", "that is the fastest call"),
    (_RATE + "return mask_BS.sum().item() / sum(seconds)", "all calls together"),
    (_RATE + "return middle / mask_BS.sum().item()", "divide the other way round"),
    (_RATE + "return mask_BS.sum(dim=1).max().item() / middle", "only the longest text"),
    (_RATE + "return mask_BS.sum().item() / seconds[n // 2]", "needs the times in order"),
    (_RATE + "return mask_BS.sum(dim=1) / middle", "expected a number"),
    (_RATE + "mask_BS.sum().item() / middle", "returned None"),
]

_FRONT = "def front(points):\n    return [not any({}) for c, d in points]"
_BEATEN = "a <= c and b <= d and (a < c or b < d) for a, b in points"

PLANTED["check_front"] = [
    (_FRONT.format("a <= c and b <= d for a, b in points"), "a point must not beat itself"),
    (
        "def front(points):\n    return [not any(a <= c and b <= d for j, (a, b) in enumerate(points) if j != i)\n"
        "            for i, (c, d) in enumerate(points)]",
        "equal points beat each other",
    ),
    (_FRONT.format("a < c and b < d for a, b in points"), "equal in one number and better in the other"),
    (_FRONT.format("a >= c and b >= d and (a > c or b > d) for a, b in points"), "more was taken for better"),
    (_FRONT.format("a < c or b < d for a, b in points"), "is not enough"),
    ("def front(points):\n    return [a == min(x for x, _ in points) for a, _ in points]", "only the cheapest"),
    ("def front(points):\n    return [b == min(y for _, y in points) for _, b in points]", "only the lowest loss"),
    ("def front(points):\n    return [a + b == min(x + y for x, y in points) for a, b in points]", "were added up"),
    (
        "def front(points):\n    return [(c, d) for c, d in points if not any(" + _BEATEN + ")]",
        "a list of True and False",
    ),
    (
        "def front(points):\n    return [not any(" + _BEATEN + ") for c, d in points[1:]]",
        "one for each point, got",
    ),
    ("def front(points):\n    [not any(" + _BEATEN + ") for c, d in points]", "returned None"),
]

_REACH = (
    "def at_least(a, b, factor):\n    low = (a[0] - {share} * a[1]) / (b[0] + {share} * b[1])\n"
    "    high = (a[0] + {share} * a[1]) / (b[0] - {share} * b[1])\n    "
)
_THREE = "return 'yes' if low >= factor else 'no' if high < factor else 'cannot tell'"

PLANTED["check_at_least"] = [
    ("def at_least(a, b, factor):\n    return 'yes' if a[0] / b[0] >= factor else 'no'", "the medians alone"),
    (_REACH.format(share=0.5) + "return 'yes' if high >= factor else 'no'", "the best case decides"),
    (_REACH.format(share=0.5) + "return 'yes' if low >= factor else 'no'", "the worst case decides"),
    (_REACH.format(share=1.0) + _THREE, "half of it goes to each side"),
    (
        "def at_least(a, b, factor):\n    low = (a[0] - a[1] / 2) / (b[0] - b[1] / 2)\n"
        "    high = (a[0] + a[1] / 2) / (b[0] + b[1] / 2)\n    low, high = sorted((low, high))\n    " + _THREE,
        "divides by b's larger value",
    ),
    ("def at_least(a, b, factor):\n    a, b = b, a\n" + _REACH.format(share=0.5).split("\n", 1)[1] + _THREE,
     "b was divided by a"),
    (_REACH.format(share=0.5) + "return low >= factor", "answer with one of"),
    (_REACH.format(share=0.5) + "'yes' if low >= factor else 'no'", "returned None"),
]  # fmt: skip
