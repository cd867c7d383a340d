"""Checks of 13_head_to_head."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from .machinery import NotYet, check, compare_number, recognise, short


@check
def check_real_rate(fn) -> str:
    """`fn(mask_BS, seconds) -> float`: real tokens a second of a padded batch, at the median of several times."""
    cases = [([5, 3, 1], [0.5, 4.0, 0.25]), ([4, 4], [0.1, 0.3, 0.2, 0.9]), ([1, 7, 2, 6], [2.0, 0.5, 0.75, 1.0, 8.0])]
    for lengths, seconds in cases:
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        real, middle = sum(lengths), statistics.median(seconds)
        mistakes = {
            "the pads were counted; only places where the mask is 1 hold real tokens": mask.numel() / middle,
            "the texts were counted, not their tokens": len(lengths) / middle,
            "that is the mean time; one slow call pulls it up, the median it does not": real / statistics.mean(seconds),
            "that is the fastest call; take the median": real / min(seconds),
            "that is the time of all calls together; the batch was read once in each": real / sum(seconds),
            "that is seconds for each token; divide the other way round": middle / real,
            "only the longest text was counted": max(lengths) / middle,
            "the median needs the times in order": real / seconds[len(seconds) // 2],
        }
        wrong = {words: value for words, value in mistakes.items() if value != real / middle}
        got = fn(mask.clone(), list(seconds))
        if got is None:
            raise NotYet("your function returned None; does it end with a return?")
        compare_number(got, real / middle, f"texts of {lengths} tokens, seconds {seconds}", wrong)
    return f"counts real tokens at the median time in {len(cases)} batches"


@check
def check_front(fn) -> str:
    """`fn(points) -> list of bool`: which (cost, loss) points no other one beats; less is better in both."""
    cases = [
        [(1.0, 5.0), (2.0, 4.0), (3.0, 4.5), (4.0, 3.0)],
        [(1.0, 1.0), (2.0, 2.0)],
        [(3.0, 2.0), (1.0, 2.0), (2.0, 1.0), (2.0, 3.0)],
        [(1.0, 2.0), (1.0, 2.0), (2.0, 2.0), (0.5, 3.0)],
        [(10.0, 1.0), (1.0, 9.0), (9.0, 8.9), (2.0, 3.0), (5.0, 3.0)],
    ]
    for points in cases:
        want = [not any(a <= c and b <= d and (a < c or b < d) for a, b in points) for c, d in points]
        case = f"points {points}"
        got = _flags(fn(list(points)), case)
        if got == want:
            continue
        words = recognise(got, _front_mistakes(points), lambda a, b: a == b)
        raise NotYet(f"{case}: {words or _first_wrong(points, got, want)}")
    return f"finds the front of {len(cases)} sets of points"


def _flags(got, case: str) -> list:
    if got is None:
        raise NotYet("your function returned None; does it end with a return?")
    if isinstance(got, Tensor):
        got = got.tolist()
    if not isinstance(got, Sequence) or isinstance(got, str) or not all(x in (True, False) for x in got):
        raise NotYet(f"{case}: expected a list of True and False, one for each point, not {short(got)}")
    return [bool(x) for x in got]


def _first_wrong(points: list, got: list, want: list) -> str:
    if len(got) != len(points):
        return f"expected {len(points)} answers, one for each point, got {len(got)}"
    i = next(i for i, (a, b) in enumerate(zip(got, want, strict=True)) if a != b)
    c, d = points[i]
    if want[i]:
        return f"no point beats {points[i]}, so it is on the front"
    beats = next((a, b) for a, b in points if a <= c and b <= d and (a < c or b < d))
    return f"{points[i]} is not on the front: {beats} is no worse in either number and better in one"


def _front_mistakes(points: list[tuple[float, float]]) -> dict[str, list[bool]]:
    costs, losses = [a for a, _ in points], [b for _, b in points]
    return {
        "nothing is left there: a point must not beat itself, and to be better in one number is not enough, it must "
        "be no worse in the other": [False] * len(points),
        "equal points beat each other there; a point is beaten only by one that is better in a number": [
            not any(a <= c and b <= d for j, (a, b) in enumerate(points) if j != i) for i, (c, d) in enumerate(points)
        ],
        "a point is also beaten by one that is equal in one number and better in the other": [
            not any(a < c and b < d for a, b in points) for c, d in points
        ],
        "more was taken for better; less is better in both numbers": [
            not any(a >= c and b >= d and (a > c or b > d) for a, b in points) for c, d in points
        ],
        "only the cheapest was kept; a dearer point with a lower loss is on the front too": [
            a == min(costs) for a in costs
        ],
        "only the lowest loss was kept; a cheaper point is on the front too": [b == min(losses) for b in losses],
        "the two numbers were added up; they have different units": [
            a + b == min(x + y for x, y in points) for a, b in points
        ],
    }


WORDS = ("yes", "no", "cannot tell")


@check
def check_at_least(fn) -> str:
    """`fn(a, b, factor)`: is a at least `factor` times b? Of (median, spread) each, half of a spread to each side."""
    cases = [
        ((10.0, 1.0), (4.0, 0.4), 2.0), ((10.0, 6.0), (4.0, 2.0), 2.0), ((6.0, 0.5), (4.0, 0.4), 2.0),
        ((9.0, 1.0), (4.0, 1.0), 2.0), ((7.6, 1.6), (4.0, 0.4), 2.0), ((8.0, 0.0), (4.0, 0.0), 2.0),
        ((3.0, 0.2), (9.0, 0.9), 0.5), ((2.3, 0.2), (2.0, 0.1), 1.0), ((9.5, 1.4), (4.0, 0.5), 2.0),
    ]  # fmt: skip
    answers = []
    for a, b, factor in cases:
        answers.append(fn(a, b, factor))
        if answers[-1] is None:
            raise NotYet("your function returned None; does it end with a return?")
        if not isinstance(answers[-1], str) or answers[-1] not in WORDS:
            raise NotYet(f"answer with one of {', '.join(map(repr, WORDS))}, not {short(answers[-1])}")
    want = [_answer(*_reach(a, b), factor) for a, b, factor in cases]
    if answers == want:
        return f"decides {len(cases)} comparisons by the reach of the ratio"
    mistakes = [_reach_mistakes(*case) for case in cases]
    by_words = {words: [row[words] for row in mistakes] for words in mistakes[0]}
    known = recognise(answers, by_words, lambda x, y: x == y)
    i = next(i for i, (got, right) in enumerate(zip(answers, want, strict=True)) if got != right)
    a, b, factor = cases[i]
    low, high = _reach(a, b)
    reaches = f"the ratio reaches from {low:.2f} to {high:.2f}, so the answer is {want[i]!r}"
    raise NotYet(f"{a} over {b}, factor {factor:g}: {known or reaches}")


def _reach(a: tuple, b: tuple, share: float = 0.5) -> tuple[float, float]:
    return (a[0] - share * a[1]) / (b[0] + share * b[1]), (a[0] + share * a[1]) / (b[0] - share * b[1])


def _answer(low: float, high: float, factor: float) -> str:
    return "yes" if low >= factor else "no" if high < factor else "cannot tell"


def _reach_mistakes(a: tuple, b: tuple, factor: float) -> dict[str, str]:
    same_end = sorted(((a[0] - a[1] / 2) / (b[0] - b[1] / 2), (a[0] + a[1] / 2) / (b[0] + b[1] / 2)))
    low, high = _reach(a, b)
    return {
        "the medians alone decide there; the spreads may reach over the factor": "yes" if a[0] / b[0] >= factor
        else "no",
        "the best case decides there; yes needs the whole reach at or above the factor": "yes" if high >= factor
        else "no",
        "the worst case decides there; no needs the whole reach below the factor": "yes" if low >= factor else "no",
        "the lower end divides by b's larger value, the upper end by its smaller one": _answer(*same_end, factor),
        "a spread is the whole width: half of it goes to each side": _answer(*_reach(a, b, 1.0), factor),
        "b was divided by a": _answer(*_reach(b, a), factor),
    }  # fmt: skip
