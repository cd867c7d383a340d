"""What 08_mlm_pretraining measures, and its figures.

toys       steps_after, kept_by_decay     what an optimizer does with one number
weights    std_by_matrix, std_by_formula  the initialisation, against its formula
training   train_variants                 one model by three recipes: held-out loss, r of each tensor, checkpoints
cost       measure_cost                   a step at several masking rates, and the optimizers alone
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..attention import choose_backend
from ..classroom.scale import PretrainingScale
from ..config import EncoderConfig
from ..data.prepared import TextData
from ..measure import plots
from ..measure.ablation import paired_differences
from ..measure.flops import forward_flops
from ..measure.memory import bytes_saved_for_backward
from ..measure.speed import model_mode, time_interleaved
from ..model import MaskedLM
from ..runtime import progress
from ..training.averaging import average_weights
from ..training.optim import StableAdamW, build_optimizer, update_rms
from ..training.pretrain import autocast, evaluate_mlm, masked_batch
from ..training.recipe import Recipe, reasons
from ..training.runs import EVALUATION_TOKENS, pretrain
from ..training.schedule import multiplier, step_sizes
from .shared import side_of_zero, with_interval

BASELINE = "ModernBERT's recipe"
# What BERT's recipe does otherwise with a gradient; everything else stays ModernBERT's.
BERTS_STEP = ("optimizer", "betas", "eps", "weight_decay", "decoupled", "clip_norm", "schedule")
VARIANTS = (BASELINE, "15 % masked", "AdamW, linear decay")


# ---- training --------------------------------------------------------------------------------------------------------


def recipe_of(variant: str, sizes: PretrainingScale) -> Recipe:
    """ModernBERT's recipe at these sizes, with what the variant takes from BERT's."""
    bert, per_step = Recipe.preset("bert-2018"), sizes.batch_size * sizes.sequence_length
    recipe = Recipe.preset("modernbert").shrunk(
        tokens=sizes.steps * per_step,
        length=sizes.sequence_length,
        tokens_per_step=per_step,
        microbatch_tokens=per_step,
        learning_rate=sizes.stable_rate,
    )
    changes = {
        BASELINE: {},
        "15 % masked": {"mask_rate": bert.mask_rate, "learning_rate": sizes.fewer_rate},
        "AdamW, linear decay": {name: getattr(bert, name) for name in BERTS_STEP}
        | {"learning_rate": sizes.adamw_rate, "decay_tokens": bert.decay_tokens},
    }
    return recipe.replace(**changes[variant])


def new_model(sizes: PretrainingScale, data: TextData, seed: int) -> MaskedLM:
    torch.manual_seed(seed)
    facts = dict(vocab_size=data.tokenizer.vocab_size, pad_token_id=data.tokenizer.pad_id)
    return MaskedLM(EncoderConfig.preset(sizes.preset, **facts))


@contextlib.contextmanager
def watch_rms(model: nn.Module) -> Iterator[list[dict[str, float]]]:
    """A list that grows by {parameter's name: r} at each step that a `StableAdamW` takes with the model's parameters.

    torch calls the hook when the step is done and the gradients are still there: v is then the one that r is made of.
    """
    names, found = {parameter: name for name, parameter in model.named_parameters()}, []

    def look(optimizer, args, kwargs) -> None:
        if not isinstance(optimizer, StableAdamW):
            return
        state, eps = optimizer.state, optimizer.param_groups[0]["eps"]
        found.append({names[p]: float(update_rms(p.grad, state[p]["exp_avg_sq"], eps)) for p in names
                      if p.grad is not None and p in state})  # fmt: skip

    handle = register_optimizer_step_post_hook(look)
    try:
        yield found
    finally:
        handle.remove()


def train_variants(
    data: TextData, sizes: PretrainingScale, device, watch: Callable[[dict], None] | None = None
) -> tuple[list[dict], list[dict]]:
    """Train the model by each recipe from each seed: -> (records, weights of the baseline's evaluations in its decay).

    The same seed gives the same weights and the same rows of text; masks are drawn alike, but 15 % of the tokens are
    fewer than 30 %. `watch` is given every record as it comes. r is recorded for the baseline's first seed.
    """
    records, kept, total = [], [], len(VARIANTS) * len(sizes.seeds) * sizes.steps
    with progress(total=total, desc="pretraining", unit="step") as bar:
        for variant in VARIANTS:
            for seed in sizes.seeds:
                looked_at = variant == BASELINE and seed == sizes.seeds[0]
                rows, weights = _train(variant, seed, data, sizes, device, watch, bar, looked_at)
                records, kept = records + rows, kept + weights
    return records, kept


def _train(variant, seed, data, sizes, device, watch, bar, looked_at: bool) -> tuple[list[dict], list[dict]]:
    recipe, model, weights = recipe_of(variant, sizes), new_model(sizes, data, seed), []
    steady = recipe.tokens - recipe.decay_tokens

    def on_record(record: dict) -> None:
        if watch:
            watch(record)
        if looked_at and record["what"] == "held_out_loss" and record["step"] * recipe.tokens_per_step > steady:
            weights.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})

    with watch_rms(model) if looked_at else contextlib.nullcontext([]) as rms:
        run = pretrain(model, recipe, data, seed=seed, device=device, dtype=getattr(torch, sizes.dtype), label=variant,
                       eval_every=max(1, sizes.steps // sizes.evaluations), on_record=on_record, bar=bar)  # fmt: skip
    records = [{**r, "purpose": "final", "peak": recipe.learning_rate} for r in run.history]
    for step, by_name in enumerate(rms, start=1):
        for name, value in by_name.items():
            records.append(dict(what="update_rms", value=value, unit="1", model=variant, seed=seed, step=step,
                                parameter=name, tokens=step * recipe.tokens_per_step))  # fmt: skip
    return records, weights


def measure_averages(kept: Sequence[dict], data: TextData, sizes: PretrainingScale, device) -> list[dict]:
    """Held-out loss of each kept checkpoint alone, and of the mean of the last 2, 3, ... of them."""
    model, recipe, records = new_model(sizes, data, 0).to(device), recipe_of(BASELINE, sizes), []
    for count in range(1, len(kept) + 1):
        choices = {"alone": kept[-count], "mean of the last": average_weights(kept[-count:])}
        for name, weights in choices.items():
            model.load_state_dict(weights)
            loss, _ = evaluate_mlm(
                model, data.held_out, data.tokenizer, mask_rate=recipe.eval_mask_rate,
                batch_size=max(1, EVALUATION_TOKENS // recipe.length), device=device, dtype=getattr(torch, sizes.dtype),
            )  # fmt: skip
            records.append(dict(what="loss_of_checkpoint", value=loss, unit="nats", model=name, checkpoints=count))
    return records


# ---- toys ------------------------------------------------------------------------------------------------------------

QUIET, AFTER, LOUDER = 3000, 40, 1000.0  # steps before, steps watched, and how much larger the gradient then is


def steps_after(event: str, optimizer_class, beta2: float, peak: float = 1e-3) -> list[float]:
    """How far one number moves in each step from an event on, in units of the learning rate.

    Before it the gradient goes back and forth between 1 and -1. "spike": one gradient of 1,000, then as before;
    "jump": 1,000 from then on.
    """
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = optimizer_class([p], lr=peak, betas=(0.9, beta2), eps=1e-6, weight_decay=0.0)
    moved = []
    for step in range(QUIET + AFTER):
        loud = step == QUIET or (event == "jump" and step > QUIET)
        p.grad = torch.full_like(p, LOUDER if loud else (-1.0) ** step)
        before = p.item()
        optimizer.step()
        moved.append(abs(p.item() - before) / peak)
    return moved[QUIET:]


def kept_by_decay(recipe: Recipe) -> float:
    """What is left of a weight whose gradient is always zero, after all steps of the recipe."""
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(layer.weight)
    optimizer, tokens = build_optimizer(layer, recipe), 0
    for size in step_sizes(recipe):
        tokens += size
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * multiplier(recipe, tokens)
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
    return layer.weight.item()


# ---- weights at the start --------------------------------------------------------------------------------------------

INTO_STREAM = ("attn.Wo", "mlp.Wo")  # the matrices whose products are added to the residual stream
OTHERS = ("attn.Wqkv", "mlp.Wi")


def std_by_matrix(model: MaskedLM) -> dict[str, list[float]]:
    """{matrix: its standard deviation in layer 0, 1, ...}."""
    found = {kind: [] for kind in (*OTHERS, *INTO_STREAM)}
    for layer in model.encoder.layers:
        for kind in found:
            found[kind].append(layer.get_submodule(kind).weight.std().item())
    return found


def std_by_formula(config: EncoderConfig) -> dict[str, float]:
    """Deviation after the cut at two sigmas: sigma times 0.8796, and smaller by sqrt(2 L) into the residual stream."""
    cut = cut_normal_std() * config.initializer_range
    return {kind: cut / math.sqrt(2 * config.num_hidden_layers) if kind in INTO_STREAM else cut
            for kind in (*OTHERS, *INTO_STREAM)}  # fmt: skip


def cut_normal_std(at: float = 2.0) -> float:
    """Standard deviation of a standard normal cut off at +-`at`: sqrt(1 - 2 a phi(a) / (2 Phi(a) - 1))."""
    density = math.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
    return math.sqrt(1 - 2 * at * density / math.erf(at / math.sqrt(2)))


# ---- cost ------------------------------------------------------------------------------------------------------------


def measure_cost(data: TextData, sizes: PretrainingScale, device) -> list[dict]:
    """Seconds and bytes of forward and backward by masking rate, and of each optimizer's step on the model."""
    return _measure_rates(data, sizes, device) + _measure_optimizers(data, sizes, device)


def _measure_rates(data: TextData, sizes: PretrainingScale, device) -> list[dict]:
    dtype, model = getattr(torch, sizes.dtype), new_model(sizes, data, sizes.seed).to(device)
    rows, batches = data.train[: sizes.batch_size], {}
    for rate in sizes.timed_rates:
        made = masked_batch(rows, data.tokenizer, rate, torch.Generator().manual_seed(sizes.seed))
        ids, labels, mask = (tensor.to(device) for tensor in made)
        batches[rate] = dict(input_ids=ids, attention_mask=mask, labels=labels)

    def forward_backward(inputs: dict) -> None:
        model(**inputs).loss.backward()
        model.zero_grad(set_to_none=True)

    records, lengths = [], [len(row) for row in rows]
    with model_mode(model, training=True), autocast(device, dtype):
        calls = {rate: partial(forward_backward, inputs) for rate, inputs in batches.items()}
        timings = time_interleaved(calls, device=device, repeats=sizes.timing_repeats)
        for rate, inputs in batches.items():
            masked = int((inputs["labels"] != -100).sum())
            kept = bytes_saved_for_backward(lambda: model(**inputs), [*model.parameters(), *inputs.values()])  # noqa: B023
            where = dict(model=f"{rate:.0%}", rate=rate, masked=masked, tokens=sum(lengths), seed=sizes.seed,
                         flops=forward_flops(model.config, lengths, masked=masked).total,
                         backend=choose_backend(device, dtype)[0])  # fmt: skip
            records.append(dict(what="step_seconds", value=timings[rate].median, unit="s",
                                spread=timings[rate].spread, n=timings[rate].n, **where))  # fmt: skip
            records.append(dict(what="kept_bytes", value=kept, unit="bytes", **where))
    return records


def _measure_optimizers(data: TextData, sizes: PretrainingScale, device) -> list[dict]:
    """The step alone: AdamW with all tensors in one call (as torch does on a GPU), tensor by tensor, StableAdamW."""
    recipe, made = recipe_of(BASELINE, sizes), {}
    for name in ("AdamW, all at once", "AdamW, tensor by tensor", "StableAdamW"):
        model = new_model(sizes, data, sizes.seed).to(device)
        optimizer = build_optimizer(
            model, recipe.replace(optimizer="stable_adamw" if name == "StableAdamW" else "adamw")
        )
        for group in optimizer.param_groups:
            if "foreach" in group:
                group["foreach"] = name == "AdamW, all at once"
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())).to(p)
        made[name] = optimizer
    calls = {name: optimizer.step for name, optimizer in made.items()}
    timings = time_interleaved(calls, device=device, repeats=sizes.timing_repeats)
    records = []
    for name, optimizer in made.items():
        weights = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        state = sum(t.numel() * t.element_size() for s in optimizer.state.values() for t in s.values())
        where = dict(model=name, parameters=weights, seed=sizes.seed)
        records.append(dict(what="optimizer_seconds", value=timings[name].median, spread=timings[name].spread,
                            n=timings[name].n, unit="s", **where))  # fmt: skip
        records.append(dict(what="optimizer_bytes_per_parameter", value=state / weights, unit="bytes", **where))
    return records


# ---- tables ----------------------------------------------------------------------------------------------------------

RECIPE_COLUMNS = ("field", "BERT", "ModernBERT")
REASON_COLUMNS = ("field", "value", "why")
VARIANT_COLUMNS = ("recipe", "peak rate", "loss of each seed (nats)", "minus ModernBERT's [interval]",
                   "masked tokens right", "waiting for data")  # fmt: skip
COST_COLUMNS = ("masked", "share of all tokens", "operations", "seconds", "MiB kept for backward")
OPTIMIZER_COLUMNS = ("optimizer", "milliseconds a step", "bytes of state a parameter")


def recipe_rows() -> list[tuple]:
    """The fields in which the two published recipes differ."""
    bert, modern = reasons("bert-2018"), reasons("modernbert")
    return [(name, _plain(bert[name][0]), _plain(value)) for name, (value, _) in modern.items()
            if bert[name][0] != value]  # fmt: skip


def reason_rows(name: str) -> list[tuple]:
    return [(field, _plain(value), why) for field, (value, why) in reasons(name).items()]


def _plain(value) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def variant_rows(records: Sequence[dict]) -> list[tuple]:
    """One row a recipe: its seeds' final losses at the common masking rate, and the paired difference."""
    differences, rows = {d.model: d for d in paired_differences(records, BASELINE)}, []
    for variant in VARIANTS:
        mine = [r for r in records if r["model"] == variant and r.get("purpose") == "final"]
        last = {what: {r["seed"]: r["value"] for r in mine if r["what"] == what}
                for what in ("held_out_loss", "masked_accuracy", "waited_share")}  # fmt: skip
        d = differences.get(variant)
        words = with_interval(d.mean, d.low, d.high) if d else "-"
        means = [sum(values.values()) / len(values) for values in last.values()]
        losses = ", ".join(f"{loss:.3f}" for loss in last["held_out_loss"].values())
        rows.append((variant, f"{mine[0]['peak']:g}", losses, words, f"{means[1]:.1%}", f"{means[2]:.2%}"))
    return rows


def verdicts(records: Sequence[dict]) -> list[str]:
    """One sentence a variant, from the interval of its paired difference."""
    lines = []
    for d in paired_differences(records, BASELINE):
        words = side_of_zero(d.low, d.high, above="ended higher", below="ended lower")
        lines.append(f"{d.model}: {d.mean:+.3f} nats against ModernBERT's recipe: {words}")
    return lines


def rms_summary(records: Sequence[dict]) -> list[tuple]:
    """Of each third of the run: (steps, median of r, largest r, its tensor, share of updates with r above 1)."""
    found = [r for r in records if r["what"] == "update_rms"]
    last, rows = max(r["step"] for r in found), []
    for third in range(3):
        mine = [r for r in found if third * last < 3 * r["step"] <= (third + 1) * last]
        largest, values = max(mine, key=lambda r: r["value"]), sorted(r["value"] for r in mine)
        above = sum(value > 1 for value in values) / len(values)
        span = f"{mine[0]['step']} to {mine[-1]['step']}"
        rows.append((span, f"{values[len(values) // 2]:.2f}", f"{largest['value']:.2f}", largest["parameter"],
                     f"{above:.0%}"))  # fmt: skip
    return rows


RMS_COLUMNS = ("steps", "median r", "largest r", "of the tensor", "share of updates clipped (r > 1)")


AVERAGE_COLUMNS = ("counted from the last", "that checkpoint alone (nats)", "mean of the last so many (nats)")


def average_rows(records: Sequence[dict]) -> list[tuple]:
    value = {(r["model"], r["checkpoints"]): r["value"] for r in records if r["what"] == "loss_of_checkpoint"}
    return [(count, *(f"{value[name, count]:.3f}" for name in ("alone", "mean of the last")))
            for count in sorted({count for _, count in value})]  # fmt: skip


def lowest_in_words(records: Sequence[dict]) -> str:
    """Which checkpoint or mean of `measure_averages` has the lowest loss."""
    best = min((r for r in records if r["what"] == "loss_of_checkpoint"), key=lambda r: r["value"])
    count = best["checkpoints"]
    if best["model"] != "alone":
        return f"the lowest: the mean of the last {count}"
    return "the lowest: " + ("the last checkpoint" if count == 1 else f"checkpoint {count}, counted from the last")


def cost_rows(records: Sequence[dict]) -> list[tuple]:
    seconds = [r for r in records if r["what"] == "step_seconds"]
    kept = {r["rate"]: r["value"] for r in records if r["what"] == "kept_bytes"}
    first = seconds[0]
    return [(r["model"], f"{r['masked'] / r['tokens']:.0%}", f"{r['flops'] / first['flops']:.2f}",
             f"{r['value'] / first['value']:.2f}", f"{kept[r['rate']] / plots.MIB:.1f}") for r in seconds]  # fmt: skip


def optimizer_rows(records: Sequence[dict]) -> list[tuple]:
    size = {r["model"]: r["value"] for r in records if r["what"] == "optimizer_bytes_per_parameter"}
    return [(r["model"], f"{1000 * r['value']:.2f}", f"{size[r['model']]:.3f}")
            for r in records if r["what"] == "optimizer_seconds"]  # fmt: skip


# ---- figures ---------------------------------------------------------------------------------------------------------

LOOKS = {
    BASELINE: plots.STYLES["ModernBERT"],
    "15 % masked": plots.STYLES["BERT"],
    "AdamW, linear decay": plots.MORE_STYLES[0],
}
SHAPE_LOOKS = {
    "1-sqrt": plots.STYLES["ModernBERT"],
    "linear": plots.MORE_STYLES[0],
    "cosine": plots.MORE_STYLES[1],
    "BERT's": plots.STYLES["BERT"],
}


@plots.style()
def picture_clipping():
    """A spike and a jump of the gradient: how far AdamW and StableAdamW move one number in the steps after it."""
    figure, axes = plots.panels(12, 3.8, 2, sharey=False)
    choices = [
        ("AdamW, $\\beta_2$ = 0.999", torch.optim.AdamW, 0.999, plots.MORE_STYLES[0]),
        ("AdamW, $\\beta_2$ = 0.98", torch.optim.AdamW, 0.98, plots.MORE_STYLES[1]),
        ("StableAdamW, $\\beta_2$ = 0.98", StableAdamW, 0.98, plots.MORE_STYLES[2]),
    ]
    titles = {"spike": "One gradient 1,000 times as large", "jump": "1,000 times as large from then on"}
    for ax, (event, title) in zip(axes, titles.items(), strict=True):
        for label, optimizer, beta2, look in choices:
            plots.draw_line(ax, range(1, AFTER + 1), steps_after(event, optimizer, beta2), look, label, markevery=2)
        ax.axhline(1, color=plots.FAINT, linewidth=1, linestyle=(0, (2, 2)))
        ax.set(title=title, xlabel="step from the event on", ylabel="step length / learning rate", ylim=(0, None))
    axes[1].legend()
    return figure


@plots.style()
def picture_schedules(warmup: float = 5, decay: float = 30):
    """The learning rate's multiplier over a run: BERT's plan, and warmup-stable-decay with its three decays.

    `warmup` and `decay` are per cent of the run.
    """
    figure, axes = plots.panels(12, 3.6, 2)
    recipe = Recipe.preset("modernbert").replace(
        tokens=10_000 * 98_304 * 8, warmup_tokens=round(98_304 * 800 * warmup),
        decay_tokens=round(98_304 * 800 * decay),
    )  # fmt: skip
    share = [i / 500 for i in range(501)]
    begin = 1 - recipe.decay_tokens / recipe.tokens
    for name, look in SHAPE_LOOKS.items():
        changes = dict(schedule="linear") if name == "BERT's" else dict(decay_shape=name)
        plan = recipe.replace(**changes)
        values = [multiplier(plan, s * plan.tokens) for s in share]
        label = "BERT: warm-up, linear decay" if name == "BERT's" else f"warmup-stable-decay, {name}"
        plots.draw_line(axes[0], [100 * s for s in share], values, look, label, markevery=(20, 60))
        if name != "BERT's":
            plots.draw_line(axes[1], [100 * s for s in share], values, look, f"{name}", markevery=15)
    axes[0].set(title="The whole run", xlabel="tokens seen (% of the run)", ylabel="multiplier of the learning rate")
    axes[1].set(title="The decay", xlabel="tokens seen (% of the run)", ylabel="multiplier of the learning rate")
    axes[1].set_xlim(100 * begin - 2, 101)
    axes[0].legend(loc="lower center")
    axes[1].legend()
    return figure


@plots.style()
def picture_batches(recipe: Recipe):
    """The batch against tokens, and how many steps each size lasts."""
    figure, axes = plots.panels(11, 3.4, 2)
    sizes, tokens, at = list(step_sizes(recipe)), 0, []
    for size in sizes:
        at.append(tokens)
        tokens += size
    look = {**plots.STYLES["ModernBERT"], "marker": ""}
    axes[0].step([t / 1e9 for t in at], [size / recipe.length for size in sizes], where="post", **look)
    axes[0].set(title="The batch grows", xlabel="tokens seen (billions)", ylabel="sequences in a step", ylim=(0, None))
    below = [size for size in dict.fromkeys(sizes) if size < recipe.tokens_per_step]
    counts = [sizes.count(size) for size in below]
    names = [f"{size // recipe.length:,}" for size in below]
    axes[1].bar(names, counts, width=0.6, color=plots.STYLES["ModernBERT"]["color"])
    for place, count in enumerate(counts):
        axes[1].annotate(
            f"{count:,}", (place, count), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=9
        )
    axes[1].set(title="Equally many steps at each size", xlabel="sequences in a step", ylabel="steps")
    axes[1].margins(y=0.12)
    return figure


@plots.style()
def picture_init(model: MaskedLM):
    """Standard deviation of each matrix by layer, as drawn and by formula."""
    figure, (ax,) = plots.panels(8, 3.4, 1)
    formula = std_by_formula(model.config)
    for place, ((kind, values), look) in enumerate(zip(std_by_matrix(model).items(), plots.MORE_STYLES, strict=False)):
        beside = [layer + (-0.18, 0.18)[place % 2] for layer in range(len(values))]  # or one would hide the other
        plots.draw_line(ax, beside, values, {**look, "linestyle": ""}, f"{kind}, drawn", markersize=6)
    L = model.config.num_hidden_layers
    for value, words in ((formula["mlp.Wi"], "0.8796 $\\cdot$ 0.02"), (formula["mlp.Wo"],
                         f"0.8796 $\\cdot$ 0.02 / $\\sqrt{{2 \\cdot {L}}}$")):  # fmt: skip
        ax.axhline(value, color=plots.FAINT, linewidth=1, linestyle=(0, (2, 2)))
        ax.annotate(words, (L - 1, value), xytext=(0, 5), textcoords="offset points", ha="right")
    ax.set(xlabel="layer", ylabel="standard deviation", ylim=(0, 1.25 * formula["mlp.Wi"]))
    ax.set_title("The weights at the start")
    ax.legend(loc="center left", ncols=2)
    return figure


@plots.style()
def plot_ablation(records: Sequence[dict]):
    """Held-out loss against tokens for each recipe and seed, and what remains between them at the end."""
    from matplotlib.ticker import EngFormatter

    chosen = [r for r in records if r["what"] == "held_out_loss" and r.get("purpose") == "final"]
    figure, (left, right) = plots.panels(12, 4.2, 2, chosen, width_ratios=(1.5, 1))
    for variant, look in LOOKS.items():
        mine = [r for r in chosen if r["model"] == variant]
        for i, seed in enumerate(dict.fromkeys(r["seed"] for r in mine)):
            curve = [r for r in mine if r["seed"] == seed]
            label = variant if i == 0 else None
            plots.draw_line(left, [r["tokens"] for r in curve], [r["value"] for r in curve], look, label, alpha=0.8)
    plots.entropy_line(left, records)
    left.set(
        xlabel="real tokens seen", ylabel="held-out loss (nats)", title="One line a seed, all judged at 15 % masked"
    )
    left.xaxis.set_major_formatter(EngFormatter(sep=" "))
    left.legend()
    _plot_differences(right, records)
    return figure


def _plot_differences(ax, records: Sequence[dict]) -> None:
    found = paired_differences(records, BASELINE)
    for place, d in enumerate(found):
        look = LOOKS[d.model]
        ax.plot([d.low, d.high], [place, place], color=look["color"], linewidth=2)
        ax.plot(list(d.by_seed.values()), [place] * len(d.by_seed), linestyle="", marker=look["marker"], markersize=8,
                color=look["color"], markeredgecolor="white")  # fmt: skip
        ax.plot([d.mean], [place], marker="|", markersize=22, markeredgewidth=2, color=look["color"])
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(range(len(found)), [d.model for d in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set(title="At the end, seed by seed", xlabel="loss minus that of ModernBERT's recipe (nats)")
    ax.locator_params(axis="x", nbins=6)


@plots.style()
def plot_rms(records: Sequence[dict]):
    """r of every tensor over training: the middle tensor, the middle 80 %, and the largest of each step."""
    found = [r for r in records if r["what"] == "update_rms"]
    figure, (left, right) = plots.panels(12, 4.2, 2, found, width_ratios=(1.5, 1))
    by_step: dict[int, list[float]] = {}
    by_kind: dict[str, list[float]] = {}
    for r in found:
        by_step.setdefault(r["step"], []).append(r["value"])
        by_kind.setdefault(kind_of(r["parameter"]), []).append(r["value"])
    quantiles = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    low, middle, high, top = zip(*(torch.tensor(v, dtype=torch.float64).quantile(quantiles).tolist()
                                   for v in by_step.values()), strict=True)  # fmt: skip
    left.fill_between(list(by_step), low, high, color="#bcd0e5", label="middle 80 % of the tensors")
    plots.draw_line(left, list(by_step), middle, {**plots.STYLES["ModernBERT"], "marker": ""}, "the middle tensor")
    largest = {**plots.MORE_STYLES[1], "marker": ""}
    plots.draw_line(left, list(by_step), top, largest, "the largest", linewidth=1)
    left.axhline(1, color="black", linewidth=1)
    left.set(xlabel="training step", ylabel="r", yscale="log", title="Above the black line the update is clipped")
    left.legend()
    plain = [0.5, 1, 2, 3, 5, 8]
    left.set_yticks(
        [y for y in plain if min(low) <= y <= max(top)], [f"{y:g}" for y in plain if min(low) <= y <= max(top)]
    )
    left.minorticks_off()
    shares = {kind: 100 * sum(v > 1 for v in values) / len(values) for kind, values in by_kind.items()}
    right.barh(list(shares), list(shares.values()), color="#7f9fc0", edgecolor="black", linewidth=0.6)
    right.invert_yaxis()
    right.set(xlabel="updates that are clipped (%)", title="By kind of tensor")
    return figure


def kind_of(parameter: str) -> str:
    """What a parameter's name says it is: "norms", or the name of its matrix or bias."""
    names = {"norm": "norms", "tok_embeddings": "embedding", "Wqkv": "attention Wqkv", "attn.Wo": "attention Wo",
             "Wi": "MLP Wi", "mlp.Wo": "MLP Wo", "head": "head's matrix", "decoder_bias": "decoder's bias"}  # fmt: skip
    return next((kind for part, kind in names.items() if part in parameter), parameter)


@plots.style()
def plot_cost(records: Sequence[dict]):
    """What masking more costs a training step, and what the optimizers' steps cost."""
    steps = [r for r in records if r["what"] == "step_seconds"]
    kept = [r for r in records if r["what"] == "kept_bytes"]
    alone = [r for r in records if r["what"] == "optimizer_seconds"]
    figure, axes = plots.panels(13, 3.8, 3, steps)
    for ax, rows, unit, label, title in (
        (axes[0], steps, 1e-3, "time (ms)", "Forward and backward"),
        (axes[1], kept, plots.MIB, "kept for backward (MiB)", "Memory"),
        (axes[2], alone, 1e-3, "time (ms)", "The optimizer's step alone"),
    ):
        values = [r["value"] / unit for r in rows]
        names = [r["model"].replace(", ", ",\n") for r in rows]
        errors = [r.get("spread", 0) / unit / 2 for r in rows]
        bars = dict(yerr=errors, capsize=4, ecolor="black") if any(errors) else {}
        ax.bar(names, values, width=0.6, color=plots.FAINT, **bars)
        for place, value in enumerate(values):
            ax.annotate(f"{value:.3g}", (place, value / 2), ha="center", color="white", fontsize=10)
        ax.set(ylabel=label, title=title)
    base = steps[0]
    formula = [r["flops"] / base["flops"] * base["value"] * 1e3 for r in steps]
    axes[0].plot(range(len(steps)), formula, "x", color="black", markersize=9, label="by operations, from the first")
    axes[0].legend(loc="upper left")
    axes[0].set_ylim(0, 1.3 * max(formula + [1e3 * r["value"] for r in steps]))
    for ax in axes[:2]:
        ax.set_xlabel("tokens masked")
    return figure


FIGURES = {
    "08_mlm_pretraining_ablation": plot_ablation,
    "08_mlm_pretraining_clipping": plot_rms,
    "08_mlm_pretraining_cost": plot_cost,
}
