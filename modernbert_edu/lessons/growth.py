"""What 10_large_from_base measures, and its figures.

    models     base_config, large_config, STARTS     what is grown to what, and the ways to begin
    start      measure_starts, measure_widths,       the loss before any training
               measure_offsets
    training   train_starts                          a base once, then the large model from each start and seed
    cost       measure_cost                          speed and memory of both, and the seconds that growing takes
    in words   start_rows, training_rows, verdicts   tables, and what can be said of the differences

Letters: D hidden, H heads, K head size.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence

import torch
from torch import nn

from ..classroom.scale import GrowthScale
from ..config import EncoderConfig
from ..data.batches import SequenceBatches
from ..data.prepared import TextData
from ..intervals import bootstrap_interval
from ..measure import plots
from ..measure.flops import forward_flops, train_flops
from ..measure.headline import reached
from ..measure.memory import training_memory
from ..measure.speed import time_interleaved, tokens_per_second, tokens_per_second_spread, training_call
from ..model import MaskedLM
from ..runtime import progress
from ..training.pretrain import autocast, build_optimizer, evaluate_mlm, masked_batch
from ..training.scale_up import METHODS, depth_map, grow, layers_copied, tile
from .shared import side_of_zero, with_interval

# The ways to begin, as the options of `grow`.
STARTS: dict[str, dict | None] = {
    "random": None,
    "edge": dict(method="edge"),
    "center": dict(),
    "center, own types": dict(match_attention=True),
    "center, norm tiled": dict(tile_final_norm=True),
    "center, both fixes": dict(match_attention=True, tile_final_norm=True),
}
BASE, CONTINUED = "base", "base, trained on"  # the latter never grows, and spends on itself what growing would cost
SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")


# ---- models ----------------------------------------------------------------------------------------------------------


def make_config(numbers: Sequence[int], sizes: GrowthScale, vocab_size: int, pad_id: int) -> EncoderConfig:
    """ModernBERT with these layers, hidden size, heads and intermediate size."""
    facts = dict(vocab_size=vocab_size, pad_token_id=pad_id, local_window=sizes.local_window)
    return EncoderConfig.preset("modernbert-tiny", **dict(zip(SIZES, numbers, strict=True)), **facts)


def configs(sizes: GrowthScale, data: TextData) -> tuple[EncoderConfig, EncoderConfig]:
    """(base, large) with the vocabulary of the data."""
    vocabulary = data.tokenizer.vocab_size, data.tokenizer.pad_id
    return make_config(sizes.base, sizes, *vocabulary), make_config(sizes.large, sizes, *vocabulary)


def begin(start: str, base: MaskedLM, large: EncoderConfig, seed: int) -> MaskedLM:
    """The large model before its training. Only a random start depends on the seed."""
    torch.manual_seed(seed)
    options = STARTS[start]
    return MaskedLM(large) if options is None else grow(base, large, **options)


@torch.no_grad()
def roll_units(model: MaskedLM, hidden: int, heads: int, inner: int) -> MaskedLM:
    """The same function with its units in another order: hidden size, heads and MLP rolled by so many places.

    For models without biases and with GeGLU, as all are here.
    """
    config, rolled = model.config, {}
    D, H, I = config.hidden_size, config.num_attention_heads, config.intermediate_size  # noqa: E741
    for name, x in model.state_dict().items():
        if "attn.Wqkv" in name:
            turned = x.view(3, H, -1, D).roll((heads, hidden), (1, 3))
        elif "attn.Wo" in name:
            turned = x.view(D, H, -1).roll((hidden, heads), (0, 1))
        elif "mlp.Wi" in name:
            turned = x.view(2, I, D).roll((inner, hidden), (1, 2))
        elif "mlp.Wo" in name:
            turned = x.roll((hidden, inner), (0, 1))
        elif "head.dense" in name:
            turned = x.roll((hidden, hidden), (0, 1))
        else:  # norms and embeddings have the hidden size last; the decoder's bias has the vocabulary, which stays
            turned = x if name == "decoder_bias" else x.roll(hidden, -1)
        rolled[name] = turned.reshape(x.shape)
    other = MaskedLM(config).to(model.decoder_bias.device)
    other.load_state_dict(rolled)
    return other.train(model.training)


# ---- before any training ---------------------------------------------------------------------------------------------


def _loss(model: MaskedLM, data: TextData, sizes: GrowthScale, device) -> float:
    loss, _ = evaluate_mlm(model, data.held_out, data.tokenizer, mask_rate=sizes.mask_rate,
                           batch_size=sizes.batch_size, device=device, dtype=getattr(torch, sizes.dtype))  # fmt: skip
    return loss


def measure_starts(base: MaskedLM, data: TextData, sizes: GrowthScale, device) -> list[dict]:
    """Held-out loss before training: the base as it is, and the large model from every start."""
    _, large = configs(sizes, data)
    facts = dict(what="loss_before_training", unit="nats", seed=sizes.seed)
    records = [dict(facts, value=_loss(base, data, sizes, device), model=BASE)]
    for name in STARTS:
        model = begin(name, base, large, sizes.seed).to(device)
        records.append(dict(facts, value=_loss(model, data, sizes, device), model=name))
    return records


def measure_widths(base: MaskedLM, data: TextData, sizes: GrowthScale, device) -> list[dict]:
    """The same for other widths, in heads of one size, at the base's own depth: what tiling in width alone does."""
    old, records = base.config, []
    for width in sizes.widths:
        # The MLP grows in proportion, so that at a multiple of the width each of its numbers is there as often.
        wide = old.replace(hidden_size=width, num_attention_heads=width // old.head_size,
                           intermediate_size=old.intermediate_size * width // old.hidden_size)  # fmt: skip
        for method in METHODS:
            model = base if wide == old else grow(base, wide, method=method, tile_final_norm=True)
            value = _loss(model, data, sizes, device)
            records.append(dict(what="loss_by_width", value=value, unit="nats", model=method, width=width,
                                ratio=width / old.hidden_size, seed=sizes.seed))  # fmt: skip
    return records


def measure_offsets(base: MaskedLM, data: TextData, sizes: GrowthScale, device) -> list[dict]:
    """The same for offsets drawn at random: center and edge are two offsets of many, which double other units."""
    old, large = configs(sizes, data)
    generator, records = torch.Generator().manual_seed(sizes.seed), []
    for _ in range(sizes.offsets):
        shifts = [int(torch.randint(n, (1,), generator=generator)) for n in
                  (old.hidden_size, old.num_attention_heads, old.intermediate_size)]  # fmt: skip
        model = grow(roll_units(base, *shifts), large, method="edge")
        records.append(dict(what="loss_by_offset", value=_loss(model, data, sizes, device), unit="nats",
                            model="other offsets", offset=shifts, seed=sizes.seed))  # fmt: skip
    return records


# ---- training --------------------------------------------------------------------------------------------------------


def step_operations(config: EncoderConfig, sizes: GrowthScale) -> int:
    """Operations of one training step by formula, for a batch of full sequences."""
    lengths = [sizes.sequence_length] * sizes.batch_size
    return train_flops(forward_flops(config, lengths, masked=round(sizes.mask_rate * sum(lengths))))


def extra_steps(base: EncoderConfig, large: EncoderConfig, sizes: GrowthScale) -> int:
    """How many steps of the large model cost as many operations as the whole training of the base."""
    return math.ceil(sizes.base_steps * step_operations(base, sizes) / step_operations(large, sizes))


def continued_steps(base: EncoderConfig, large: EncoderConfig, sizes: GrowthScale) -> int:
    """How many steps of the base cost as many operations as the training of the large model from one start."""
    return math.ceil(sizes.steps * step_operations(large, sizes) / step_operations(base, sizes))


def train_base(data: TextData, sizes: GrowthScale, device) -> tuple[list[dict], MaskedLM]:
    """The small model, trained once for all starts and seeds: -> (records, model)."""
    torch.manual_seed(sizes.base_seed)
    model = MaskedLM(configs(sizes, data)[0]).to(device)
    with progress(total=sizes.base_steps, desc="base", unit="step") as bar:
        return _train(model, BASE, sizes.base_steps, sizes.base_seed, data, sizes, device, bar), model


def train_starts(base: MaskedLM, data: TextData, sizes: GrowthScale, device) -> list[dict]:
    """The large model from each start and seed, with the same batches and masks for the same seed: -> records.

    From random it trains longer, by as many operations as the base has had: so starts can be compared at equal tokens
    of the large model, and at equal cost in all. At that cost there is also the base itself, trained on.
    """
    old, large = configs(sizes, data)
    longer, more = {"random": extra_steps(old, large, sizes)}, continued_steps(old, large, sizes)
    total = len(sizes.seeds) * (more + sum(sizes.steps + longer.get(start, 0) for start in sizes.starts))
    records = []
    with progress(total=total, desc="large", unit="step") as bar:
        for seed in sizes.seeds:
            for start in sizes.starts:
                model, steps = begin(start, base, large, seed).to(device), sizes.steps + longer.get(start, 0)
                records += _train(model, start, steps, seed, data, sizes, device, bar)
            records += _train(copy.deepcopy(base), CONTINUED, more, seed, data, sizes, device, bar)
    return records


def _train(model, label, steps, seed, data, sizes, device, bar) -> list[dict]:
    """AdamW at a constant rate after the warm-up; held-out loss before the first step, on the way and at the end."""
    dtype, records, seconds, tokens = getattr(torch, sizes.dtype), [], 0.0, 0
    optimizer, _ = build_optimizer(model, sizes.learning_rate, 0.01, steps)
    masks = torch.Generator().manual_seed(seed)
    common = sizes.steps if label in STARTS else steps  # every start is evaluated at the same steps
    every = max(1, common // sizes.evaluations)
    model.train()

    def evaluate(step: int) -> None:
        records.append(dict(what="held_out_loss", value=_loss(model, data, sizes, device), unit="nats", model=label,
                            seed=seed, step=step, tokens=tokens, seconds=seconds))  # fmt: skip

    evaluate(0)
    for step, batch in enumerate(SequenceBatches(data.train, sizes.batch_size, seed=seed).take(steps), start=1):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = sizes.learning_rate * min(1.0, step / sizes.warmup_steps)
        ids, labels, mask = masked_batch(batch, data.tokenizer, sizes.mask_rate, masks)
        with autocast(device, dtype):
            loss = model(ids.to(device), mask.to(device), labels=labels.to(device)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()  # waits for the device, so the clock below is honest
        seconds += time.perf_counter() - began
        tokens += int(mask.sum())
        if step in (common, steps) or step % every == 0:
            evaluate(step)
        bar.update()
    return records


# ---- what it costs ---------------------------------------------------------------------------------------------------


def measure_cost(base: MaskedLM, data: TextData, sizes: GrowthScale, device) -> list[dict]:
    """Training speed (forward and backward) and memory of both models on one batch, and the seconds of growing."""
    old, large = configs(sizes, data)
    models = {BASE: base, "large": grow(base, large).to(device)}
    generator = torch.Generator().manual_seed(sizes.seed)
    ids, labels, mask = masked_batch(data.train[: sizes.batch_size], data.tokenizer, sizes.mask_rate, generator)
    ids, labels, mask = ids.to(device), labels.to(device), mask.to(device)
    records, tokens = [], int(mask.sum())
    calls = {name: training_call(model, ids, mask, labels) for name, model in models.items()}
    with autocast(device, getattr(torch, sizes.dtype)):
        timings = time_interleaved(calls, device=device, repeats=sizes.timing_repeats)
        memory = {name: training_memory(model, ids, mask, labels) for name, model in models.items()}
    for name, model in models.items():
        facts = dict(model=name, parameters=model.config.num_parameters(), seed=sizes.seed)
        rate, spread = (f(timings[name], tokens) for f in (tokens_per_second, tokens_per_second_spread))
        records.append(dict(facts, what="train_tokens_per_second", value=rate, spread=spread, n=timings[name].n,
                            unit="tokens/s"))  # fmt: skip
        records.append(dict(facts, what="train_memory_bytes", value=memory[name].bytes, unit="bytes",
                            how=memory[name].how))  # fmt: skip
        records.append(dict(facts, what="step_seconds", value=timings[name].median, spread=timings[name].spread,
                            n=timings[name].n, unit="s"))  # fmt: skip
    growing = time_interleaved({"grow": lambda: grow(base, large)}, device=device, repeats=sizes.timing_repeats)["grow"]
    records.append(dict(what="grow_seconds", value=growing.median, spread=growing.spread, n=growing.n, unit="s",
                        model="large", seed=sizes.seed))  # fmt: skip
    return records


# ---- in words --------------------------------------------------------------------------------------------------------

START_COLUMNS = ("start", "held-out loss before training (nats)", "above the base by")
TRAINING_COLUMNS = ("start", "loss after the steps (nats)", "minus random", "minus random at equal cost",
                    "tokens to random's loss", "seconds to it, base counted")  # fmt: skip


def curves(records: Sequence[dict], start: str) -> dict[int, list[dict]]:
    """{seed: the held-out losses of one start, in the order of the steps}."""
    found: dict[int, list[dict]] = {}
    for record in records:
        if record["what"] == "held_out_loss" and record["model"] == start:
            found.setdefault(record["seed"], []).append(record)
    return found


def starts_of(records: Sequence[dict]) -> list[str]:
    """The starts that were trained, in the order in which they are listed."""
    found = {r["model"] for r in records if r["what"] == "held_out_loss"}
    return [start for start in STARTS if start in found]


def steps_of(records: Sequence[dict]) -> int:
    """Steps that every start was trained for; random goes on after them."""
    return min(curve[-1]["step"] for start in starts_of(records) for curve in curves(records, start).values())


def loss_at_steps(curve: Sequence[dict], steps: int) -> float:
    return next(r["value"] for r in curve if r["step"] == steps)


def base_seconds(records: Sequence[dict]) -> float:
    return max(r["seconds"] for r in records if r["what"] == "held_out_loss" and r["model"] == BASE)


def differences(records: Sequence[dict], start: str, other: str = "random", equal: str = "tokens") -> list[float]:
    """Loss of `start` minus that of `other` for each seed: after the same steps, or ("cost") at the end of each.

    At their ends random and the base that was trained on have cost as many operations as base and grown model together.
    """
    mine, theirs, steps = curves(records, start), curves(records, other), steps_of(records)
    found = []
    for seed in sorted(mine):
        pair = [curve[-1]["value"] if equal == "cost" else loss_at_steps(curve, steps)
                for curve in (mine[seed], theirs[seed])]  # fmt: skip
        found.append(pair[0] - pair[1])
    return found


def _interval(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:+.3f}"
    low, high = bootstrap_interval(list(values))
    return with_interval(mean, low, high)


def verdict(values: Sequence[float]) -> str:
    """What differences by seed say of the first model: lower or higher where the whole interval is on one side."""
    if len(values) < 2:
        return "one seed decides nothing"
    low, high = bootstrap_interval(list(values))
    return side_of_zero(low, high)


def start_rows(records: Sequence[dict]) -> list[tuple]:
    """One row for the base and each start: the loss before training."""
    losses = {r["model"]: r["value"] for r in records if r["what"] == "loss_before_training"}
    return [(name, f"{loss:.3f}", "-" if name == BASE else f"{loss - losses[BASE]:+.3f}")
            for name, loss in losses.items()]  # fmt: skip


def training_rows(records: Sequence[dict]) -> list[tuple]:
    """One row for each start: where it ended, and how soon it reached random's final loss, averaged over the seeds."""
    steps, random, rows = steps_of(records), curves(records, "random"), []
    for start in starts_of(records):
        mine = curves(records, start)
        loss = sum(loss_at_steps(curve, steps) for curve in mine.values()) / len(mine)
        if start == "random":
            tokens = next(r["tokens"] for r in random[min(random)] if r["step"] == steps)
            seconds = sum(next(r["seconds"] for r in c if r["step"] == steps) for c in random.values()) / len(random)
            rows.append((start, f"{loss:.3f}", "-", "-", f"{tokens:,}", f"{seconds:.1f}"))
            continue
        cells = [_interval(differences(records, start, equal=equal)) for equal in ("tokens", "cost")]
        for x in ("tokens", "seconds"):
            found = [reached(curve, loss_at_steps(random[seed], steps), x) for seed, curve in mine.items()]
            first = base_seconds(records) if x == "seconds" else 0.0
            known = None not in found
            mean = first + sum(found) / len(found) if known else None
            cells.append("not reached" if mean is None else f"{mean:,.0f}" if x == "tokens" else f"{mean:.1f}")
        rows.append((start, f"{loss:.3f}", *cells))
    more = [curve[-1]["value"] for curve in curves(records, CONTINUED).values()]
    if more:
        gap = _interval(differences(records, CONTINUED, equal="cost"))
        rows.append((CONTINUED, f"{sum(more) / len(more):.3f}", "-", gap, "-", "-"))
    return rows


def verdicts(records: Sequence[dict]) -> list[str]:
    """Lines that the numbers decide: each start against random, twice, and each fix against plain center tiling."""
    lines = []
    for start in starts_of(records):
        if start != "random":
            same_tokens, same_cost = (verdict(differences(records, start, equal=e)) for e in ("tokens", "cost"))
            lines.append(f"{start} against random: after the same steps {same_tokens}; at equal cost {same_cost}")
    if curves(records, CONTINUED):
        values = differences(records, "center", CONTINUED, equal="cost")
        lines.append(f"center against {CONTINUED}, at equal cost: {_interval(values)} nats, {verdict(values)}")
    for start in starts_of(records):
        if start not in ("random", "center") and "center" in starts_of(records):
            values = differences(records, start, "center")
            lines.append(f"{start} against center, after the same steps: {_interval(values)} nats, {verdict(values)}")
    return lines


def cost_rows(records: Sequence[dict]) -> list[tuple]:
    """One row for each of the two models, and their ratio."""
    found = {(r["what"], r["model"]): r for r in records}
    rows = []
    for name in (BASE, "large"):
        rate, memory = found["train_tokens_per_second", name], found["train_memory_bytes", name]
        rows.append((name, rate["parameters"], f"{rate['value']:,.0f}", f"{memory['value'] / 2**20:,.1f}"))
    a, b = (found["train_tokens_per_second", name] for name in (BASE, "large"))
    memory = found["train_memory_bytes", "large"]["value"] / found["train_memory_bytes", BASE]["value"]
    ratio = f"{b['parameters'] / a['parameters']:.2f}"
    return [*rows, ("large / base", ratio, f"{b['value'] / a['value']:.2f}", f"{memory:.2f}")]


# ---- figures ---------------------------------------------------------------------------------------------------------

LOOKS = {
    "random": plots.MORE_STYLES[2],
    "center": plots.STYLES["ModernBERT"],
    "edge": plots.MORE_STYLES[0],
    "center, both fixes": plots.MORE_STYLES[1],
    "center, own types": dict(color="#cc79a7", linestyle=(0, (4, 1, 1, 1)), marker="P"),
    "center, norm tiled": plots.MORE_STYLES[3],
    BASE: dict(color="black", linestyle="-", marker=""),
    CONTINUED: dict(color="black", linestyle=(0, (1, 1)), marker=""),
}
BLUE, OTHER = plots.STYLES["ModernBERT"]["color"], plots.MORE_STYLES[1]["color"]


@plots.style()
def plot_training(records: Sequence[dict]):
    """Held-out loss against the large model's tokens, and against all seconds, the base's included: a line a seed."""
    from matplotlib.ticker import EngFormatter

    chosen = [r for r in records if r["what"] == "held_out_loss"]
    figure, axes = plots.panels(13, 4.8, 2, chosen)
    before, steps = base_seconds(records), steps_of(records)
    for start in starts_of(records):
        for number, curve in enumerate(curves(records, start).values()):
            label = dict(label=start if number == 0 else None, alpha=0.85)
            if start == "edge":  # center may run on top of it
                label |= dict(linewidth=5, alpha=0.4)
            first = [r for r in curve if r["step"] <= steps]
            plots.draw_line(axes[0], [r["tokens"] for r in first], [r["value"] for r in first], LOOKS[start], **label)
            shift = 0.0 if start == "random" else before
            spent = [shift + r["seconds"] for r in curve]
            plots.draw_line(axes[1], spent, [r["value"] for r in curve], LOOKS[start], **label)
    for name, shift in ((BASE, 0.0), (CONTINUED, before)):
        for number, curve in enumerate(curves(records, name).values()):
            label = name if number == 0 else None
            spent = [shift + r["seconds"] for r in curve]
            plots.draw_line(axes[1], spent, [r["value"] for r in curve], LOOKS[name], label)
    axes[1].axvline(before, color=plots.FAINT, linewidth=1)
    for ax in axes:
        plots.entropy_line(ax, records)
    axes[0].set(xlabel="tokens that the large model was trained on", ylabel="held-out loss (nats)")
    axes[0].set_title("The large model alone: equal steps, a line for each seed")
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes[1].set(xlabel="training time (s), the base's counted", ylabel="held-out loss (nats)")
    axes[1].set_title("All that was spent: grown models begin where the base ends")
    for ax in axes:
        ax.legend()
    return figure


@plots.style()
def plot_starts(records: Sequence[dict]):
    """The loss before training, by start and by width."""
    chosen = [r for r in records if r["what"] in ("loss_before_training", "loss_by_width", "loss_by_offset")]
    figure, (left, right) = plots.panels(13, 4.2, 2, chosen)
    bars = [r for r in chosen if r["what"] == "loss_before_training"]
    for place, record in enumerate(bars):
        hatch = plots.HATCHES[place % len(plots.HATCHES)]
        left.barh(place, record["value"], color=LOOKS[record["model"]]["color"], hatch=hatch, edgecolor="white")
        left.annotate(f"{record['value']:.2f}", (record["value"], place), xytext=(4, 0), textcoords="offset points",
                      va="center")  # fmt: skip
    dots = [r["value"] for r in chosen if r["what"] == "loss_by_offset"]
    left.plot(dots, [len(bars)] * len(dots), "x", color="black", markersize=7)
    left.set_yticks(range(len(bars) + 1), [*(r["model"] for r in bars), "other offsets"])
    left.invert_yaxis()
    left.margins(x=0.12)
    left.set(xlabel="held-out loss before training (nats); dashes: unigram entropy")
    left.set_title("The large model, by its start")
    plots.entropy_line(left, records, upright=True)
    for method in METHODS:
        mine = [r for r in chosen if r["what"] == "loss_by_width" and r["model"] == method]
        plots.draw_line(right, [r["ratio"] for r in mine], [r["value"] for r in mine], LOOKS[method], label=method)
    plots.entropy_line(right, records)
    right.set(xlabel="hidden size / the base's (same depth)", ylabel="held-out loss before training (nats)")
    right.set_title("Width alone")
    right.legend()
    return figure


@plots.style()
def plot_cost(records: Sequence[dict]):
    """Speed and memory of the base and of the large model, and growing beside one training step."""
    whats = ("train_tokens_per_second", "train_memory_bytes", "step_seconds", "grow_seconds")
    chosen = [r for r in records if r["what"] in whats]
    figure, axes = plots.panels(11, 3.6, 3, chosen)
    value = {(r["what"], r["model"]): r for r in chosen}
    panels = [
        [(name, value["train_tokens_per_second", name], 1) for name in (BASE, "large")],
        [(name, value["train_memory_bytes", name], 2**20) for name in (BASE, "large")],
        [("one training step\nof the large model", value["step_seconds", "large"], 1e-3),
         ("growing it", value["grow_seconds", "large"], 1e-3)],
    ]  # fmt: skip
    labels = ["training speed (tokens/s)", "memory of a training step (MiB)", "time (ms)"]
    for ax, bars, label in zip(axes, panels, labels, strict=True):
        for place, (_, record, unit) in enumerate(bars):
            height, half = record["value"] / unit, (record.get("spread") or 0) / unit / 2
            look = dict(color=(plots.FAINT, BLUE)[place], hatch=("", "//")[place])
            ax.bar(place, height, width=0.6, yerr=half or None, capsize=4, edgecolor="white", **look)
            text = f"{height:,.0f}" if height >= 100 else f"{height:.3g}"
            ax.annotate(text, (place, height + half), xytext=(0, 6), textcoords="offset points", ha="center")
        ax.set_xticks(range(len(bars)), [name for name, *_ in bars])
        ax.set_ylabel(label)
        ax.margins(y=0.14)
    return figure


@plots.style()
def picture_tiling(old: int, new: int):
    """A square matrix of old x old numbers, and both ways to fill new x new with it; the whole copy has a frame."""
    from matplotlib.patches import Rectangle

    x = torch.arange(1, old * old + 1).view(old, old)
    figure, axes = plots.panels(11, 4, 3, width_ratios=[max(0.45, old / new), 1, 1])
    panels = [("the old matrix", x, 0)]
    panels += [(f"{method}, {old} x {old} to {new} x {new}", tile(x, (new, new), method),
                (new - old) // 2 if method == "center" else 0) for method in METHODS]  # fmt: skip
    for ax, (title, matrix, offset) in zip(axes, panels, strict=True):
        ax.imshow(matrix.numpy(), vmin=1, vmax=old * old * 1.7)
        plots.frame_image(ax)
        if len(matrix) <= 10:
            for row, line in enumerate(matrix.tolist()):
                for column, number in enumerate(line):
                    ax.text(column, row, number, ha="center", va="center")
        frame = Rectangle((offset - 0.5, offset - 0.5), old, old, fill=False, edgecolor=BLUE, linewidth=3)
        ax.add_patch(frame)
        ax.set(title=title, xlabel="column", ylabel="row", xticks=range(0, len(matrix), 2))
        ax.set_yticks(range(0, len(matrix), 2))
    return figure


@plots.style()
def picture_heads(old_heads: int, new_heads: int, head_size: int):
    """From which old head each of the new rows of Q comes: with an offset in whole heads, and with half a head more."""
    old, new = old_heads * head_size, new_heads * head_size
    aligned = (new_heads - old_heads) // 2 * head_size
    figure, axes = plots.panels(12, 2.9, 1, rows=2, sharex=True)
    cases = [("the offset in whole heads", aligned), ("an offset that cuts heads", aligned + head_size // 2)]
    for ax, (title, offset) in zip(axes, cases, strict=True):
        head = ((torch.arange(new) - offset) % old) // head_size
        shade = 0.25 + 0.3 * (head % 2)  # neighbours differ
        ax.imshow(shade[None].numpy(), vmin=0, vmax=1, aspect="auto", extent=(0, new, 0, 1),
                  interpolation="nearest")  # fmt: skip
        plots.frame_image(ax)
        starts = [0, *(i for i in range(1, new) if head[i] != head[i - 1])]
        for first, end in zip(starts, [*starts[1:], new], strict=True):
            if end - first > head_size // 3:
                ax.text((first + end) / 2, 0.5, f"{int(head[first])}", ha="center", va="center",
                        bbox=dict(boxstyle="round,pad=0.2", facecolor="white", edgecolor="none"))  # fmt: skip
        for border in range(0, new + 1, head_size):
            ax.axvline(border, color=OTHER, linewidth=1.5, linestyle="--")
        ax.set(title=f"{title}: {offset}", yticks=[])
    axes[1].set_xticks(range(0, new + 1, head_size * 2))
    axes[1].set_xlabel(f"row of the new Q; dashed: borders of its {new_heads} heads; numbers: the old head copied")
    return figure


@plots.style()
def picture_depth(old: EncoderConfig, new: EncoderConfig):
    """Which old layer each new one copies, by the published map and by the matched one; other types stand out."""
    figure, axes = plots.panels(13, 6.4, 1, rows=2)
    maps = {
        "round(i * old / new), as published": depth_map(old.num_hidden_layers, new.num_hidden_layers),
        "each type on its own": layers_copied(old, new, match_attention=True),
    }
    for ax, (name, copied) in zip(axes, maps.items(), strict=True):
        other = 0
        for i, source in enumerate(copied):
            same = new.layer_type(i) == old.layer_type(source)
            other += not same
            look = dict(color=BLUE, linestyle="-") if same else dict(color=OTHER, linestyle="--")
            ax.plot([source, i], [1, 0], linewidth=1.6, **look)
        for config, height in ((old, 1), (new, 0)):
            for layer, letter in enumerate(config.layer_types):
                face = "#333333" if letter == "G" else "white"
                ink = "white" if letter == "G" else "black"
                ax.text(layer, height, str(layer), ha="center", va="center", fontsize=8, color=ink,
                        bbox=dict(boxstyle="circle,pad=0.25", facecolor=face, edgecolor="black"))  # fmt: skip
        ax.set(xlim=(-0.8, max(old.num_hidden_layers, new.num_hidden_layers) - 0.2), ylim=(-0.25, 1.25), xticks=[])
        ax.set_yticks([1, 0], ["old layers", "new layers"])
        ax.spines[:].set_visible(False)
        ax.grid(False)
        ax.set_title(f"{name}: {other} of {len(copied)} copy the other attention type (dashed)")
    axes[1].set_xlabel("layer; dark: global, white: local")
    return figure


FIGURES = {
    "10_large_from_base_start": plot_starts,
    "10_large_from_base_training": plot_training,
    "10_large_from_base_cost": plot_cost,
}
