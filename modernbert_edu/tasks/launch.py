"""What `finetune` does: a model's name, a task and a table -> a folder with the classifier and what it reached."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..checkpoint import Model, load, save
from ..classifier import SequenceClassifier, TokenClassifier
from ..errors import InputError
from ..model import PredictionHead
from ..runtime import default_dtype, prepare_output_folder, provenance, write_text_atomic
from .finetune import FineTuned, Settings, check_model, finetune, repeated
from .forms import GLUE, Task, find_task
from .glue_paper import quoted
from .table import read_file, read_hub, split

HELD_OUT = 0.1  # of a table that comes without a held-out part


def run_finetune(
    model_name: str, task_name: str, out: str | Path, *, data=None, held_out=None, columns=None, label=None,
    metrics=None, rates=None, seeds: int = 1, device: torch.device, **settings,
) -> list[dict]:  # fmt: skip
    """Every run's record; the best run's model is saved in `out`. Raises `InputError` for bad input of any kind."""
    task = find_task(task_name, columns, label, metrics)
    base = Settings.for_task(task, **{k: v for k, v in settings.items() if v is not None})
    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {seeds}")
    if data is None and (task.name not in GLUE or held_out is not None):
        raise InputError(f"task {task.name!r} needs a table: give --data FILE")
    train, test = _examples(task, data, held_out, base.seed)
    pretrained, tokenizer = load(model_name)
    check_model(pretrained, tokenizer, model_name)
    if isinstance(pretrained, SequenceClassifier | TokenClassifier):
        print(describe_start(pretrained, model_name, task), flush=True)
    if isinstance(pretrained, SequenceClassifier) and settings.get("pooling") is None:
        base = replace(base, pooling=pretrained.pooling)
    out = prepare_output_folder(out)
    dtype = default_dtype(device)[0] if device.type == "cuda" else torch.float32
    print(
        f"{task.name}: {len(train):,} examples to train on, {len(test):,} held out; {describe(base, rates)}", flush=True
    )

    runs: list[FineTuned] = []
    for rate in rates or [base.rate]:
        for one in repeated(Settings(**{**vars(base), "rate": rate}), seeds):
            run = finetune(pretrained, tokenizer, task, train, test, one, device=device, dtype=dtype, label=task.name)
            runs.append(run)
            numbers = ", ".join(f"{name} {value:.3f}" for name, value in run.metrics.items())
            print(
                f"rate {rate:g}, seed {one.seed}: {numbers}; {run.seconds:.0f} s, "
                f"{run.examples_per_second:,.0f} {'windows' if one.long == 'windows' else 'examples'}/s",
                flush=True,
            )
    first = task.metrics[0]
    best = max(runs, key=lambda run: run.metrics[first])
    for line in describe_lengths(best, len(train), len(test), pretrained.config.max_position_embeddings):
        print(line)
    if len(runs) > 1:
        scores = [run.metrics[first] for run in runs if run.settings.rate == best.settings.rate]
        print(
            f"best: rate {best.settings.rate:g}, {first} {np.mean(scores):.3f} +- {np.std(scores):.3f}, "
            f"{len(scores)} seeds; chosen on the held-out part, so a little too good"
        )
    if line := quoted(task.name):
        print(line)
    save(best.model, tokenizer, out)
    facts = provenance(device, task=task.name, examples=len(train), held_out=len(test))
    records = [
        {
            **facts,
            **vars(run.settings),
            "what": name,
            "value": value,
            "unit": "share",
            "seconds": run.seconds,
            "kept": run is best,
        }
        for run in runs
        for name, value in run.metrics.items()
    ]
    write_text_atomic(out / "results.json", json.dumps(records, indent=1) + "\n")
    print(f"kept: {out}")
    return records


def _examples(task, data, held_out, seed: int):
    if data is None:
        return read_hub(task)
    if held_out is None:
        return split(read_file(data, task), HELD_OUT, seed)
    return read_file(data, task), read_file(held_out, task)


def describe(settings: Settings, rates) -> str:
    tried = ", ".join(f"{rate:g}" for rate in rates) if rates else f"{settings.rate:g}"
    return (f"learning rate {tried}, {settings.epochs} epochs of batches of {settings.batch_size}, "
            f"{settings.pooling} pooling")  # fmt: skip


def describe_start(model: Model, name: str, task: Task) -> str:
    """What of a classifier is kept: its encoder, and its head where the new classifier has the same."""
    same = isinstance(model, SequenceClassifier) and task.form != "words"  # BERT's two kinds have different heads
    kept = "encoder and head are" if same or isinstance(model.head, PredictionHead) else "encoder is"
    labels = ", ".join(model.labels[:8]) + (", ..." if len(model.labels) > 8 else "")
    return f"{name} is a classifier ({labels}): its {kept} kept, the last layer begins anew"


def describe_lengths(run: FineTuned, train: int, held_out: int, model_length: int) -> list[str]:
    """What became of texts that are longer than the model takes; nothing where there were none."""
    longest = run.settings.max_length or model_length
    lines = []
    if any(texts for texts, _ in run.windows):
        (a, windows_a), (b, windows_b) = run.windows
        lines.append(f"windows of {longest:,} tokens: {a:,} of {train:,} training texts in {windows_a:,} windows, "
                     f"{b:,} of {held_out:,} held out in {windows_b:,}")  # fmt: skip
    if sum(run.cut):
        lines.append(f"cut to {longest:,} tokens: {run.cut[0]:,} of {train:,} training texts, "
                     f"{run.cut[1]:,} of {held_out:,} held out")  # fmt: skip
    return lines
