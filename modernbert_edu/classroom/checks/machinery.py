"""What the checks share. `check_NAME(your_function)` says one line and returns True or False.

    passed: attend agrees with the plain loops on 6 inputs
    not yet: with S 4, K 8: the scores were not divided by sqrt(K)
    to do: fill in attend, then run this cell again

In a notebook the first words stand on green, red or amber; elsewhere the line is printed.

A check never raises for what a learner wrote, so that "Run All" reaches the end of a lesson. It compares with torch's
own operation or with the definition in plain loops, on seeded random inputs of several shapes, and it knows the usual
mistakes by their result. To add one, write a function that takes the learner's, raises `NotYet` through `compare`,
returns what to say when it passed, and bears the decorator `check`.
"""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Callable

import torch
from torch import Tensor

from modernbert_edu.runtime import in_notebook

# Sign, ground and ink of each verdict's first words. The signs and the words say it without colours, too.
LOOKS = {
    "passed": ("&#10004;", "#1b7a2f", "#ffffff"),  # a tick on green
    "not yet": ("&#10008;", "#b71c1c", "#ffffff"),  # a cross on red
    "to do": ("&#9998;", "#ffb300", "#000000"),  # a pencil on amber
}


class NotYet(Exception):
    """What is wrong with an answer, in words for the learner."""


def check(body: Callable[[Callable], str]) -> Callable[[Callable], bool]:
    """Turn `body(fn) -> praise` into a check that says one line and returns whether the answer is right."""

    @functools.wraps(body)
    def checked(fn: Callable) -> bool:
        name = getattr(fn, "__name__", None)
        if not callable(fn):
            return _say(False, f"not yet: give the function itself, not {short(fn)}")
        try:
            with torch.random.fork_rng(
                devices=[]
            ):  # seeded here, and the lesson's own random numbers stay as they were
                torch.manual_seed(0)
                return _say(True, f"passed: {name} {body(fn)}")
        except NotImplementedError:
            return _say(False, f"to do: fill in {name}, then run this cell again")
        except NotYet as wrong:
            return _say(False, f"not yet: {wrong}")
        except Exception as error:
            reason = (str(error).strip().splitlines() or ["no message"])[0]
            return _say(False, f"not yet: your function raised {type(error).__name__}: {reason}")

    return checked


def _say(verdict: bool, line: str) -> bool:
    if in_notebook():
        from IPython.display import display

        display({"text/html": in_colour(line), "text/plain": line}, raw=True)
    else:
        print(line)
    return verdict


def in_colour(line: str) -> str:
    """HTML with the same words: "passed: ..." with its verdict on green, and so on."""
    verdict, rest = line.split(":", 1)
    sign, ground, ink = LOOKS[verdict]
    badge = f'<b style="background-color: {ground}; color: {ink}; padding: 2px 6px">{sign} {verdict}</b>'
    return f'<pre style="margin: 0; white-space: pre-wrap; word-break: normal">{badge}:{html.escape(rest)}</pre>'


def compare(
    got, want: Tensor | int, case: str, mistakes: dict[str, Tensor | int] | None = None, tolerance: float = 1e-5
) -> None:
    """Raise `NotYet` unless `got` is `want`: same shape, every number within `tolerance` (relative or absolute).

    `case` names the input; `mistakes` maps the description of a usual mistake to the result it gives.
    """
    if got is None:
        raise NotYet("your function returned None; does it end with a return?")
    if isinstance(want, int):
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        if got == want:
            return
        known = recognise(got, mistakes, lambda a, b: a == b)
        raise NotYet(f"{case}: {known or f'expected {want:,}, got {short(got)}'}")
    if not isinstance(got, Tensor):
        raise NotYet(f"{case}: expected a tensor, got {short(got)}")
    if got.shape != want.shape:
        raise NotYet(f"{case}: expected the shape {tuple(want.shape)}, got {tuple(got.shape)}")
    if close(got, want, tolerance):
        return
    known = recognise(got, mistakes, lambda a, b: close(a, b, tolerance))
    raise NotYet(f"{case}: {known or _largest_difference(got, want)}")


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Nan equals nan here: a right result has none, and a known mistake may."""
    return a.shape == b.shape and torch.allclose(
        a.detach().to(b.dtype), b, rtol=tolerance, atol=tolerance, equal_nan=True
    )


def recognise(got, mistakes, same) -> str | None:
    """The description of the first known mistake that gives this result."""
    return next((words for words, wrong in (mistakes or {}).items() if same(got, wrong)), None)


def _largest_difference(got: Tensor, want: Tensor) -> str:
    got = got.detach().to(want.dtype)
    if not torch.isfinite(got).all():
        bad = int((~torch.isfinite(got)).sum())
        return f"{bad} of {got.numel()} numbers are nan or infinite; is a whole row masked, or something divided by 0?"
    place = tuple(i.item() for i in torch.unravel_index((got - want).abs().argmax(), want.shape))
    where = f"at {list(place)} " if place else ""
    return f"{where}expected {want[place].item():.4f}, got {got[place].item():.4f}"


def short(value) -> str:
    text = repr(value).splitlines()[0]
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def pair(got, case: str, names: str) -> tuple:
    if got is None:
        raise NotYet("your function returned None; does it end with a return?")
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise NotYet(f"{case}: return two things, {names}, not {short(got)}")
    return tuple(got)


def compare_number(got, want: float, case: str, mistakes: dict[str, float]) -> None:
    """`compare` for a number that need not be whole, given as a float, an int or a tensor with one element."""
    if isinstance(got, Tensor) and got.numel() == 1:
        got = got.item()
    if not isinstance(got, int | float):
        raise NotYet(f"{case}: expected a number, got {short(got)}")
    if math.isclose(got, want, rel_tol=1e-5, abs_tol=1e-5):
        return
    known = recognise(got, mistakes, lambda a, b: math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5))
    raise NotYet(f"{case}: {known or f'expected {want:.4g}, got {got:.4g}'}")


def compare_or_recognise(got, want: Tensor, case: str, mistakes: dict[str, Tensor]) -> None:
    """`compare`, which also knows the mistakes whose result has another shape than the right one."""
    if isinstance(got, Tensor) and got.shape != want.shape:
        known = recognise(got, mistakes, lambda a, b: close(a, b, 0))
        if known:
            raise NotYet(f"{case}: {known}")
    compare(got, want, case, mistakes, tolerance=0)


def whole_numbers(got: Tensor, case: str) -> None:
    if got.is_floating_point():
        raise NotYet(f"{case}: the numbers are right, but {got.dtype}; places and beginnings are whole numbers")


def listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + (" and " if len(numbers) > 1 else "") + str(numbers[-1])
