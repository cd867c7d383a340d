"""Finished runs, kept in one file of JSON lines, so that a measurement that was stopped goes on with the others.

A run's rows share the key "run"; its last row says last=True. Rows without that end are half of a run and
do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..runtime import append_jsonl, read_jsonl, write_jsonl

WHERE = ("device", "torch")  # on another device, or with another torch, it is another run


def finished_runs(path: Path) -> list[dict]:
    """The rows of all runs in the file that came to their end."""
    rows = read_jsonl(path) if path.exists() else []
    ends = {_run(row) for row in rows if row.get("last")}
    return [row for row in rows if _run(row) in ends]


def keep_run(path: Path, rows: Sequence[dict]) -> list[dict]:
    """Append a run's rows, its end marked: -> the rows as they are kept.

    What the file holds of the same run, half of it or an older measurement, goes.
    """
    rows = [*rows[:-1], {**rows[-1], "last": True}]
    before = read_jsonl(path) if path.exists() else []
    others = [row for row in before if _run(row) != _run(rows[0])]
    if len(others) < len(before):
        write_jsonl(path, others)
    append_jsonl(path, rows)
    return rows


def _run(row: dict) -> tuple:
    return tuple(row.get(name) for name in ("run", *WHERE))
