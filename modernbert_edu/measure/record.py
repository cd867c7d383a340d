"""What is to be measured on a machine, part by part, and what of it is recorded already.

Each part is a command of this package that keeps its records under figures/measurements/<device>/. A part whose file
is there is done; so a run that was stopped goes on where it stopped, and a new device starts from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..lessons import MODULES as LESSONS
from ..runtime import device_slug


@dataclass(frozen=True)
class Part:
    """A command, and the file that it leaves when it has come to its end."""

    command: tuple[str, ...]
    file: str

    def path(self, figures: Path, device: torch.device, scale: str) -> Path:
        return figures / "measurements" / device_slug(device) / self.file.format(scale=scale)


PARTS = {
    "tour": Part(("tour",), "00_tour-{scale}.jsonl"),
    "bench": Part(("bench",), "bench-base.jsonl"),
    "headline-bert": Part(("headline", "--only", "BERT"), "headline-bert-{scale}.jsonl"),
    "headline-modernbert": Part(("headline", "--only", "ModernBERT"), "headline-modernbert-{scale}.jsonl"),
    **{
        f"retrieval-{model.lower()}-{seed}": Part(
            ("search", "compare", "--only", model, "--seed", str(seed)),
            f"retrieval-{model.lower()}-{seed}-{{scale}}.jsonl",
        )
        for model in ("BERT", "ModernBERT")
        for seed in (0, 1)
    },
    "ladder": Part(("ablate", "--ladder", "--yes"), "ablation-ladder-{scale}.jsonl"),
    **{
        f"lesson-{lesson[:2]}": Part(("notebooks", "--only", lesson, "--in-place"), lesson + "-{scale}.jsonl")
        for lesson in LESSONS
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
