"""How sure a mean is: the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .errors import InputError


def bootstrap_interval(
    values: Sequence[float], draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean (Efron 1979): of as many values drawn again, `draws` times.

    Values are seeds, or questions. Raises `InputError` for anything but a list of one or more numbers.
    """
    sample = torch.as_tensor(values, dtype=torch.float64)
    if sample.ndim != 1 or not len(sample):
        raise InputError(f"an interval needs a list of one or more numbers, not the shape {tuple(sample.shape)}")
    if draws < 1:
        raise InputError(f"draws must be at least 1, not {draws!r}")
    generator = torch.Generator().manual_seed(seed)
    means = sample[torch.randint(len(sample), (draws, len(sample)), generator=generator)].mean(dim=1)
    tail = (1 - level) / 2
    return means.quantile(tail).item(), means.quantile(1 - tail).item()
