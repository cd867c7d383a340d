"""The headline: how many tokens and seconds ModernBERT needs to come to the held-out loss at which BERT ends best.

Same text, same tokenizer, same device, equal parameters; each by its own recipe (BERT: pads, 15 % masked, next
sentence, AdamW, linear decay; ModernBERT: packed, 30 %, StableAdamW, warmup-stable-decay), each at the best of a few
learning rates, from several seeds. Both are judged on the same held-out sequences with the same 15 % masked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..classroom.scale.headline import HeadlineScale
from ..config import EncoderConfig
from ..data.prepared import TextData
from ..errors import InputError
from ..model import MaskedLM
from ..runtime import (
    describe_device,
    device_slug,
    prepare_output_folder,
    progress,
    provenance,
    read_jsonl,
    seed_everything,
    write_jsonl,
)
from ..training.recipe import Recipe
from ..training.runs import pretrain
from ..training.schedule import step_sizes
from . import plots
from .finished import finished_runs, keep_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "headline"
MODELS = {"BERT": "bert-2018", "ModernBERT": "modernbert"}


def setup(name: str, rate: float, sizes: HeadlineScale, vocab_size: int) -> tuple[EncoderConfig, Recipe]:
    """One model's configuration and recipe at these sizes; ModernBERT gets as many parameters as BERT has."""
    published = Recipe.preset(MODELS[name])
    per_step = sizes.batch_size * sizes.sequence_length
    recipe = published.shrunk(
        tokens=sizes.steps * per_step,
        length=sizes.sequence_length,
        tokens_per_step=per_step,
        microbatch_tokens=sizes.microbatch_size * sizes.sequence_length,
        learning_rate=rate,
    )
    bert = EncoderConfig.preset(sizes.bert_preset, vocab_size=vocab_size)
    if name == "BERT":
        return bert, recipe
    config = EncoderConfig.preset(sizes.modernbert_preset, vocab_size=vocab_size)
    config = config.replace(global_rope_theta=recipe.global_rope_theta, max_position_embeddings=sizes.sequence_length)
    return config.matched_to(bert, tolerance=0.01), recipe


def run_headline(
    data: TextData, sizes: HeadlineScale, device: torch.device, out: Path, models: Sequence[str] = tuple(MODELS),
    anew: bool = False,
) -> list[dict]:  # fmt: skip
    """The records of all runs of these models. A finished run is kept in `out`: a stopped measurement goes on.

    `anew` trains also what is kept there.
    """
    path = prepare_output_folder(out) / f"{NAME}.jsonl"
    done = [] if anew else finished_runs(path)
    total = _steps(sizes, models)
    records: list[dict] = []
    with progress(total=total, desc=NAME, unit="step") as bar:
        for name in models:
            trials = [_run(name, rate, sizes.seeds[0], data, sizes, device, path, done, bar) for rate in sizes.rates]
            best = min(range(len(trials)), key=lambda i: final_loss(trials[i]))
            rate = sizes.rates[best]
            others = [_run(name, rate, seed, data, sizes, device, path, done, bar) for seed in sizes.seeds[1:]]
            print(f"{name}: best rate {rate:g} of {', '.join(f'{r:g}' for r in sizes.rates)}", flush=True)
            for i, run in enumerate([*trials, *others]):
                chosen = i == best or i >= len(trials)
                records += [{**record, "chosen": chosen} for record in run]
    return records


def _steps(sizes: HeadlineScale, models: Sequence[str]) -> int:
    runs = len(sizes.rates) + len(sizes.seeds) - 1
    recipes = [setup(name, sizes.rates[0], sizes, sizes.vocab_size)[1] for name in models]
    return runs * sum(len(list(step_sizes(recipe))) for recipe in recipes)


def _run(name, rate, seed, data, sizes, device, path, done, bar) -> list[dict]:
    config, recipe = setup(name, rate, sizes, data.tokenizer.vocab_size)
    facts = dict(config=config.identity(), recipe=recipe.to_dict(), seed=seed, corpus=data.corpus.fingerprint,
                 tokenizer=data.tokenizer.fingerprint, dtype=sizes.dtype, device=describe_device(device),
                 torch=torch.__version__)  # fmt: skip
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    found = [record for record in done if record.get("run") == key]
    steps = len(list(step_sizes(recipe)))
    if found:
        bar.update(steps)
        return found
    seed_everything(seed)
    model = MaskedLM(config)
    run = pretrain(model, recipe, data, seed=seed, device=device, dtype=getattr(torch, sizes.dtype), label=name,
                   eval_every=max(1, steps // sizes.evaluations), bar=bar)  # fmt: skip
    # What it was measured on goes into the rows now: whoever reads them later may have another torch.
    more = {**provenance(device), "run": key, "learning_rate": rate, "parameters": config.num_parameters(),
            "unigram_entropy": data.unigram_entropy, "corpus": data.corpus.fingerprint}  # fmt: skip
    return keep_run(path, [{**r, **more} for r in run.history if r["what"] == "held_out_loss"])


# ---- what follows from the records -----------------------------------------------------------------------------------


def final_loss(records: Sequence[dict]) -> float:
    return records[-1]["value"]


def chosen_runs(records: Sequence[dict], model: str) -> list[list[dict]]:
    """The curves of a model at its best learning rate, one for each seed."""
    runs: dict[str, list[dict]] = {}
    for record in records:
        if record["model"] == model and record["chosen"] and record["what"] == "held_out_loss":
            runs.setdefault(record["run"], []).append(record)
    return list(runs.values())


def reached(run: Sequence[dict], loss: float, axis: str = "tokens") -> float | None:
    """Where a curve first comes down to `loss`, on straight lines between its points; None where it never does."""
    if run[0]["value"] <= loss:
        return float(run[0][axis])
    for before, after in zip(run, run[1:], strict=False):
        if after["value"] <= loss:
            share = (before["value"] - loss) / (before["value"] - after["value"])
            return before[axis] + share * (after[axis] - before[axis])
    return None


def summary(records: Sequence[dict]) -> dict:
    """The lowest loss at which a BERT seed ends, and what each side spent on it: every seed's own, and the ratio.

    The lowest and not the mean: a BERT seed that never leaves the plateau must not make the goal easier.

    `modernbert` holds None for a seed that never comes so low.
    """
    berts, moderns = chosen_runs(records, "BERT"), chosen_runs(records, "ModernBERT")
    if not berts or not moderns:
        raise InputError("the headline needs finished runs of both models; measure it with the verb headline")
    target = min(final_loss(run) for run in berts)
    result = dict(loss=target, bert_losses=[final_loss(run) for run in berts],
                  modernbert_losses=[final_loss(run) for run in moderns])  # fmt: skip
    for axis in ("tokens", "seconds"):
        spent = [run[-1][axis] for run in berts]
        needed = [reached(run, target, axis) for run in moderns]
        there = [value for value in needed if value is not None]
        ratio = float(np.mean(spent) / np.mean(there)) if len(there) == len(needed) else None
        result[axis] = dict(bert=spent, modernbert=needed, ratio=ratio)
    return result


def describe(records: Sequence[dict]) -> str:
    """The summary in one sentence, whatever it turned out to be."""
    s = summary(records)
    if s["tokens"]["ratio"] is None:
        missing = sum(value is None for value in s["tokens"]["modernbert"])
        runs = f"{missing} of {len(s['modernbert_losses'])} ModernBERT runs"
        return f"BERT's best seed ends at {s['loss']:.2f} nats; {runs} never do"
    parts = [f"{np.mean(s[axis]['modernbert']):,.0f} {axis} where BERT spent {np.mean(s[axis]['bert']):,.0f}, "
             f"{s[axis]['ratio']:.1f} times as many" for axis in ("tokens", "seconds")]  # fmt: skip
    goal = f"to come to the {s['loss']:.2f} nats at which BERT's best seed ends"
    return f"{goal}, ModernBERT needs {', and '.join(parts)}"


def _words(ratio: float | None, axis: str) -> str:
    if ratio is None:
        return "not every seed comes to BERT's end"
    slower, times = ("BERT", ratio) if ratio >= 1 else ("ModernBERT", 1 / ratio)
    return f"{slower} takes {times:.1f} times the {axis}"


@plots.style()
def plot_headline(records: Sequence[dict]) -> Figure:
    """Held-out loss against tokens and against seconds, a line a seed; ticks where ModernBERT passes BERT's end."""
    s = summary(records)
    figure = plots.new_figure(9.6, 4.6)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.84, bottom=0.2, wspace=0.18)
    for place, name in enumerate(("tokens", "seconds"), start=1):
        ax = figure.add_subplot(1, 2, place)
        for model in MODELS:
            runs = chosen_runs(records, model)
            for i, run in enumerate(runs):
                style = plots.line_style(records, model) | dict(markersize=3.5, alpha=0.75)
                label = f"{model}, {len(runs)} seeds" if i == 0 else None
                ax.plot([r[name] for r in run], [r["value"] for r in run], label=label, **style)
        end = f"BERT's best end, {s['loss']:.2f}"
        ax.axhline(s["loss"], color=plots.FAINT, linewidth=1, linestyle=(0, (2, 2)), label=end)
        passed = [value for value in s[name]["modernbert"] if value is not None]
        ax.plot(
            passed, [s["loss"]] * len(passed), "k|", markersize=14, markeredgewidth=1.8, label="ModernBERT passes it"
        )
        ax.set_xlim(left=0)
        ax.locator_params(axis="x", nbins=5)
        plots.finish_learning(ax, "held_out_loss", name, "nats")
        ratio = s[name]["ratio"]
        ax.set_title(_words(ratio, name))
    figure.axes[0].legend(loc="lower left")
    figure.suptitle(f"What ModernBERT needs to come to where BERT's best seed ends, {s['loss']:.2f} nats")
    return plots.finish(figure, records, True)


def file_of(model: str, scale: str) -> str:
    return f"{NAME}-{model.lower()}-{scale}.jsonl"


def keep_and_draw(records: Sequence[dict], scale: str, device: torch.device, figures: Path) -> list[Path]:
    """Write each model's records, whose own facts stay; where both models' are kept, draw the figure: -> files."""
    facts = provenance(device, scale=scale)
    folder = Path(figures) / "measurements" / device_slug(device)
    written = []
    for model in dict.fromkeys(record["model"] for record in records):
        written.append(folder / file_of(model, scale))
        write_jsonl(written[-1], [{**facts, **record} for record in records if record["model"] == model])
    return [*written, *redraw(figures)]


def redraw(figures: str | Path = "figures") -> list[Path]:
    """The figure again, where both models' records are kept."""
    both = kept(figures)
    return [plots.save(plot_headline(both), Path(figures) / f"{NAME}.png")] if both else []


def kept(figures: str | Path = "figures") -> list[dict]:
    """The best records that are kept of both models, measured on one device, at one scale, with one torch; else []."""
    for scale in ("gpu", "laptop", "quick"):
        for path in sorted((Path(figures) / "measurements").glob(f"*/{file_of('BERT', scale)}")):
            other = path.with_name(file_of("ModernBERT", scale))
            if not other.exists():
                continue
            records = read_jsonl(path) + read_jsonl(other)
            if len({r.get("torch") for r in records}) == 1:
                return records
    return []
