"""What is to be measured on a machine, part by part, and what of it is recorded already.

Each part is a command of this package that keeps its records under figures/measurements/<device>/. A part whose records
are there, measured with this version of torch, is done; so a run that was stopped goes on where it stopped, and a new
device, or a new torch, starts from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..lessons import MINUTES
from ..lessons import MODULES as LESSONS
from ..runtime import device_slug, read_jsonl, resolve_device

RESUMED = ("headline", "search", "ablate")  # these keep finished runs apart; --anew tells them to measure those again
TOUR_AND_BERT = ("00_tour", "01_vanilla_bert")  # these draw nothing from records of their own


@dataclass(frozen=True)
class Part:
    """A command, and the file that it leaves when it has come to its end; of a lesson, its line of minutes in it."""

    command: tuple[str, ...]
    file: str
    lesson: str | None = None

    def path(self, figures: Path, device: torch.device, scale: str) -> Path:
        """A lesson chooses its device by itself, so its line is with that one's."""
        device = resolve_device() if self.lesson else device
        return Path(figures) / "measurements" / device_slug(device) / self.file.format(scale=scale)

    def records(self, figures: Path, device: torch.device, scale: str) -> list[dict]:
        """What this part has left for this device and this version of torch; [] where it has not been measured."""
        path = self.path(figures, device, scale)
        found = read_jsonl(path) if path.exists() else []
        return [r for r in found if self.lesson in (None, r.get("lesson")) and r.get("torch") == here()]

    def written(self, figures: Path, device: torch.device, scale: str) -> tuple[int, int] | None:
        """Something that is another after each writing of the file: a part that paused leaves it as it was."""
        path = self.path(figures, device, scale)
        return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def here() -> str:
    """The version that decides whether a measurement counts as one of this set-up."""
    return torch.__version__


PARTS = {
    "tour": Part(("tour",), "00_tour-{scale}.jsonl"),
    "bench": Part(("bench",), "bench-base.jsonl"),
    "headline-bert": Part(("headline", "--only", "BERT"), "headline-bert-{scale}.jsonl"),
    "headline-modernbert": Part(("headline", "--only", "ModernBERT"), "headline-modernbert-{scale}.jsonl"),
    **{
        f"retrieval-{model.lower()}-{seed}": Part(
            ("search", "compare", "--only", model, "--seed", str(seed), "--minutes", "9"),
            f"retrieval-{model.lower()}-{seed}-{{scale}}.jsonl",
        )
        for model in ("BERT", "ModernBERT")
        for seed in (0, 1)
    },
    "ladder": Part(("ablate", "--ladder", "--yes", "--minutes", "9"), "ablation-ladder-{scale}.jsonl"),
    **{
        f"lesson-{lesson[:2]}": Part(("notebooks", "--only", lesson, "--in-place"), MINUTES + "-{scale}.jsonl", lesson)
        for lesson in (*TOUR_AND_BERT, *LESSONS)
    },
    "rates": Part(("tour", "--sweep"), "00_tour-rates.jsonl"),
    "claims": Part(("claims", "--measure"), "claims-base.jsonl"),
}


def choose_parts(names: list[str] | None) -> dict[str, Part]:
    """The named parts, or all. Raises `InputError` for a name that there is not."""
    for name in names or []:
        if name not in PARTS:
            raise InputError(f"there is no part {name!r} to record; there are: {', '.join(PARTS)}")
    return {name: part for name, part in PARTS.items() if not names or name in names}


def what_is_missing(figures: Path, device: torch.device, scale: str) -> list[str]:
    """The names of all parts that are not recorded for this device, scale and version of torch."""
    return [name for name, part in PARTS.items() if not part.records(figures, device, scale)]
