"""Timing models fairly: in turns, after a warm-up, with the device synchronised, counted in real tokens.

Two habits make most published comparisons wrong, and both are easy to avoid. A machine gets slower as it gets warm or
busy, so what is timed second loses: here the candidates take turns, A B A B. And a padded batch looks fast when its pad
tokens are counted: here only real tokens count.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError

FEWEST_REPEATS = 3  # below that a median and a spread mean nothing


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, over `n` calls. `spread` is the interquartile range: the width of the middle half."""

    median: float
    spread: float
    minimum: float
    n: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        lower, _, upper = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(statistics.median(seconds), upper - lower, min(seconds), len(seconds))


def time_interleaved(
    calls: dict[str, Callable[[], object]],
    *,
    device: torch.device | str,
    repeats: int = 7,
    warmup: int = 2,
    budget_seconds: float | None = None,
) -> dict[str, Timing]:
    """Time several calls side by side, in turns: {name: call} -> {name: Timing}, in seconds.

    `device` is where they compute: work on a GPU is awaited before the clock is read. With `budget_seconds`, warm-up
    and repeats end early once that much time has gone by, but never before one warm-up and three repeats.
    Raises `InputError` for an empty dict, fewer than three repeats, or no warm-up.
    """
    rounds = time_rounds(calls, device=device, repeats=repeats, warmup=warmup, budget_seconds=budget_seconds)
    return {name: Timing.of(seconds) for name, seconds in rounds.items()}


def time_rounds(
    calls: dict[str, Callable[[], object]],
    *,
    device: torch.device | str,
    repeats: int = 7,
    warmup: int = 2,
    budget_seconds: float | None = None,
) -> dict[str, list[float]]:
    """`time_interleaved` round by round: {name: seconds}, where place i of every list is of the same round."""
    if not calls:
        raise InputError("there is nothing to time: calls is empty")
    if repeats < FEWEST_REPEATS or warmup < 1:
        raise InputError(
            f"timing needs at least {FEWEST_REPEATS} repeats and 1 warm-up, not repeats={repeats}, warmup={warmup}"
        )
    device = torch.device(device)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()

    def late() -> bool:
        return budget_seconds is not None and time.perf_counter() - start > budget_seconds

    with _no_garbage_collection():
        for done in range(warmup):
            if done >= 1 and late():
                break
            for call in calls.values():
                _seconds_of(call, device)
        for done in range(repeats):
            if done >= FEWEST_REPEATS and late():
                break
            for name, call in calls.items():
                seconds[name].append(_seconds_of(call, device))
    return seconds


def _seconds_of(call: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device | str) -> None:
    """Wait until everything that was handed to the device is done. A CPU has nothing pending."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python's collector starts when it likes, so its pause would be charged to whoever is running."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def real_tokens(attention_mask: Tensor) -> int:
    """How many tokens of a batch are not padding. attention_mask is (B, S), 1 or True at real tokens."""
    return int(attention_mask.bool().sum())


def tokens_per_second(timing: Timing, tokens: int) -> float:
    """Tokens per second at the median time."""
    return tokens / timing.median


def tokens_per_second_spread(timing: Timing, tokens: int) -> float:
    """The spread of `tokens_per_second`, which has the same share of its value as the spread of the time."""
    return tokens_per_second(timing, tokens) * timing.spread / timing.median


def forward_call(model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None) -> Callable[[], object]:
    """A call that runs the model forward as in use: no gradients, no dropout. It leaves the model's mode as it was.

    A `MaskedLM` computes its logits only when they are asked for, so what this times is its encoder.
    """

    def call() -> object:
        with model_mode(model, training=False), torch.inference_mode():
            return model(input_ids, attention_mask)

    return call


def training_call(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor
) -> Callable[[], Tensor]:
    """A call that runs forward and backward in training mode and returns the loss. No optimizer; no gradient stays."""

    def call() -> Tensor:
        model.zero_grad(set_to_none=True)  # else the backward pass would add to what is there: more work, more memory
        with model_mode(model, training=True):
            loss = model(input_ids, attention_mask, labels=labels).loss
        loss.backward()
        model.zero_grad(set_to_none=True)
        return loss.detach()

    return call


@contextlib.contextmanager
def model_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """The model in training or evaluation mode; every module gets its own mode back, a frozen encoder's included."""
    changed = [module for module in model.modules() if module.training != training]
    for module in changed:
        module.training = training
    try:
        yield
    finally:
        for module in changed:
            module.training = not training
