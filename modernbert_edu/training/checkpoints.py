"""Checkpoints of a run that may be killed at any moment: whole or not there.

    OUT/checkpoints/step-00000200/   model.safetensors  optimizer.safetensors  state.json  manifest.json

A checkpoint is written into a folder with a temporary name, with the hash of each file in a manifest that is written
last; then everything is flushed to the disk, and only then the folder gets its name. What lacks its manifest or does
not match it is passed over with a line that says so, and the one before is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError

FOLDER = "checkpoints"
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    state: dict  # of the run: step, tokens, place in the data, ...

    @property
    def step(self) -> int:
        return self.state["step"]

    def weights(self) -> dict[str, Tensor]:
        return load_file(self.path / "model.safetensors")

    def optimizer_state(self) -> dict[str, Tensor]:
        return load_file(self.path / "optimizer.safetensors")


def save_checkpoint(
    run_folder: Path, weights: dict[str, Tensor], optimizer_state: dict[str, Tensor], state: dict
) -> Path:
    """Write one and return its folder. Raises `InputError` where it cannot be written; what was there is kept."""
    folder = Path(run_folder) / FOLDER
    final, temporary = folder / f"step-{state['step']:08d}", folder / f".step-{state['step']:08d}.tmp"
    try:
        remove(temporary)
        temporary.mkdir(parents=True)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, temporary / FILES[0])
        save_file({name: tensor.contiguous() for name, tensor in optimizer_state.items()}, temporary / FILES[1])
        (temporary / FILES[2]).write_text(json.dumps(state, indent=1))
        manifest = {name: file_hash(temporary / name) for name in FILES}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1))
        for name in (*FILES, MANIFEST):
            _flush(temporary / name)
        remove(final)  # there only where it was found broken
        os.rename(temporary, final)
        _flush(folder)
    except Exception as error:  # OSError, and what safetensors makes of one
        remove(temporary)
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise InputError(f"cannot write the checkpoint of step {state['step']} to {folder}: {reason}") from None
    return final


def newest_checkpoint(run_folder: Path, say: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest whole checkpoint, or None. Each broken one is named by `say`."""
    for path in reversed(checkpoint_folders(run_folder)):
        problem = whats_wrong(path)
        if problem is None:
            return Checkpoint(path, json.loads((path / "state.json").read_text()))
        say(f"checkpoint {path.name} is broken ({problem}); taking the one before it")
    return None


def checkpoint_folders(run_folder: Path) -> list[Path]:
    """All that have their final name, oldest first, whole or not."""
    return sorted((Path(run_folder) / FOLDER).glob("step-*"))


def whats_wrong(path: Path) -> str | None:
    """Why a checkpoint cannot be used, in words, or None where every file is what the manifest says."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError):
        return f"it has no readable {MANIFEST}: it was not written to its end"
    for name in FILES:
        try:
            if file_hash(path / name) != manifest.get(name):
                return f"{name} is not what was written"
        except OSError:
            return f"{name} is missing"
    return None


def keep_only(run_folder: Path, steps: set[int]) -> None:
    """Remove the checkpoints of all other steps, and what a killed run left half-written."""
    for path in checkpoint_folders(run_folder):
        if int(path.name.removeprefix("step-")) not in steps:
            remove(path)
    for path in (Path(run_folder) / FOLDER).glob(".step-*.tmp"):
        remove(path)


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    # A folder that is half removed when the run is killed must not look whole: its manifest goes first.
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no such call for folders
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
