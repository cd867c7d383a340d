"""What several lessons need to say: where a number was measured, an interval in figures, and an interval in words."""

from __future__ import annotations

import torch

from ..runtime import describe_device

NEITHER = "no difference can be told"


def where_measured(device: torch.device, dtype: torch.dtype | str, **more) -> dict:
    """The fields of a record without which no figure is drawn; `more` is added to them."""
    kind = str(dtype).removeprefix("torch.")
    return dict(device=describe_device(device), torch=torch.__version__, dtype=kind) | more


def with_interval(mean: float, low: float, high: float, unit: str = "", sign: str = "+") -> str:
    """ "+0.120 nats [+0.100, +0.140]"; `sign` "" leaves the plus out."""
    return f"{mean:{sign}.3f}{unit and ' '}{unit} [{low:{sign}.3f}, {high:{sign}.3f}]"


def side_of_zero(
    low: float, high: float, *, above: str = "higher", below: str = "lower", neither: str = NEITHER
) -> str:
    """The words for where the whole interval lies; `neither` where it holds 0, whoever should have won."""
    return above if low > 0 else below if high < 0 else neither
