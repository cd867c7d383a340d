"""The loop under every training for search: the learning rate, the clock, the records, the judging in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch

from ..errors import InputError
from ..runtime import progress
from ..training.schedule import linear


def train_steps(
    run, optimizer: torch.optim.Optimizer, batches: Iterable, step: Callable[..., float], settings, *, label: str,
    seen: Callable[[], int], judge: Callable[[], dict[str, float]], eval_every: int | None, begun: int = 0,
    keep: Callable[[int], None] = lambda number: None,
) -> None:  # fmt: skip
    """`step(batch) -> loss` for every batch, at `settings.rate` with a linear warm-up and decay over `settings.steps`.

    `run.seconds` counts the steps alone, and `run.history` gets their losses and what `judge` finds: before the first
    step, every `eval_every` steps and at the end. `seen` says how many pairs have been trained on. `keep(number)` is
    called after each judging but the first and the last; a training that goes on has `begun` steps behind it.
    Raises `InputError` where the loss stops being a number.
    """
    warmup = max(1, round(settings.warmup_share * settings.steps))

    def record(what: str, value: float, unit: str, number: int) -> None:
        run.history.append(dict(what=what, value=value, unit=unit, model=label, seed=settings.seed, step=number,
                                pairs=seen(), seconds=run.seconds))  # fmt: skip

    def judged(number: int) -> None:
        for name, value in judge().items():
            record(name, value, "share", number)

    if not begun:
        judged(0)
    with progress(total=settings.steps, initial=begun, desc=f"train {label}", unit="step") as bar:
        for number, batch in enumerate(batches, start=begun + 1):
            start = time.perf_counter()
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * linear(number, warmup=warmup, total=settings.steps + 1)
            loss = step(batch)
            run.seconds += time.perf_counter() - start
            if loss != loss:
                raise InputError(f"the loss of {label} is not a number after {number} steps; lower the learning rate")
            record("train_loss", loss, "nats", number)
            bar.set_postfix_str(f"loss {loss:.3f}, {seen() / run.seconds:,.0f} pairs/s", refresh=False)
            bar.update()
            if eval_every and number % eval_every == 0 and number < settings.steps:
                judged(number)
                keep(number)
    judged(settings.steps)
