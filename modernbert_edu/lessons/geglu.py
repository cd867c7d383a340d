"""What 05_geglu measures, and its figures.

    toy        plot_toy                                  four tokens through two gated units
    fits       fit_functions, plot_fits                  a product and a maximum, learnt by both MLPs
    activity   gate_activity, plot_gates, plot_products  what the gates of a model do on real text
    ablation   gelu_variants, plot_gelu_ablation         ModernBERT with a GELU MLP, equally large or equally wide
    cost       measure_cost, kept_numbers, plot_speed, plot_memory

Shapes: T tokens, D hidden, I intermediate (the width of one half).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..classroom.scale import GegluScale
from ..config import EncoderConfig
from ..data.batches import pad_batch
from ..errors import InputError
from ..measure import ablation, ablation_plots, memory, plots, speed
from ..mlp import GeGLU, GeluMLP, gated_gelu
from ..model import MaskedLM
from ..runtime import progress
from .shared import side_of_zero, where_measured, with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GELU, EQUAL_SIZE, EQUAL_WIDTH = "GELU", "GeGLU, equal parameters", "GeGLU, equal width"
STYLES = {
    GELU: plots.STYLES["BERT"],
    EQUAL_SIZE: plots.STYLES["ModernBERT"],
    EQUAL_WIDTH: plots.MORE_STYLES[0],
}


def _panels(columns: int, width: float, height: float = 4.0, rows: int = 1, **options):
    """A figure whose margins the caller sets, and its axes in rows."""
    figure = plots.new_figure(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


# ---- toy -------------------------------------------------------------------------------------------------------------


@plots.style()
def plot_toy(h_TI: Tensor, tokens: Sequence[str]) -> Figure:
    """(T, 2 I) numbers from Wi -> four tables side by side: value, gelu(value), gate, and their product."""
    value_TI, gate_TI = h_TI.chunk(2, dim=-1)
    shown = {
        "value": value_TI,
        "gelu(value)": F.gelu(value_TI),
        "gate": gate_TI,
        "gelu(value) x gate": gated_gelu(h_TI),
    }
    figure = plots.new_figure(9, 2.9)
    figure.subplots_adjust(left=0.09, right=0.99, top=0.8, bottom=0.14, wspace=0.12)
    largest = max(table.abs().max().item() for table in shown.values())
    for ax, (title, table) in zip(figure.subplots(1, 4), shown.items(), strict=True):
        ax.imshow(table.abs().numpy(), vmin=0, vmax=1.3 * largest, aspect="auto")
        plots.frame_image(ax)
        for (row, column), number in zip(
            torch.cartesian_prod(*map(torch.arange, table.shape)), table.flatten(), strict=True
        ):
            dark = abs(number) > 0.85 * largest
            ax.text(column, row, f"{number:.3f}", ha="center", va="center", color="white" if dark else "black")
        ax.set_title(title)
        ax.set_xticks(range(table.shape[1]), [f"unit {i}" for i in range(table.shape[1])])
        ax.set_yticks(range(len(tokens)), tokens if title == "value" else [""] * len(tokens))
        ax.tick_params(length=0)
    figure.suptitle("Four tokens through two gated units (darker: larger in size)")
    return figure


# ---- fits ------------------------------------------------------------------------------------------------------------

# With two inputs the biases weigh: 5 W + 2 parameters against 8 I + 2, so 20 gated units are as many as 32 plain ones.
FIT_WIDTHS = {GELU: 32, EQUAL_SIZE: 20}
FIT_RATE, FIT_INSIDE, FIT_OUTSIDE = 0.03, 2.0, 4.0
TARGETS = {"product": lambda x: x[:, 0] * x[:, 1], "maximum": lambda x: x.amax(dim=1)}


def small_mlp(name: str, hidden: int, width: int, bias: bool = True) -> nn.Module:
    """One MLP of the package alone, with torch's initial weights."""
    kind = "gelu" if name == GELU else "geglu"
    config = EncoderConfig(hidden_size=hidden, num_attention_heads=1, intermediate_size=width, mlp=kind, bias=bias)
    return (GeluMLP if kind == "gelu" else GeGLU)(config)


def fit_functions(steps: int, seeds: Sequence[int]) -> list[dict]:
    """Both MLPs learn x1 x2 and max(x1, x2) from a grid of 225 points in [-2, 2]^2: -> records of their RMS errors.

    `where` "inside" is between the points of training, "outside" the ring around them up to 4. On the CPU, in float32.
    """
    inside, between, ring = _grid(FIT_INSIDE, 15), _grid(FIT_INSIDE, 40), _grid(FIT_OUTSIDE, 41)
    places = {"inside": between, "outside": ring[ring.abs().amax(dim=1) > FIT_INSIDE]}
    records, facts = [], where_measured(torch.device("cpu"), torch.float32)
    for target, function in TARGETS.items():
        for name, width in FIT_WIDTHS.items():
            for seed in seeds:
                torch.manual_seed(seed)
                mlp = small_mlp(name, 2, width)
                _fit(mlp, inside, function(inside), steps)
                for where, x in places.items():
                    with torch.no_grad():
                        error = (mlp(x)[:, 0] - function(x)).pow(2).mean().sqrt().item()
                    records.append(facts | dict(what="fit_error", value=error, unit="rms", model=name, target=target,
                                                where=where, seed=seed, steps=steps))  # fmt: skip
    return records


def _grid(limit: float, n: int) -> Tensor:
    line = torch.linspace(-limit, limit, n)
    return torch.cartesian_prod(line, line)


def _fit(mlp: nn.Module, x_T2: Tensor, y_T: Tensor, steps: int) -> None:
    """Adam on the squared error of the first output, the rate falling linearly to zero."""
    optimizer = torch.optim.Adam(mlp.parameters(), lr=FIT_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (plain_forward(mlp, x_T2)[:, 0] - y_T).pow(
            2
        ).mean().backward()  # so small that recomputing would cost time only
        optimizer.step()
        schedule.step()


def fit_rows(records: Sequence[dict]) -> list[tuple[str, str, float, float, str]]:
    """[(target, where, mean error of GELU, of GeGLU, their ratio)]: below 1 is good for the gate."""
    rows = []
    for target in TARGETS:
        for where in ("inside", "outside"):
            here = [r for r in records if (r["what"], r.get("target"), r.get("where")) == ("fit_error", target, where)]
            plain, gated = (fmean([r["value"] for r in here if r["model"] == name]) for name in FIT_WIDTHS)
            rows.append((target, where, plain, gated, f"{gated / plain:.2f}"))
    return rows


@plots.style()
def plot_fits(records: Sequence[dict]) -> Figure:
    """One panel a target: the error of each seed, inside and outside the region of training, on a log scale."""
    chosen = [r for r in records if r["what"] == "fit_error"]
    figure, axes = _panels(2, 9, 3.8)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.84, bottom=0.26, wspace=0.25)
    titles = {"product": "target: x1 x2", "maximum": "target: max(x1, x2)"}
    for ax, (target, title) in zip(axes[0], titles.items(), strict=True):
        for shift, name in ((-0.12, GELU), (0.12, EQUAL_SIZE)):
            look = STYLES[name] | dict(linestyle="none", markersize=7, fillstyle="none", markeredgewidth=1.6)
            places = [(place, where) for place, where in enumerate(("inside", "outside"))]
            points = [(x + shift, r["value"]) for x, where in places for r in chosen
                      if (r["target"], r["model"], r["where"]) == (target, name, where)]  # fmt: skip
            ax.plot(*zip(*points, strict=True), label=name, **look)
        ax.set(yscale="log", xlim=(-0.5, 1.5), title=title, ylabel="RMS error, log scale")
        plots.ticks_within_decades(ax)
        ax.set_xticks([0, 1], [f"inside: |x| up to {FIT_INSIDE:g}", f"outside: up to {FIT_OUTSIDE:g}"])
    plots.legend_below(figure, axes[0][0])
    figure.suptitle("Two functions, two MLPs of 162 parameters; points: seeds")
    return plots.finish(figure, chosen, own=True)


# ---- activity --------------------------------------------------------------------------------------------------------

NEAR_ZERO = 0.1  # a product is near zero when it is smaller than this share of its layer's RMS
BINS = 80


@torch.no_grad()
def gate_activity(model: MaskedLM, sequences: Sequence[list[int]], stage: str, dtype: str = "float32") -> list[dict]:
    """What gelu(value), gate and their product are in each layer on these sequences: -> records, three kinds a layer.

    "gate_histogram"     of `part` "activated" or "gate": counts between -limit and limit, `value` its RMS
    "near_zero"          share of products under 0.1 RMS of all products of the layer
    "co_activation"      RMS of the products over the product of the two RMS: 1 where the sizes are independent
    Raises `InputError` for a model without GeGLU.
    """
    if model.config.mlp != "geglu":
        raise InputError('only a model with mlp="geglu" has gates to look at')
    halves = [h.chunk(2, dim=-1) for h in _wi_outputs(model, sequences)]
    parts = [{"activated": F.gelu(value), "gate": gate} for value, gate in halves]
    # A few values lie far out, so the axis ends where 99.8 % of the widest layer's are.
    limit = max(_quantile(part.abs(), 0.998) for layer in parts for part in layer.values())
    facts = where_measured(model.decoder_bias.device, dtype) | dict(model="ModernBERT", stage=stage)
    records = []
    for layer, both in enumerate(parts):
        here = facts | dict(layer=layer, numbers=both["gate"].numel())
        for part, x in both.items():
            counts = torch.histc(x, BINS, -limit, limit).tolist()
            records.append(here | dict(what="gate_histogram", part=part, value=_rms(x), unit="rms", limit=limit,
                                       counts=counts))  # fmt: skip
        product = both["activated"] * both["gate"]
        near = (product.abs() < NEAR_ZERO * _rms(product)).float().mean().item()
        together = _rms(product) / (_rms(both["activated"]) * _rms(both["gate"]))
        records.append(here | dict(what="near_zero", value=near, unit="share"))
        records.append(here | dict(what="co_activation", value=together, unit="ratio"))
        records.append(here | dict(what="product_rms", value=_rms(product), unit="rms"))
    return records


def _wi_outputs(model: MaskedLM, sequences: Sequence[list[int]]) -> list[Tensor]:
    """What each layer's Wi gives, (T, 2 I) in float32 on the CPU, real tokens only."""
    caught: list[list[Tensor]] = [[] for _ in model.encoder.layers]
    hooks = [
        block.mlp.Wi.register_forward_hook(lambda _module, _inputs, h, own=own: own.append(h.float().cpu()))
        for block, own in zip(model.encoder.layers, caught, strict=True)
    ]
    ids, mask = pad_batch(sequences, model.config.pad_token_id)
    device, was_training = model.decoder_bias.device, model.training
    try:
        model.eval().encoder(ids.to(device), mask.to(device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return [torch.cat(own) for own in caught]


def _rms(x: Tensor) -> float:
    return x.pow(2).mean().sqrt().item()


def _quantile(x: Tensor, q: float) -> float:
    """By sorting: `torch.quantile` refuses more than 16 million numbers."""
    ordered = x.flatten().sort().values
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))].item()


def rms_rows(records: Sequence[dict], layer: int, s: float) -> list[tuple[str, float, float, float]]:
    """[(what, expected at the start, measured at the start, trained)]: RMS of gate, gelu(value) and product of a layer.

    `s` is the standard deviation of what Wi gives; for small s the gelu is nearly half of its input.
    """
    found = {(r.get("part", r["what"]), r["stage"]): r["value"] for r in records if r["layer"] == layer}
    names = {"gate": ("gate", s), "gelu(value)": ("activated", s / 2), "product": ("product_rms", s * s / 2)}
    return [(name, size, found[part, "at the start"], found[part, "trained"]) for name, (part, size) in names.items()]


def activity_rows(records: Sequence[dict]) -> list[tuple[str, str, str]]:
    """[(what, at the start, trained)]: near-zero share and co-activation, means over the layers."""
    rows = []
    for what, name in (("near_zero", "near zero (share of products)"), ("co_activation", "co-activation (ratio)")):
        means = [fmean([r["value"] for r in records if (r["what"], r["stage"]) == (what, stage)])
                 for stage in ("at the start", "trained")]  # fmt: skip
        rows.append((name, *(f"{mean:.2f}" for mean in means)))
    return rows


def _some_layers(records: Sequence[dict], most: int = 4) -> list[int]:
    """First and last layer and others evenly between."""
    layers = sorted({r["layer"] for r in records})
    if len(layers) <= most:
        return layers
    return [layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most)]


@plots.style()
def plot_gates(records: Sequence[dict]) -> Figure:
    """Distribution of gelu(value) and gate, one column a layer, one row a stage; densities on a log scale."""
    chosen = [r for r in records if r["what"] == "gate_histogram"]
    stages, layers = list(dict.fromkeys(r["stage"] for r in chosen)), _some_layers(chosen)
    figure, axes = _panels(len(layers), 2.7 * len(layers), 2.5 * len(stages) + 0.6, rows=len(stages))
    figure.subplots_adjust(left=0.085, right=0.99, top=0.87, bottom=0.15, wspace=0.2, hspace=0.45)
    looks = {
        "gate": plots.MORE_STYLES[0] | dict(marker="", label="gate"),
        "activated": plots.MORE_STYLES[1] | dict(marker="", label="gelu(value)"),
    }
    for row, stage in zip(axes, stages, strict=True):
        for ax, layer in zip(row, layers, strict=True):
            for part, look in looks.items():
                record = next(r for r in chosen if (r["stage"], r["layer"], r["part"]) == (stage, layer, part))
                width = 2 * record["limit"] / BINS
                centres = [-record["limit"] + (i + 0.5) * width for i in range(BINS)]
                density = [count / (record["numbers"] * width) or None for count in record["counts"]]
                ax.plot(centres, [float("nan") if y is None else y for y in density], linewidth=1.5, **look)
            ax.set(yscale="log", title=f"layer {layer}, {stage}")
    figure.supylabel("density, log scale", fontsize=9.5)
    figure.supxlabel("gate or gelu(value)", y=0.06, fontsize=9.5)
    axes[0][0].legend()
    figure.suptitle("What the two halves of a GeGLU hold, by layer (rows differ in range)")
    return plots.finish(figure, chosen, own=True)


@plots.style()
def plot_products(records: Sequence[dict]) -> Figure:
    """By layer and stage: share of near-zero products, and whether value and gate are large together."""
    panels = {
        "near_zero": ("near zero (share of products)", f"Products under {NEAR_ZERO:g} of their layer's RMS"),
        "co_activation": ("co-activation (ratio)", "RMS of products / (RMS of gelu(value) x RMS of gate)"),
    }
    chosen = [r for r in records if r["what"] in panels]
    figure, axes = _panels(2, 9, 3.8)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.83, bottom=0.22, wspace=0.25)
    for ax, (what, (label, title)) in zip(axes[0], panels.items(), strict=True):
        for stage, look in zip(dict.fromkeys(r["stage"] for r in chosen), plots.MORE_STYLES, strict=False):
            mine = [(r["layer"], r["value"]) for r in chosen if (r["what"], r["stage"]) == (what, stage)]
            ax.plot(*zip(*mine, strict=True), label=stage, markersize=6, **look)
        layers = sorted({r["layer"] for r in chosen})
        ax.set_xticks(layers)
        ax.set(xlabel="layer", ylim=(0, 1.15 * max(r["value"] for r in chosen if r["what"] == what)))
        ax.set_ylabel(label)
        ax.set_title(title)
    axes[0][1].axhline(1, color=plots.FAINT, linewidth=1)
    axes[0][1].annotate("1: sizes independent", (axes[0][1].get_xlim()[1], 1), xytext=(0, -4),
                        textcoords="offset points", ha="right", va="top", fontsize=8, color=plots.FAINT)  # fmt: skip
    axes[0][0].legend(loc="lower right")
    figure.suptitle("The gated products on held-out text")
    return plots.finish(figure, chosen, own=True)


# ---- ablation --------------------------------------------------------------------------------------------------------

BASELINE = "ModernBERT"
RUNGS = ("+ rope", "+ geglu")
GELU_EQUAL_SIZE, GELU_EQUAL_WIDTH = "GELU, equal parameters", "GELU, equal width"


def gelu_variants(sizes: GegluScale, tokenizer) -> list[ablation.Variant]:
    """ModernBERT, and with a GELU MLP twice: as many parameters (1.5 times as wide), and as wide (smaller)."""
    changes = [dict(mlp="gelu")]
    base, matched = ablation.make_variants(changes, "modernbert", sizes, tokenizer)
    _, unmatched = ablation.make_variants(changes, "modernbert", sizes, tokenizer, matched=False)
    return [base, replace(matched, name=GELU_EQUAL_SIZE), replace(unmatched, name=GELU_EQUAL_WIDTH)]


def verdict(difference: ablation.Difference, baseline: str = BASELINE) -> str:
    """In words, what the interval of a difference in loss allows to say; it never depends on who should win."""
    d, ended = difference, "ended lower with these seeds"
    words = side_of_zero(d.low, d.high, above=f"{baseline} {ended}", below=f"{d.model} {ended}")
    return f"{d.model} minus {baseline}: {with_interval(d.mean, d.low, d.high, 'nats')}: {words}"


def ablation_records(records: Sequence[dict]) -> list[dict]:
    return [r for r in records if r["what"] == "unigram_entropy" or r.get("purpose") == "final"]


def ladder_rungs(records: Sequence[dict]) -> list[dict]:
    """Of a recorded ladder, the two rungs that differ in the MLP alone; an empty list where one is missing."""
    chosen = [r for r in records if r["what"] == "unigram_entropy" or r.get("model") in RUNGS]
    trained = {r["model"] for r in chosen if r.get("purpose") == "final"}
    return chosen if trained == set(RUNGS) else []


@plots.style()
def plot_gelu_ablation(records: Sequence[dict]) -> Figure:
    """The live ablation: curves against tokens and seconds, and the paired differences."""
    return ablation_plots.plot_ablation(ablation_records(records), BASELINE, "GeGLU against GELU in ModernBERT")


# ---- cost ------------------------------------------------------------------------------------------------------------


def kept_numbers(name: str, D: int, W: int, recompute: bool) -> int:
    """Numbers that one MLP keeps for its backward pass, by formula, for each token.

    `W` is the width of one half for GeGLU. Kept are the input and what Wi gives; without recomputation also the
    activated values and, for GeGLU, the products. A half is a view: it keeps what Wi gave, which counts once.
    """
    halves = 1 if name == GELU else 2
    return D + halves * W + (0 if recompute else halves * W)


def plain_forward(mlp: nn.Module, x_TD: Tensor) -> Tensor:
    """What the MLP computes, with every intermediate kept as autograd does by itself."""
    h_TI = mlp.Wi(x_TD)
    return mlp.Wo(gated_gelu(h_TI) if isinstance(mlp, GeGLU) else F.gelu(h_TI))


def kept_bytes(mlp: nn.Module, x_TD: Tensor, recompute: bool = True) -> int:
    """Bytes that the MLP keeps for its backward pass, measured, without its parameters."""
    forward = partial(mlp, x_TD) if recompute else partial(plain_forward, mlp, x_TD)
    return memory.bytes_saved_for_backward(forward, exclude=mlp.parameters())


def contestants(D: int, W: int) -> dict[str, int]:
    """{name: width} for a GELU MLP of width W, the GeGLU with as many parameters (2/3 W), and the one as wide."""
    return {GELU: W, EQUAL_SIZE: round(2 * W / 3), EQUAL_WIDTH: W}


def measure_cost(sizes: GegluScale, device: torch.device) -> list[dict]:
    """Speed (forward and backward) and memory of the three MLPs against width, and against tokens: -> records."""
    D, records = sizes.cost_hidden, []
    points = [("width", sizes.cost_tokens[-1], W) for W in sizes.cost_widths]
    points += [("tokens", T, sizes.cost_widths[-1]) for T in sizes.cost_tokens]
    for axis, T, W in progress(points, desc="cost of both MLPs", unit="point"):
        for record in _cost_at(sizes, device, D, W, T):
            records.append(record | dict(axis=axis, tokens=T, width=W, hidden=D))
    return records


def _cost_at(sizes: GegluScale, device: torch.device, D: int, W: int, T: int) -> list[dict]:
    dtype = getattr(torch, sizes.dtype)
    facts = where_measured(device, dtype)
    torch.manual_seed(sizes.seed)
    x_TD = torch.randn(T, D, device=device, dtype=dtype, requires_grad=True)
    mlps = {name: small_mlp(name, D, width, bias=False).to(device, dtype) for name, width in contestants(D, W).items()}

    def step(mlp):
        mlp(x_TD).sum().backward()
        x_TD.grad = None
        mlp.zero_grad(set_to_none=True)

    times = speed.time_interleaved(
        {name: partial(step, mlp) for name, mlp in mlps.items()}, device=device, repeats=sizes.timing_repeats
    )
    records = []
    for name, mlp in mlps.items():
        rate, spread = (f(times[name], T) for f in (speed.tokens_per_second, speed.tokens_per_second_spread))
        here = facts | dict(model=name, parameters=sum(p.numel() for p in mlp.parameters()))
        records.append(here | dict(what="mlp_tokens_per_second", value=rate, spread=spread, unit="tokens/s",
                                   n=times[name].n))  # fmt: skip
        records.append(here | dict(what="mlp_kept_bytes", value=kept_bytes(mlp, x_TD), unit="bytes"))
    return records


@plots.style()
def plot_speed(records: Sequence[dict]) -> Figure:
    """Tokens per second of forward and backward against width and against tokens; bars: middle half of the repeats."""
    return _plot_cost(
        records, "mlp_tokens_per_second", 1, "tokens per second (tokens/s)", "Speed of one MLP, forward and backward"
    )


@plots.style()
def plot_memory(records: Sequence[dict]) -> Figure:
    """MiB kept for the backward pass against width and against tokens."""
    return _plot_cost(
        records, "mlp_kept_bytes", plots.MIB, "kept for the backward pass (MiB)", "Memory of one MLP in training"
    )


def _plot_cost(records: Sequence[dict], what: str, scale: float, label: str, title: str) -> Figure:
    chosen = [r for r in records if r["what"] == what]
    if not chosen:
        raise InputError(f"none of the {len(records)} records is of {what!r}; measure with measure_cost first")
    figure, axes = _panels(2, 9.5)
    figure.subplots_adjust(left=0.09, right=0.98, top=0.88, bottom=0.27, wspace=0.25)
    for ax, axis in zip(axes[0], ("width", "tokens"), strict=True):
        here = [r for r in chosen if r["axis"] == axis]
        for name in STYLES:
            mine = [r for r in here if r["model"] == name]
            half = [r.get("spread", 0) / scale / 2 for r in mine]
            ax.errorbar([r[axis] for r in mine], [r["value"] / scale for r in mine], yerr=half if any(half) else None,
                        label=name, **STYLES[name] | plots.BARS)  # fmt: skip
        ticks = sorted({r[axis] for r in here})
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(plots.plain_number)
        ax.set_ylabel(label)
        other = f"{here[0]['tokens']:,} tokens" if axis == "width" else f"GELU width {here[0]['width']:,}"
        unit = "width W of the GELU MLP" if axis == "width" else "tokens in the batch"
        plots.octaves(ax, ticks, f"{unit}, log scale ({other})")
    plots.legend_below(figure, axes[0][0])
    figure.suptitle(f"{title} (hidden size {chosen[0]['hidden']})")
    return plots.finish(figure, chosen, own=True)


def cost_ratios(records: Sequence[dict]) -> list[tuple]:
    """[(axis, width, tokens, name, time ratio, memory ratio)]: GeGLU over GELU, above 1 is worse."""
    found = {(r["axis"], r["width"], r["tokens"], r["model"], r["what"]): r["value"] for r in records
             if r["what"] in ("mlp_tokens_per_second", "mlp_kept_bytes")}  # fmt: skip
    rows = []
    for axis, width, tokens, model, what in found:
        if model != GELU and what == "mlp_kept_bytes":
            place = (axis, width, tokens)
            slower = found[*place, GELU, "mlp_tokens_per_second"] / found[*place, model, "mlp_tokens_per_second"]
            rows.append((*place, model, slower, found[*place, model, what] / found[*place, GELU, what]))
    return rows


def cost_rows(records: Sequence[dict]) -> list[tuple]:
    """`cost_ratios` for a table."""
    return [(f"{axis}: W {width:,}, {tokens:,} tokens", name, f"{slower:.2f}", f"{kept:.2f}")
            for axis, width, tokens, name, slower, kept in cost_ratios(records)]  # fmt: skip


FIGURES = {
    "05_geglu_fits": plot_fits,
    "05_geglu_gates": plot_gates,
    "05_geglu_products": plot_products,
    "05_geglu_ablation": plot_gelu_ablation,
    "05_geglu_speed": plot_speed,
    "05_geglu_memory": plot_memory,
}
