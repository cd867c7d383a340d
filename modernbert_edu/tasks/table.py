"""Labelled text from a file or from the Hub, checked before anything is trained: rows -> `Examples`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .forms import Task

SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Examples:
    """Texts (tuples of one or two, or lists of words) and what belongs to them, still as it stands in the file."""

    texts: list
    answers: list

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> Examples:
        return Examples([self.texts[i] for i in indices], [self.answers[i] for i in indices])


def read_file(path: str | Path, task: Task) -> Examples:
    """The rows of a tsv, csv, jsonl or parquet file with named columns. Raises `InputError` where one is missing."""
    import pandas

    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a {', '.join(SUFFIXES)} file with named columns")
    try:
        if path.suffix in (".tsv", ".csv"):
            # GLUE's tsv files hold bare quotes, and "NA" is a text like any other.
            kind = dict(sep="\t", quoting=3) if path.suffix == ".tsv" else {}
            frame = pandas.read_csv(path, dtype=str, keep_default_na=False, **kind)
        elif path.suffix == ".jsonl":
            frame = pandas.read_json(path, lines=True, dtype=False)
        elif path.suffix == ".parquet":
            frame = pandas.read_parquet(path)
        else:
            raise InputError(f"cannot read {path.name}: a table ends in {', '.join(SUFFIXES)}")
    except InputError:
        raise
    except Exception as error:  # pandas and pyarrow each have their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path.name} is not a readable {path.suffix} file: {reason}") from None
    return examples(frame.to_dict("list"), task, path.name)


def read_hub(task: Task, name: str = "nyu-mll/glue") -> tuple[Examples, Examples]:
    """(training, held out) of a GLUE task from the Hub. Raises `InputError` where it cannot be reached."""
    import datasets

    parts = []
    for split in task.splits:
        try:
            rows = datasets.load_dataset(name, task.name, split=split)
        except Exception as error:  # offline, no such task, a broken download: each library has its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{task.name} cannot be had from the Hub ({reason}); give a local file with --data"
            ) from None
        parts.append(examples(rows.to_dict(), task, f"{task.name}/{split}"))
    return parts[0], parts[1]


def examples(columns: dict[str, list], task: Task, where: str) -> Examples:
    """Columns by name -> examples, every cell of them checked."""
    for name in (*task.columns, task.label):
        if name not in columns:
            option = "--columns" if name in task.columns else "--label"
            raise InputError(f"{where} has no column {name!r}; it has: {', '.join(columns)} (name yours with {option})")
    if not columns[task.label]:
        raise InputError(f"{where} has no rows; give a table with examples in it")
    read = _words if task.form == "words" else _texts
    texts = read(columns, task, where)
    answers = list(columns[task.label])
    if task.form == "words":
        answers = [_as_list(answer) for answer in answers]
        for row, (words, labels) in enumerate(zip(texts, answers, strict=True), start=1):
            if len(words) != len(labels):
                raise InputError(
                    f"{where}, row {row}: {len(words)} words and {len(labels)} labels; each word needs one"
                )
    elif task.form == "number":
        answers = [_number(answer, f"{where}, row {row}") for row, answer in enumerate(answers, start=1)]
    else:
        for row, answer in enumerate(answers, start=1):
            if answer is None or str(answer).strip() == "" or answer != answer:
                raise InputError(f"{where}, row {row}: the label is empty; fill it in, or leave the row out")
        answers = [str(answer) for answer in answers]
    return Examples(texts, answers)


def _texts(columns: dict[str, list], task: Task, where: str) -> list[tuple[str, ...]]:
    for name in task.columns:
        for row, text in enumerate(columns[name], start=1):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{where}, row {row}: column {name!r} holds no text; fill it in, or leave the row out")
    return list(zip(*(columns[name] for name in task.columns), strict=True))


def _words(columns: dict[str, list], task: Task, where: str) -> list[list[str]]:
    rows = [_as_list(cell) for cell in columns[task.columns[0]]]
    for row, words in enumerate(rows, start=1):
        if not words or not all(isinstance(word, str) and word for word in words):
            raise InputError(
                f"{where}, row {row}: a list of words is needed, not {columns[task.columns[0]][row - 1]!r}"
            )
    return rows


def _as_list(cell) -> list:
    """A list of a jsonl or parquet file as it is; in a tsv or csv, what stands between spaces."""
    if isinstance(cell, str):
        return cell.split()
    return list(cell) if isinstance(cell, list | tuple | np.ndarray) else []


def _number(value, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise InputError(f"{where}: the label {value!r} is not a number, which this task needs")
    return number


def split(all_examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """(training, held out): `share` of the examples held out at random, texts that occur twice kept on one side."""
    if not 0 < share < 1:
        raise InputError(f"the held-out share must lie between 0 and 1, not {share!r}")
    groups: dict = {}
    for i, text in enumerate(all_examples.texts):
        groups.setdefault(tuple(text), []).append(i)
    order = list(groups.values())
    np.random.default_rng(seed).shuffle(order)
    held, wanted = [], max(1, round(share * len(all_examples)))
    while order and len(held) < wanted:
        held += order.pop()
    if not order:
        raise InputError("there are too few different texts to hold some out; give more, or a held-out file")
    return all_examples.take(sorted(i for group in order for i in group)), all_examples.take(sorted(held))


def label_names(train: Examples, held_out: Examples, task: Task) -> tuple[str, ...]:
    """The classes of the training part, sorted; a number has one nameless label.

    Raises `InputError` for one class only, and for a held-out label that training never saw.
    """
    if task.form == "number":
        return (task.label,)
    flat = [
        [str(label) for a in part.answers for label in (a if task.form == "words" else [a])]
        for part in (train, held_out)
    ]
    known = Counter(flat[0])
    if len(known) < 2:
        raise InputError(f"all training labels are {next(iter(known))!r}; a classifier needs two classes or more")
    unknown = sorted(set(flat[1]) - set(known))
    if unknown:
        raise InputError(
            f"the held-out label {unknown[0]!r} does not occur in training ({', '.join(sorted(known)[:8])}); "
            "add examples of it, or leave it out"
        )
    return tuple(sorted(known, key=lambda name: (len(name), name) if name.isdigit() else (0, name)))
