"""What is recorded under figures/measurements, device by device, as evidence: each record knows its file and line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..runtime import read_jsonl

SCALES = ("gpu", "laptop")  # the best first; quick runs are no evidence
NO_GPU = ("cpu-", "mps-")  # how the folder of any other device begins


@dataclass(frozen=True)
class Device:
    """The records of one device."""

    folder: Path
    read: dict[str, list[dict]] = field(default_factory=dict, compare=False)

    @property
    def is_gpu(self) -> bool:
        return not self.folder.name.startswith(NO_GPU)

    def records(self, name: str) -> list[dict]:
        """The best records of a name ("bench-base", a lesson), each with its "place", file:line; [] without any."""
        if name not in self.read:
            files = [self.folder / f"{name}{end}.jsonl" for end in ("", *(f"-{scale}" for scale in SCALES))]
            path = next((path for path in files if path.exists()), None)
            self.read[name] = [] if path is None else [
                {**record, "place": f"{self.folder.name}/{path.name}:{line}"}
                for line, record in enumerate(read_jsonl(path), start=1)
            ]  # fmt: skip
        return self.read[name]

    def find(self, name: str, **where) -> dict | None:
        """The last record of a name with these values that holds a number; None where there is none."""
        found = select(self.records(name), **where)
        return found[-1] if found else None


def select(records: Sequence[dict], **where) -> list[dict]:
    """The records with these values that hold a finite number."""
    return [
        r for r in records
        if all(r.get(key) == value for key, value in where.items())
        and isinstance(r.get("value"), int | float) and math.isfinite(r["value"])
    ]  # fmt: skip


def devices(figures: str | Path = "figures") -> list[Device]:
    """Every device that something is recorded of, GPUs first.

    Raises `InputError` where nothing is recorded at all.
    """
    folder = Path(figures) / "measurements"
    found = [Device(path) for path in sorted(folder.glob("*")) if any(path.glob("*.jsonl"))]
    if not found:
        raise InputError(f"no measurements are kept in {folder}; `record` measures them, --figures names another place")
    return sorted(found, key=lambda device: not device.is_gpu)


@dataclass(frozen=True)
class Ratio:
    """One measured number over another, and how far the spreads of both let it reach."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Ratio:
        """Of numbers that are counted, or of means: without a reach."""
        return cls(value, value, value)

    def __str__(self) -> str:
        reach = f" ({self.low:.2f} to {self.high:.2f})" if self.low < self.high else ""
        return f"{self.value:.2f}{reach}"


def over(a: dict, b: dict) -> Ratio:
    """a / b. A record's spread is the width of the middle half of its repeats; half of it goes to each side."""
    wide_a, wide_b = ((r.get("spread") or 0) / 2 for r in (a, b))
    low = (a["value"] - wide_a) / (b["value"] + wide_b)
    high = (a["value"] + wide_a) / (b["value"] - wide_b) if b["value"] > wide_b else math.inf
    return Ratio(a["value"] / b["value"], low, high)
