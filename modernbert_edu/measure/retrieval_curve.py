"""How much training a small retriever needs to pass BM25: quality against training pairs, from random weights.

BERT and a ModernBERT of as many parameters see the same pairs in the same order. Both compute without pads, which
changes no result: what is compared is quality by training pairs, not time. A finished run is kept, so a stopped
measurement goes on; the records of each model and seed lie in a file of their own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..beginning import new_model
from ..classroom.scale.search import SearchScale
from ..config import EncoderConfig
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from ..retriever import Embedder
from ..runtime import describe_device, device_slug, prepare_output_folder, provenance, read_jsonl, write_jsonl
from ..tasks.contrastive import train_retriever
from ..tasks.default_model import contrastive_settings
from . import plots
from .finished import finished_runs, keep_run
from .headline import reached
from .retrieval import LibraryData, judge_by_words, judging, learn_tokenizer, library_data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "retrieval"
MODELS = ("BERT", "ModernBERT")
METRIC = "mrr@10"
TASKS = {"code": "Docstring to function", "prose": "First sentence to the rest"}


def load_data(sizes: SearchScale) -> LibraryData:
    return library_data(
        per_package=sizes.per_package, trained_per_package=sizes.trained_per_package,
        modules_per_package=sizes.modules_per_package, queries=sizes.queries,
        held_out_share=sizes.held_out_share, installed=sizes.installed, seed=sizes.seed,
    )  # fmt: skip


def run_curve(
    data: LibraryData, sizes: SearchScale, device: torch.device, out: Path, models: Sequence[str], seeds: Sequence[int],
    deadline: float | None = None, anew: bool = False,
) -> list[dict]:  # fmt: skip
    """The records of all runs of these models and seeds, and BM25's on the same questions.

    A finished run is found again in `out`, unless `anew`. Raises `Paused` where a run would last beyond `deadline`
    (time.monotonic); its state is kept in `out`, and gone on from, `anew` or not.
    """
    path = prepare_output_folder(out) / f"{NAME}.jsonl"
    done = [] if anew else finished_runs(path)
    facts = dict(questions=_digest(data))
    records = []
    for name in TASKS:
        task = data.tasks[name]
        found = judge_by_words(task)
        more = {**provenance(device), **facts, "model": "BM25", "task": name, "queries": len(task.queries)}
        records += [dict(what=metric, value=value, unit="share", **more) for metric, value in found.items()]
        print(f"BM25, {TASKS[name].lower()}: {METRIC} {found[METRIC]:.3f}", flush=True)
    tokenizer = learn_tokenizer(data, sizes.vocab_size, sizes.tokenizer_characters, sizes.seed)
    for name in models:
        for seed in seeds:
            records += _run(name, seed, data, tokenizer, sizes, device, path, done, deadline, facts)
    return records


def _run(
    name: str, seed: int, data: LibraryData, tokenizer: Tokenizer, sizes: SearchScale, device, path: Path, done,
    deadline, more,
) -> list[dict]:  # fmt: skip
    bert = name == "BERT"
    preset, rate = (sizes.bert_preset, sizes.bert_rate) if bert else (sizes.modernbert_preset, sizes.modernbert_rate)
    settings = contrastive_settings(sizes, rate, sizes.steps, seed)
    lm = new_model(preset, tokenizer, seed, like=sizes.bert_preset, unpad=True)
    config: EncoderConfig = lm.config
    facts = dict(config=config.identity(), settings=vars(settings), tokenizer=tokenizer.fingerprint, dtype=sizes.dtype,
                 device=describe_device(device), torch=torch.__version__, **more)  # fmt: skip
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    found = [record for record in done if record.get("run") == key]
    if found:
        return found
    # Texts are judged at the length that was trained: a longer one would be another experiment.
    model = Embedder.from_pretrained(lm, tokenizer, max_length=sizes.document_length)
    run = train_retriever(
        model, data.train, settings, device=device, dtype=getattr(torch, sizes.dtype), label=name,
        evaluate=judging(data, tuple(TASKS)), eval_every=max(1, sizes.steps // sizes.evaluations),
        out=path.parent / f"{NAME}-{key}", deadline=deadline,
    )  # fmt: skip
    # What it was measured on goes into the rows now: whoever reads them later may have another torch.
    more = {**provenance(device), **more, "run": key, "learning_rate": rate, "parameters": config.num_parameters(),
            "train_pairs": len(data.train)}  # fmt: skip
    records = []
    for record in run.history:
        if record["what"] != "train_loss":
            task, _, metric = record["what"].partition(" ")
            records.append({**record, **more, "what": metric, "task": task})
    records = keep_run(path, records)
    shutil.rmtree(path.parent / f"{NAME}-{key}", ignore_errors=True)  # the state to go on from
    ends = ", ".join(f"{task} {curve(records, name, task)[0][-1][1]:.3f}" for task in TASKS)
    print(f"{name}, seed {seed}: {METRIC} {ends}; {run.pairs:,} pairs in {run.seconds:.0f} s", flush=True)
    return records


def _digest(data: LibraryData) -> str:
    """What is trained on and asked, in 16 hex digits: another set of installed packages gives another."""
    digest = hashlib.sha256()
    for pair in data.train:
        digest.update(f"{len(pair.query)}:{pair.query}{len(pair.document)}:{pair.document}".encode())
    for name in TASKS:
        digest.update(json.dumps([data.tasks[name].queries, data.tasks[name].documents]).encode())
    return digest.hexdigest()[:16]


# ---- what follows from the records -----------------------------------------------------------------------------------


def curve(records: Sequence[dict], model: str, task: str, axis: str = "pairs") -> list[list[tuple[float, float]]]:
    """For each run of a model, the points (pairs or seconds, MRR@10)."""
    runs: dict[str, list[tuple[float, float]]] = {}
    for r in records:
        if (r["model"], r["task"], r["what"]) == (model, task, METRIC):
            runs.setdefault(r["run"], []).append((r[axis], r["value"]))
    return list(runs.values())


def words(records: Sequence[dict], task: str) -> float:
    """BM25's value."""
    return next(r["value"] for r in records if (r["model"], r["task"], r["what"]) == ("BM25", task, METRIC))


def passed(points: Sequence[tuple[float, float]], goal: float) -> float | None:
    """Where a curve first comes up to `goal`, on straight lines between its points; None where it never does."""
    # `reached` looks for where a loss comes down; turned upside down, a share that comes up is one.
    return reached([dict(value=-y, x=x) for x, y in points], -goal, "x")


def describe(records: Sequence[dict], task: str = "code") -> str:
    """Who passes BM25, and after how many pairs, in one sentence, whatever it turned out to be."""
    goal, parts = words(records, task), []
    for model in MODELS:
        runs = curve(records, model, task)
        if not runs:
            continue
        places = [passed(points, goal) for points in runs]
        ends = np.mean([points[-1][1] for points in runs])
        if all(place is not None for place in places):
            parts.append(f"{model} passes it after {np.mean(places):,.0f} pairs and ends at {ends:.3f}")
        else:
            there = sum(place is not None for place in places)
            parts.append(f"{model} ends at {ends:.3f} ({there} of {len(places)} runs pass it)")
    return f"{TASKS[task]}: BM25 has {METRIC} {goal:.3f}; " + ", ".join(parts)


@plots.style()
def plot_curve(records: Sequence[dict]) -> Figure:
    """MRR@10 against training pairs, a panel a task, a line a seed; BM25, which needs none, is level."""
    if not any(curve(records, model, "code") for model in MODELS):
        raise InputError("the figure needs a finished run; measure one with `search compare`")
    figure = plots.new_figure(9.6, 4.4)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.86, bottom=0.2, wspace=0.2)
    for place, (task, title) in enumerate(TASKS.items(), start=1):
        ax = figure.add_subplot(1, 2, place)
        for model in MODELS:
            runs = curve(records, model, task)
            for i, points in enumerate(runs):
                style = plots.line_style(records, model) | dict(markersize=4, alpha=0.8)
                ax.plot(
                    *zip(*points, strict=True),
                    label=f"{model}, {len(runs)} {'seed' if len(runs) == 1 else 'seeds'}" if i == 0 else None,
                    **style,
                )
        goal = words(records, task)
        ax.axhline(goal, color="black", linewidth=1.2, linestyle=(0, (1, 2)), label=f"BM25, {goal:.2f}")
        ax.set_xlabel("training pairs")
        ax.set_ylabel("MRR@10")
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        ax.locator_params(axis="x", nbins=5)
        queries = next(r["queries"] for r in records if r["model"] == "BM25" and r["task"] == task)
        ax.set_title(f"{title}, {queries:,} questions")
    for ax in figure.axes:
        ax.legend(loc="lower right")
    return plots.finish(figure, [r for r in records if r["model"] != "BM25"], True)


def file_of(model: str, seed: int | str, scale: str) -> str:
    return f"{NAME}-{model.lower()}-{seed}-{scale}.jsonl"


def keep_and_draw(records: Sequence[dict], scale: str, device: torch.device, figures: Path) -> list[Path]:
    """Write each run's records beside BM25's, and draw what is kept: -> files. A row's own facts are not replaced."""
    facts = provenance(device, scale=scale)
    folder = Path(figures) / "measurements" / device_slug(device)
    written = []
    for run in dict.fromkeys((r["model"], r["seed"]) for r in records if r["model"] != "BM25"):
        written.append(folder / file_of(*run, scale))
        own = [{**facts, **r} for r in records if r["model"] == "BM25" or (r["model"], r["seed"]) == run]
        write_jsonl(written[-1], own)
    return [*written, *redraw(figures)]


def kept(figures: str | Path = "figures") -> list[dict]:
    """The best records that are kept, of one device at one scale: the newest run, and all that fit it; else []."""
    for scale in ("gpu", "laptop", "quick"):
        for folder in sorted((Path(figures) / "measurements").glob("*")):
            found = [read_jsonl(path) for model in MODELS for path in sorted(folder.glob(file_of(model, "*", scale)))]
            if found:
                newest = max(found, key=lambda records: max(r.get("date", "") for r in records))
                return [record for records in found if _fits(records, newest) for record in records]
    return []


def _fits(records: Sequence[dict], newest: Sequence[dict]) -> bool:
    """Whether two files were measured on the same questions, which installed packages decide, with the same torch.

    Files of before the questions' digest was kept are told apart by BM25's value alone.
    """
    digests = {r["questions"] for r in (*records, *newest) if "questions" in r}
    return len(digests) < 2 and _words_and_torch(records) == _words_and_torch(newest)


def _words_and_torch(records: Sequence[dict]) -> tuple[float, str | None]:
    return words(records, "code"), next((r.get("torch") for r in records if r["model"] != "BM25"), None)


def redraw(figures: str | Path = "figures") -> list[Path]:
    """The figure again, from what is kept."""
    records = kept(figures)
    return [plots.save(plot_curve(records), Path(figures) / f"{NAME}.png")] if records else []
