"""What 13_head_to_head measures, and its figures.

    DeBERTa    relative_places, disentangled_scores   its attention, and transformers' to compare with
    front      pareto_front                           which points no other one beats
    cost       measure_cost                           five small encoders: speed by batch, memory by length
    quality    train_models, measure_trained          three models, one loop, one budget
    ladder     ladder_steps                           each step's share of the way from BERT to ModernBERT
    evidence   head_to_head_records.py                what is recorded elsewhere: base size, claims, losses, choices

Letters: B batch, S padded length, T tokens, H heads, K head size, R relative places, V vocabulary, M masked tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..classroom.scale import HeadToHeadScale
from ..config import EncoderConfig
from ..data.prepared import TextData
from ..measure import plots
from ..measure.ablation import paired_differences
from ..measure.bench_cases import Case, make_batch
from ..measure.memory import training_memory
from ..measure.peers import PeerLM, build_peer, deberta_like, ours_like, transformers_module
from ..measure.speed import (
    Timing,
    forward_call,
    time_interleaved,
    tokens_per_second,
    tokens_per_second_spread,
    training_call,
)
from ..model import MaskedLM
from ..runtime import progress
from ..training.pretrain import autocast, masked_batch, train_mlm
from .shared import side_of_zero, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BERT, ROBERTA, DEBERTA, MODERN = "BERT", "RoBERTa", "DeBERTaV3", "ModernBERT"
THEIRS, STYLE = "ModernBERT, transformers", "DeBERTa-style"  # the second: its architecture, trained as BERT is
LOOKS = {
    BERT: plots.STYLES[BERT],
    ROBERTA: plots.MORE_STYLES[2],
    DEBERTA: plots.MORE_STYLES[1],
    STYLE: plots.MORE_STYLES[1],
    THEIRS: plots.MORE_STYLES[0],
    MODERN: plots.STYLES[MODERN],
}
TINY_VOCABULARY = 4096  # of the `tiny` peers


# ---- DeBERTa's attention ---------------------------------------------------------------------------------------------


def relative_places(tokens: int, buckets: int, longest: int) -> Tensor:
    """(T, T): the row of the relative table for query i and key j; `buckets` rows on each side of distance 0.

    Distances up to half the buckets have a row each, larger ones share rows by their logarithm up to `longest`
    (DeBERTaV2's code; He et al. 2021, arXiv 2006.03654, has one row a distance).
    """
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)[None, :]
    middle = buckets // 2
    far = distance.abs().clamp(min=middle)
    share = torch.log(far / middle) / torch.log(torch.tensor((longest - 1) / middle))
    bucket = torch.ceil(share * (middle - 1)).long() + middle
    signed = torch.where(distance.abs() <= middle, distance, bucket * distance.sign())
    return (signed + buckets).clamp(0, 2 * buckets - 1)


def disentangled_scores(q_HTK: Tensor, k_HTK: Tensor, pq_HRK: Tensor, pk_HRK: Tensor, place_TT: Tensor) -> Tensor:
    """(3, H, T, T): content to content, content to position, position to content, each divided by sqrt(3 K).

    `pq` and `pk` are the query and the key of each row of the relative table. (He et al. 2021, equation 4; which row
    the third term takes is as in the published code.)
    """
    H, T, K = q_HTK.shape
    place_HTT = place_TT.expand(H, T, T)
    content = q_HTK @ k_HTK.mT
    to_position = (q_HTK @ pk_HRK.mT).gather(2, place_HTT)
    from_position = (k_HTK @ pq_HRK.mT).gather(2, place_HTT.mT).mT
    return torch.stack([content, to_position, from_position]) / math.sqrt(3 * K)


def their_attention(hidden: int, heads: int, buckets: int, longest: int, seed: int = 0) -> nn.Module:
    """transformers' disentangled attention of one layer, as DeBERTaV3 has it, with random weights, in eval mode."""
    t = transformers_module()
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

    torch.manual_seed(seed)
    config = t.DebertaV2Config(
        hidden_size=hidden, num_attention_heads=heads, relative_attention=True, pos_att_type=["p2c", "c2p"],
        position_buckets=buckets, share_att_key=True, max_relative_positions=longest,
    )  # fmt: skip
    return DisentangledSelfAttention(config).eval()


@plots.style()
def picture_terms(scores_3TT: Tensor, tokens: Sequence[str]) -> Figure:
    """The three terms of the scores and what the softmax makes of their sum, for one head."""
    weights = scores_3TT.sum(dim=0).softmax(dim=-1)
    titles = ("content to content", "content to position", "position to content", "weights: softmax of the sum")
    figure, axes = plots.panels(11.5, 3.4, 4)
    highest = scores_3TT.abs().max().item()
    for ax, title, values in zip(axes, titles, (*scores_3TT, weights), strict=True):
        low, high = (0, 1) if title.startswith("weights") else (-highest, highest)
        ax.imshow(values.numpy(), cmap="Greys", vmin=low, vmax=1.4 * high)
        plots.frame_image(ax)
        for row, line in enumerate(values.tolist()):
            for column, value in enumerate(line):
                color = "white" if value > 0.55 * high else "black"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
        ax.set(xticks=range(len(tokens)), yticks=range(len(tokens)), xlabel="key", ylabel="query", title=title)
        ax.set_xticklabels(tokens)
        ax.set_yticklabels(tokens)
    return figure


# ---- the front -------------------------------------------------------------------------------------------------------


def pareto_front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Which points no other one beats, less being better in every number: -> a flag for each point.

    A point beats another if it is nowhere worse and somewhere better; so equal points do not beat each other.
    """

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)

    return [not any(beats(other, point) for other in points) for point in points]


@plots.style()
def picture_front(points: Sequence[Sequence[float]], names: Sequence[str]) -> Figure:
    """Toy points and their front; the grey areas are what each point of the front beats."""
    from matplotlib.patches import Rectangle

    figure, (ax,) = plots.panels(4.8, 3.6, 1)
    right, top = (1.15 * max(p[i] for p in points) for i in (0, 1))
    for (x, y), name, kept in zip(points, names, pareto_front(points), strict=True):
        if kept:
            ax.add_patch(Rectangle((x, y), right - x, top - y, color="#888888", alpha=0.18, linewidth=0))
        ax.plot(x, y, "ko", markerfacecolor="black" if kept else "white", markersize=8)
        ax.annotate(name, (x, y), xytext=(7, 6), textcoords="offset points")
    ax.set(xlim=(0, right), ylim=(0, top), xlabel="cost (s), less is better", ylabel="loss (nats), less is better")
    ax.set_title(f"{sum(pareto_front(points))} of {len(points)} points are on the front (filled)")
    return figure


# ---- cost: five small encoders ---------------------------------------------------------------------------------------


def small_encoders(sizes: HeadToHeadScale, device: torch.device) -> dict[str, nn.Module]:
    """The encoders at the `tiny` size, random weights; ours shares none with transformers' but has the same values."""
    peers = {name: build_peer(key, "tiny", sizes.seed) for name, key in
             ((BERT, "bert"), (ROBERTA, "roberta"), (DEBERTA, "deberta"), (THEIRS, "modernbert"))}  # fmt: skip
    models = {name: PeerLM(peer) for name, peer in peers.items()} | {MODERN: ours_like(peers[THEIRS])}
    return {name: model.to(device) for name, model in models.items()}


def timed_cases(sizes: HeadToHeadScale) -> list[Case]:
    """Full batches of about equally many tokens at each length, and one batch of mixed lengths."""
    full = [Case("inference", "fixed", n, max(1, sizes.timed_tokens // n), sizes.seed) for n in sizes.timed_lengths]
    return [*full, Case("inference", "variable", sizes.timed_lengths[-1], sizes.mixed_sequences, sizes.seed)]


def measure_cost(sizes: HeadToHeadScale, device: torch.device) -> list[dict]:
    """Real tokens a second, forward and of a training step, in turns; memory of a training step by length."""
    models, dtype, records = small_encoders(sizes, device), getattr(torch, sizes.dtype), []
    for case in progress(timed_cases(sizes), desc="speed", unit="batch"):
        for what, calls in _calls(models, make_batch(case, TINY_VOCABULARY, device)).items():
            with autocast(device, dtype):
                timings = time_interleaved(calls, device=device, repeats=sizes.timing_repeats, warmup=1)
            records += [_speed(what, name, case, timing) for name, timing in timings.items()]
    for length in progress(sizes.lengths, desc="memory", unit="length"):
        batch = make_batch(Case("training", "fixed", length, 1, sizes.seed), TINY_VOCABULARY, device)
        for name, model in models.items():
            with autocast(device, dtype):
                memory = training_memory(model, *batch)
            records.append(dict(what="train_memory_bytes", value=memory.bytes, unit="bytes", how=memory.how,
                                model=name, batch="one sequence", length=length))  # fmt: skip
    return records


def _calls(models: dict[str, nn.Module], batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, dict[str, Callable]]:
    ids, mask, labels = batch
    return {
        "forward_tokens_per_second": {name: forward_call(model, ids, mask) for name, model in models.items()},
        "step_tokens_per_second": {name: training_call(model, ids, mask, labels) for name, model in models.items()},
    }


def _speed(what: str, name: str, case: Case, timing: Timing) -> dict:
    rate, spread = (f(timing, case.tokens) for f in (tokens_per_second, tokens_per_second_spread))
    batch = "mixed" if case.batch == "variable" else "fixed"
    pads = 1 - case.tokens / (case.sequences * case.length)
    return dict(what=what, value=rate, spread=spread, n=timing.n, unit="tokens/s", model=name, batch=batch,
                length=case.length, sequences=case.sequences, tokens_in_batch=case.tokens, pads=pads)  # fmt: skip


COST_COLUMNS = ("encoder, tiny", "forward: full", "mixed", "mixed / full", "training step: full", "mixed",
                "MiB of a step on the longest text")  # fmt: skip


def cost_rows(records: Sequence[dict]) -> list[tuple]:
    """A line an encoder: real tokens a second with all texts at the longest length and mixed up to it, and memory."""
    found = {(r["what"], r["model"], r["batch"], r["length"]): r["value"] for r in records if "batch" in r}
    longest = max(n for what, _, _, n in found if what == "train_memory_bytes")
    mixed_up_to = max(n for _, _, batch, n in found if batch == "mixed")
    rows = []
    for name in dict.fromkeys(key[1] for key in found):
        speeds = {what: [found[f"{what}_tokens_per_second", name, batch, mixed_up_to] for batch in ("fixed", "mixed")]
                  for what in ("forward", "step")}  # fmt: skip
        memory = found["train_memory_bytes", name, "one sequence", longest] / plots.MIB
        full, mixed = speeds["forward"]
        rows.append((name, f"{full:,.0f}", f"{mixed:,.0f}", f"{mixed / full:.2f}",
                     *(f"{x:,.0f}" for x in speeds["step"]), f"{memory:.1f}"))  # fmt: skip
    return rows


@plots.style()
def plot_cost(records: Sequence[dict]) -> Figure:
    """Speed in each batch, forward and training, and memory by length, of the five small encoders."""
    records = [r for r in records if "batch" in r and r["what"] != "held_out_loss"]
    figure, axes = plots.panels(12.5, 4.4, 3, records)
    figure.get_layout_engine().set(rect=(0, 0.19, 1, 0.81))
    titles = ("Forward pass", "Training step, without optimizer")
    for ax, what, title in zip(axes, ("forward_tokens_per_second", "step_tokens_per_second"), titles, strict=False):
        _speeds(ax, [r for r in records if r["what"] == what])
        ax.set_title(title)
    memory = [r for r in records if r["what"] == "train_memory_bytes"]
    for name in dict.fromkeys(r["model"] for r in memory):
        points = [(r["length"], r["value"] / plots.MIB) for r in memory if r["model"] == name]
        plots.draw_line(axes[2], *zip(*points, strict=True), LOOKS[name])
    axes[2].set_xscale("log", base=2)
    axes[2].set_yscale("log")
    plots.ticks_within_decades(axes[2])
    axes[2].set_xticks(lengths := sorted({r["length"] for r in memory}), [f"{n:,}" for n in lengths])
    axes[2].set(xlabel="tokens of one sequence, log scale", ylabel="MiB, log scale", title="Memory of a training step")
    plots.legend_below(figure, axes[0])
    return figure


def _speeds(ax: Axes, records: Sequence[dict]) -> None:
    """A column for each batch, points side by side: the batches have no order that a line could follow."""
    names = list(dict.fromkeys(r["model"] for r in records))
    batches = list(dict.fromkeys((r["batch"], r["length"]) for r in records))
    for i, name in enumerate(names):
        mine = {(r["batch"], r["length"]): r for r in records if r["model"] == name}
        places = [place + 0.13 * (i - (len(names) - 1) / 2) for place in range(len(batches))]
        look = {**LOOKS[name], **plots.EDGE, "linestyle": "none", "markersize": 8}
        ax.errorbar(places, [mine[b]["value"] for b in batches], yerr=[mine[b]["spread"] / 2 for b in batches],
                    label=name, **look, **plots.BARS)  # fmt: skip
    ax.set_yscale("log")
    plots.ticks_within_decades(ax)
    ax.set_xticks(range(len(batches)), [f"full {n}" if batch == "fixed" else "mixed" for batch, n in batches])
    ax.set(xlabel="batch", ylabel="real tokens per second, log scale")
    ax.grid(False, axis="x")


# ---- quality at one budget -------------------------------------------------------------------------------------------


def configurations(sizes: HeadToHeadScale, data: TextData) -> dict[str, EncoderConfig]:
    """BERT, and ModernBERT with its MLP sized so that both have equally many parameters."""
    vocabulary = dict(vocab_size=data.tokenizer.vocab_size, pad_token_id=data.tokenizer.pad_id)
    bert = EncoderConfig.preset(sizes.bert_preset, **vocabulary)
    return {BERT: bert, MODERN: EncoderConfig.preset(sizes.modernbert_preset, **vocabulary).matched_to(bert)}


def new_model(name: str, sizes: HeadToHeadScale, data: TextData, seed: int) -> nn.Module:
    """One of the three, with random weights as its own library draws them."""
    configs = configurations(sizes, data)
    if name == STYLE:
        return deberta_like(configs[BERT], seed)
    torch.manual_seed(seed)
    return MaskedLM(configs[name])


def rates_of(sizes: HeadToHeadScale) -> dict[str, tuple[float, ...]]:
    return {BERT: sizes.bert_rates, STYLE: sizes.deberta_rates, MODERN: sizes.modernbert_rates}


def train_models(data: TextData, sizes: HeadToHeadScale, device: torch.device) -> tuple[list[dict], dict]:
    """The three models from every seed, each at the best of its rates: -> (records, {name: a trained model}).

    All rates are tried with the first seed. The same seed is the same sequences, order and masks for every model.
    """
    first, *others = sizes.seeds
    total = sizes.steps * sum(len(rates) + len(others) for rates in rates_of(sizes).values())
    records, trained = [], {}
    with progress(total=total, desc="training", unit="step") as bar:
        for name, rates in rates_of(sizes).items():
            tried = [_train(name, rate, first, data, sizes, device, bar) for rate in rates]
            best = min(range(len(rates)), key=lambda i: tried[i][0][-1]["value"])
            trained[name] = tried[best][1]
            for i, (rows, _) in enumerate(tried):
                records += [row | dict(purpose="final" if i == best else "sweep") for row in rows]
            for seed in others:
                rows, _ = _train(name, rates[best], seed, data, sizes, device, bar)
                records += [row | dict(purpose="final") for row in rows]
    return records, trained


def _train(name, rate, seed, data, sizes, device, bar) -> tuple[list[dict], nn.Module]:
    """One training: -> (the held-out losses in the order of the steps, the model)."""
    model = new_model(name, sizes, data, seed)
    run = train_mlm(
        model, data.train, data.held_out, data.tokenizer, steps=sizes.steps, batch_size=sizes.batch_size,
        learning_rate=rate, warmup_steps=max(1, round(sizes.warmup_share * sizes.steps)), mask_rate=sizes.mask_rate,
        seed=seed, eval_every=max(1, sizes.steps // sizes.evaluations), device=device,
        dtype=getattr(torch, sizes.dtype), label=name, bar=bar,
    )  # fmt: skip
    facts = dict(learning_rate=rate, steps=sizes.steps, parameters=sum(p.numel() for p in model.parameters()))
    return [row | facts for row in run.history if row["what"] == "held_out_loss"], model


def measure_trained(models: dict, data: TextData, sizes: HeadToHeadScale, device: torch.device) -> list[dict]:
    """What a training batch keeps in memory, and how fast the models read texts of mixed lengths."""
    dtype, records = getattr(torch, sizes.dtype), []
    generator = torch.Generator().manual_seed(sizes.seed)
    ids, labels, mask = masked_batch(data.train[: sizes.batch_size], data.tokenizer, sizes.mask_rate, generator)
    case = timed_cases(sizes)[-1]
    mixed = make_batch(case, data.tokenizer.vocab_size, device)
    with autocast(device, dtype):
        timings = time_interleaved({name: forward_call(model, *mixed[:2]) for name, model in models.items()},
                                   device=device, repeats=sizes.timing_repeats)  # fmt: skip
        for name, model in models.items():
            memory = training_memory(model, ids.to(device), mask.to(device), labels.to(device))
            records.append(dict(what="trained_memory_bytes", value=memory.bytes, unit="bytes", how=memory.how,
                                model=name, tokens_in_batch=int(mask.sum())))  # fmt: skip
            speed = _speed("trained_tokens_per_second", name, case, timings[name])
            records.append({field: value for field, value in speed.items() if field != "batch"})
    return records


def final_runs(records: Sequence[dict], model: str) -> list[list[dict]]:
    """The held-out losses of a model at its best rate, a list for each seed."""
    runs: dict[int, list[dict]] = {}
    for r in records:
        if r["what"] == "held_out_loss" and r["model"] == model and r.get("purpose") == "final":
            runs.setdefault(r["seed"], []).append(r)
    return list(runs.values())


def loss_at(run: Sequence[dict], seconds: float) -> float | None:
    """The loss after so many seconds of training, on straight lines between what was measured; None after its end."""
    if seconds > run[-1]["seconds"]:
        return None
    for before, after in pairwise(run):
        if seconds <= after["seconds"]:
            share = (seconds - before["seconds"]) / (after["seconds"] - before["seconds"])
            return before["value"] + share * (after["value"] - before["value"])
    return run[-1]["value"]


def summary(records: Sequence[dict]) -> dict[str, dict]:
    """{model: loss, seconds, loss when the first model was done, memory, microseconds a token, rate, parameters}."""
    found = {r["model"]: final_runs(records, r["model"]) for r in records if r["what"] == "held_out_loss"}
    once = {(r["what"], r["model"]): r["value"] for r in records}
    first_done = min(run[-1]["seconds"] for runs in found.values() for run in runs)
    result = {}
    for name, runs in found.items():
        ends = [run[-1] for run in runs]
        result[name] = dict(
            loss=fmean(r["value"] for r in ends), seconds=fmean(r["seconds"] for r in ends),
            early=fmean(loss_at(run, first_done) for run in runs), tokens=ends[0]["tokens"],
            bytes=once["trained_memory_bytes", name], rate=ends[0]["learning_rate"],
            microseconds=1e6 / once["trained_tokens_per_second", name], parameters=ends[0]["parameters"],
        )  # fmt: skip
    return result


QUALITY_COLUMNS = ("model", "parameters", "rate", "loss, equal tokens (nats)", "loss, equal seconds (nats)",
                   "training seconds", "MiB of a step", "mixed lengths: microseconds a token")  # fmt: skip


def quality_rows(records: Sequence[dict]) -> list[tuple]:
    """A line a model: mean over the seeds; at equal seconds all are read off where the first of all runs was done."""
    return [(name, s["parameters"], f"{s['rate']:g}", f"{s['loss']:.3f}", f"{s['early']:.3f}", f"{s['seconds']:.1f}",
             f"{s['bytes'] / plots.MIB:.1f}", f"{s['microseconds']:.1f}")
            for name, s in summary(records).items()]  # fmt: skip


def verdict(low: float, high: float, seeds: int) -> str:
    """In words, what an interval of a difference says; less is better."""
    if seeds < 2:
        return "one seed decides nothing"
    return side_of_zero(low, high)


def verdicts(records: Sequence[dict]) -> list[str]:
    """Each pair's difference in the final loss, seed by seed, decided by its interval."""
    lines, models = [], [name for name in (BERT, STYLE, MODERN) if final_runs(records, name)]
    for i, base in enumerate(models):
        for d in paired_differences(records, base):
            if d.model in models[i + 1 :]:
                words = verdict(d.low, d.high, len(d.by_seed))
                lines.append(f"{d.model} minus {base}: {with_interval(d.mean, d.low, d.high)} nats, {words}")
    return lines


def on_plateau(records: Sequence[dict]) -> str:
    """In a line: the runs that did not end at least 0.1 nats under the unigram entropy, by model and seed."""
    entropy = next(r["value"] for r in records if r["what"] == "unigram_entropy")
    stuck = [f"{name} with seed {run[0]['seed']}" for name in (BERT, STYLE, MODERN)
             for run in final_runs(records, name) if run[-1]["value"] > entropy - 0.1]  # fmt: skip
    return f"not clearly below the unigram entropy, {entropy:.2f} nats: {', '.join(stuck) or 'no run'}"


AXES = (
    ("seconds", 1, "training seconds, equal tokens"),
    ("bytes", plots.MIB, "memory of a training step (MiB)"),
    ("microseconds", 1, "reading mixed lengths (microseconds a token)"),
)


def fronts(records: Sequence[dict]) -> list[tuple]:
    """For each cost: (what it is, which models are on the front with the loss)."""
    found = summary(records)
    rows = []
    for field, _, words in AXES:
        flags = pareto_front([(s[field], s["loss"]) for s in found.values()])
        rows.append((words, ", ".join(name for name, kept in zip(found, flags, strict=True) if kept)))
    return rows


@plots.style()
def plot_quality(records: Sequence[dict]) -> Figure:
    """Held-out loss against tokens and against seconds, a line a seed."""
    losses = [r for r in records if r["what"] == "held_out_loss" and r.get("purpose") == "final"]
    figure, axes = plots.panels(10.5, 4.3, 2, losses, sharey=True)
    figure.get_layout_engine().set(rect=(0, 0.19, 1, 0.81))
    for ax, x in zip(axes, ("tokens", "seconds"), strict=True):
        for name in summary(records):
            for i, run in enumerate(final_runs(records, name)):
                more = dict(label=name) if i == 0 else {}
                plots.draw_line(ax, [r[x] for r in run], [r["value"] for r in run], LOOKS[name], alpha=0.75, **more)
        plots.entropy_line(ax, records)
        plots.finish_learning(ax, "held_out_loss", x, "nats")
        ax.set_xlim(left=0)
    plots.legend_below(figure, axes[0])
    return figure


@plots.style()
def plot_pareto(records: Sequence[dict]) -> Figure:
    """The final loss against three costs; the front of each is ringed, small points are seeds."""
    found = summary(records)
    shown = [r for r in records if r["what"] in ("held_out_loss", "trained_memory_bytes")]
    figure, axes = plots.panels(12.5, 4.2, 3, shown, sharey=True)
    figure.get_layout_engine().set(rect=(0, 0.23, 1, 0.77))
    for ax, (field, unit, words) in zip(axes, AXES, strict=True):
        flags = pareto_front([(s[field], s["loss"]) for s in found.values()])
        for (name, s), kept in zip(found.items(), flags, strict=True):
            x, look = s[field] / unit, {**LOOKS[name], "linestyle": "none"}
            for run in final_runs(records, name):
                at = run[-1]["seconds"] if field == "seconds" else x
                ax.plot(at, run[-1]["value"], **{**look, "markersize": 3.5, "alpha": 0.6})
            ax.plot(x, s["loss"], label=name, **{**look, **plots.EDGE, "markersize": 10})
            if kept:
                ax.plot(x, s["loss"], "o", markersize=19, markerfacecolor="none", markeredgecolor="#333333")
        ax.set(xlabel=words, xlim=(0, 1.2 * max(s[field] for s in found.values()) / unit))
        ax.margins(y=0.25)
    axes[0].set_ylabel("held-out loss (nats)")
    figure.suptitle("Less is better on every axis; a ring is on the front", x=0.01, ha="left")
    plots.legend_below(figure, axes[0])
    return figure


# ---- the ladder ------------------------------------------------------------------------------------------------------

LADDER = {
    "held_out_loss": ("loss (nats)", 1, "+.3f"),
    "microseconds_per_token": ("time of a training step (microseconds a token)", 1, "+.1f"),
    "train_memory_bytes": ("memory of a training step (MiB)", plots.MIB, "+.1f"),
}


@dataclass(frozen=True)
class Step:
    """What one step of the ladder changed in one quantity: mean, interval, share of the whole way."""

    what: str
    name: str
    mean: float
    low: float
    high: float
    share: float | None  # None where the whole way cannot be told from 0

    @property
    def told(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def ladder_steps(records: Sequence[dict]) -> list[Step]:
    """Each rung minus the rung below it, in loss, time and memory, and the whole way's share of it.

    Losses are compared seed by seed, times round by round: in a round all rungs take their turns. Only where the
    interval of the whole way lies on one side of 0 are there shares of it. With one seed there are none of the loss.
    """
    final = [r for r in records if r.get("purpose") == "final"]
    rungs = list(dict.fromkeys(r["model"] for r in final))
    final += [r | dict(what="microseconds_per_token", value=1e6 * r["value"] / r["tokens"], seed=r["round"])
              for r in records if r["what"] == "step_seconds"]  # fmt: skip
    steps = []
    for what in LADDER:
        whole = _difference(final, rungs[-1], rungs[0], what)
        told = len(whole.by_seed) > 1 and (whole.low > 0 or whole.high < 0)
        for below, above in pairwise(rungs):
            d = _difference(final, above, below, what)
            steps.append(Step(what, above, d.mean, d.low, d.high, d.mean / whole.mean if told else None))
        steps.append(Step(what, "the whole way", whole.mean, whole.low, whole.high, 1.0 if told else None))
    return steps


def _difference(records, model: str, base: str, what: str):
    return next(d for d in paired_differences(records, base, what) if d.model == model)


LADDER_COLUMNS = ("step", *(text for words, _, _ in LADDER.values() for text in (words, "share")))


def ladder_rows(records: Sequence[dict]) -> list[tuple]:
    """A line a step: the change of each quantity with its interval, and its share of the whole way."""
    steps, rows = ladder_steps(records), {}
    for step in steps:
        _, unit, form = LADDER[step.what]
        mean, low, high = (format(x / unit, form) for x in (step.mean, step.low, step.high))
        reach = "" if step.low == step.high else f" [{low}, {high}]"
        share = "-" if step.share is None else f"{step.share:.0%}" if step.told else "not told from 0"
        rows.setdefault(step.name, []).extend((mean + reach, share))
    return [(name, *cells) for name, cells in rows.items()]


@plots.style()
def plot_ladder(records: Sequence[dict]) -> Figure:
    """Each step's change in loss, time and memory with its interval; open points cannot be told from 0."""
    steps = [s for s in ladder_steps(records) if s.name != "the whole way"]
    names = list(dict.fromkeys(s.name for s in steps))
    figure, axes = plots.panels(12.5, 3.8, 3, records, sharey=True)
    for ax, (what, (words, unit, _)) in zip(axes, LADDER.items(), strict=True):
        ax.axvline(0, color=plots.FAINT, linewidth=1)
        for s in (s for s in steps if s.what == what):
            place, color = names.index(s.name), LOOKS[MODERN]["color"]
            ax.plot([s.low / unit, s.high / unit], [place, place], color=color, linewidth=2.5)
            fill = color if s.told else "white"
            ax.plot(s.mean / unit, place, "o", markersize=8, markerfacecolor=fill, markeredgecolor=color)
        ax.set(xlabel=f"change of {words}", ylim=(len(names) - 0.5, -0.5))
        ax.set_yticks(range(len(names)), names)
        ax.margins(x=0.15)
        ax.locator_params(axis="x", nbins=5)
    figure.suptitle("What each step adds to the one above it; left of 0 is better. Open: not told from 0",
                    x=0.01, ha="left")  # fmt: skip
    return figure


FIGURES = {
    "13_head_to_head_cost": plot_cost,
    "13_head_to_head_quality": plot_quality,
    "13_head_to_head_pareto": plot_pareto,
}
