"""What the lessons measure, kept as records and drawn again from them: one module a lesson.

A module has the functions that its lesson calls to measure, and `FIGURES`: {file stem: function(records) -> Figure}.
The records of a lesson are kept in figures/measurements/<device>/<lesson>-<scale>.jsonl.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import InputError
from ..measure import plots
from ..runtime import device_slug, prepare_output_folder, provenance, read_jsonl, resolve_device, write_jsonl

MODULES = {
    "02_tokenizer_and_data": "tokenizer",
    "03_prenorm_and_biases": "prenorm",
    "04_rope": "rope",
    "05_geglu": "geglu",
    "06_alternating_attention": "alternating",
    "07_unpadding": "unpadding",
    "08_mlm_pretraining": "pretraining",
    "09_context_extension": "extension",
    "10_large_from_base": "growth",
    "11_finetuning": "finetuning",
    "12_retrieval": "retrieval",
    "13_head_to_head": "head_to_head",
}
BEST_FIRST = ("gpu", "laptop", "quick")
MINUTES = "lesson-minutes"  # how long each lesson took, one line a lesson


def keep(records: Sequence[dict], lesson: str, scale: str, device: torch.device, folder: str | Path, **facts) -> Path:
    """Write a lesson's records, with what they were measured on, and draw its figures from them: -> the records' file.

    The folder is `folder`, a place for trials, unless the runner of the lessons names the one that is committed
    (MODERNBERT_EDU_FIGURES): reading a lesson must not replace the evidence.
    """
    folder = prepare_output_folder(os.environ.get("MODERNBERT_EDU_FIGURES") or folder)
    facts = provenance(device, scale=scale, lesson=lesson, **facts)
    path = folder / "measurements" / device_slug(device) / f"{lesson}-{scale}.jsonl"
    records = [{**facts, **record} for record in records]
    write_jsonl(path, records)
    draw(lesson, records, folder)
    return path


def keep_minutes(results: Sequence, scale: str, folder: str | Path) -> Path:
    """Write how long each lesson of `results` (classroom/notebooks.py) took on this device, beside the others' lines.

    A lesson that failed is left out.
    """
    device = resolve_device()
    path = prepare_output_folder(folder) / "measurements" / device_slug(device) / f"{MINUTES}-{scale}.jsonl"
    facts = provenance(device, scale=scale)
    new = {result.name: {**facts, "what": "lesson_seconds", "lesson": result.name, "value": result.seconds,
                         "unit": "s", "n": 1, "cells": result.cells}
           for result in results if result.error is None}  # fmt: skip
    before = {record["lesson"]: record for record in (read_jsonl(path) if path.exists() else [])}
    lines = before | new
    write_jsonl(path, [lines[lesson] for lesson in sorted(lines)])
    return path


def recorded(name: str, folder: str | Path = "figures", kind: str | None = None) -> list[dict]:
    """The best records kept under a name (a lesson, or "ablation-ladder"): a GPU's, else a laptop's, else quick ones.

    `kind` "gpu" asks for a GPU's alone. An empty list where there are none.
    """
    for scale in (kind,) if kind else BEST_FIRST:
        found = sorted((Path(folder) / "measurements").glob(f"*/{name}-{scale}.jsonl"))
        if found:
            return read_jsonl(found[0])
    return []


def draw(lesson: str, records: Sequence[dict], folder: str | Path) -> list[Path]:
    """The lesson's figures, from its records, into `folder`."""
    if lesson not in MODULES:
        raise InputError(f"no lesson {lesson!r} has figures; there are: {', '.join(MODULES)}")
    module = importlib.import_module(f".{MODULES[lesson]}", __package__)
    return [plots.save(figure(records), Path(folder) / f"{stem}.png") for stem, figure in module.FIGURES.items()]


def redraw(folder: str | Path = "figures", only: Sequence[str] | None = None) -> list[Path]:
    """Draw every lesson's figures again from the best records that are kept, or those of the lessons named so."""
    drawn = []
    for lesson in MODULES:
        if only and not lesson.startswith(tuple(only)):
            continue
        records = recorded(lesson, folder)
        if records:
            drawn += draw(lesson, records, folder)
    return drawn
