"""What 06_alternating_attention measures, and its figures.

    reach     gradients_by_layer, measure_receptive_field     which inputs an output depends on, by gradient and formula
    cost      measure_attention, measure_attention_memory     one layer over one document of 128 ... 32,768 tokens
              measure_short_documents                         where the window saves nothing
              measure_encoder                                 the whole model with the patterns G, GLL and L
    figures   draw_mask, and one function for each entry of FIGURES

Letters: T tokens, n tokens of one document, D hidden, w keys on each side ("half window").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..attention import BLOCK, attention, attention_mask, choose_backend
from ..classroom.scale import AlternatingScale
from ..config import EncoderConfig
from ..measure import ablation, ablation_plots, flops, memory, plots, speed
from ..measure.bench_report import slope
from ..model import Encoder
from ..runtime import progress
from ..unpadding import Layout
from .shared import side_of_zero, where_measured, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATTERNS = ("G", "GLL", "L")
MASKED = "L, full mask"  # the window as a mask over all pairs
EAGER = "G, eager"  # the weights of all pairs stored, as in the definition
STYLES = {
    "G": plots.STYLES["BERT"],
    "GLL": plots.STYLES["ModernBERT"],
    "L": plots.MORE_STYLES[0],
    "LLG": plots.MORE_STYLES[1],
    MASKED: dict(color="#505050", linestyle=(0, (1, 2)), marker="X"),
    EAGER: dict(color="#505050", linestyle=(0, (1, 2)), marker="X"),
}
SHORTEST = 1024  # tokens from which exponents are fitted: below, the fixed cost of a call shows
DEFINED, COMPUTED = ("#bbbbbb", "-"), ("#555555", (0, (4, 2)))  # formulas: pairs needed, pairs computed


def _facts(device: torch.device, dtype: torch.dtype) -> dict:
    return where_measured(device, dtype, backend=choose_backend(device, dtype)[0])


# ---- reach -----------------------------------------------------------------------------------------------------------


def tokens_seen(layer_types: str, window: int, token: int, length: int) -> int:
    """How many of `length` input tokens the output at `token` depends on after these layers ("GLLG": one letter each).

    A local layer carries what is `window` tokens away; a global one everything. The text ends where it ends.
    """
    if "G" in layer_types:
        return length
    reach = window * len(layer_types)
    return min(token + reach, length - 1) - max(token - reach, 0) + 1


def gradients_by_layer(encoder: Encoder, length: int, token: int) -> Tensor:
    """How strongly each layer's output at `token` depends on each input token: (layers, T), norms of gradients.

    An entry is exactly 0 where no path leads from the input to the output. The output is read through a random
    direction: the plain sum of a normalised vector is constant, and its gradient would vanish everywhere.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(encoder.config.vocab_size, (length,), generator=generator)
    probe_D = torch.randn(encoder.config.hidden_size, generator=generator, dtype=torch.float64)
    weight = encoder.embeddings.tok_embeddings.weight
    inputs_TD, *outputs = encoder(ids.to(weight.device), output_hidden_states=True).hidden_states
    probe_D = probe_D.to(weight)
    rows = [torch.autograd.grad(x_TD[token] @ probe_D, inputs_TD, retain_graph=True)[0] for x_TD in outputs]
    return torch.stack([row_TD.norm(dim=-1) for row_TD in rows]).detach()


def measure_receptive_field(patterns: Sequence[str], sizes: AlternatingScale) -> list[dict]:
    """Tokens seen from the middle of a text after each layer, by gradient and by formula, for stacks of each pattern.

    In float64 on the CPU: over many layers the gradients fall below what float32 can hold, and would count as 0.
    """
    n, records = sizes.field_length, []
    facts = dict(_facts(torch.device("cpu"), torch.float64), unit="tokens", length=n, token=n // 2)
    for pattern in patterns:
        config = EncoderConfig.preset(
            sizes.modernbert_preset, hidden_size=sizes.field_hidden, num_hidden_layers=sizes.field_layers,
            attention_pattern=pattern,
        )  # fmt: skip
        by_layer = gradients_by_layer(Encoder(config).double(), n, n // 2)
        for layer, row_T in enumerate(by_layer, start=1):
            formula = tokens_seen(config.layer_types[:layer], config.half_window, n // 2, n)
            records.append(facts | dict(
                what="receptive_field", model=pattern, layer=layer, value=int((row_T != 0).sum()), formula=formula,
                window=config.half_window, gradients=row_T.tolist(),
            ))  # fmt: skip
    return records


# ---- cost ------------------------------------------------------------------------------------------------------------


def measure_attention(sizes: AlternatingScale, device: torch.device, dtype: torch.dtype) -> list[dict]:
    """Seconds of one attention layer, forward, over one document of each length: G, GLL (mean of its layers), L.

    A pattern stops before a length at which one call is expected to take longer than `sizes.longest_call` seconds, and
    a record says so. The masks of a batch are made once for all its layers, so making them is not timed.
    """
    records, running = [], {name: 0.0 for name in (*PATTERNS, MASKED)}
    facts, H, K, w = _facts(device, dtype), sizes.heads, sizes.head_size, sizes.half_window
    for n in progress(sizes.lengths, desc="attention", unit="length"):
        expected = {name: seconds * 4 for name, seconds in running.items()}  # each length is twice the one before
        for name in [name for name, seconds in expected.items() if seconds > sizes.longest_call]:
            del running[name]
            stop = dict(what="stopped", model=name, length=n, value=expected[name], unit="s")
            records.append(facts | stop)
        if n > sizes.mask_up_to:
            running.pop(MASKED, None)
        q, k, v = torch.randn(3, n, H, K, device=device, dtype=dtype)
        calls = _layers(q, k, v, Layout.from_lengths([n], device), w)
        with torch.inference_mode():
            times = speed.time_interleaved(
                {name: calls[name] for name in running}, device=device, repeats=sizes.timing_repeats,
                budget_seconds=sizes.timing_budget,
            )  # fmt: skip
        for name, timing in times.items():
            layers = 3 if name == "GLL" else 1
            running[name] = 0.0 if name == "L" else timing.median  # L grows with n alone: it never stops
            pairs = _pairs(n, w)
            needed = {"G": n * n, "GLL": (n * n + 2 * pairs["needed"]) / 3}.get(name, pairs["needed"])
            records.append(facts | dict(
                what="attention_seconds", model=name, length=n, value=timing.median / layers, n=timing.n, unit="s",
                spread=timing.spread / layers, minimum=timing.minimum / layers, heads=H, head_size=K,
                window=w, needed=needed, in_blocks=pairs["in_blocks"],
            ))  # fmt: skip
    return records


def _pairs(n: int, window: int) -> dict[str, int]:
    """Pairs that a local layer needs in a document of n tokens, and those that blocks of 64 queries compute."""
    return dict(needed=flops.pairs_in_window(n, window), in_blocks=flops.local_pairs_in_blocks([n], window))


def _layers(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int) -> dict[str, Callable]:
    """One attention layer of each kind, ready to be timed; GLL is three layers."""
    G, L = (partial(attention, q, k, v, layout, window=w) for w in (None, window))
    mask: list[Tensor] = []

    def masked() -> Tensor:
        if not mask:  # made at the first call, which is the warm-up
            mask.append(attention_mask(layout, window))
        heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=mask[0])

    return {"G": G, "GLL": lambda: (G(), L(), L()), "L": L, MASKED: masked}


def fit_slope(records: Sequence[dict], model: str, shortest: int) -> float | None:
    """The exponent p of seconds ~ n^p, by least squares on the logarithms, over lengths from `shortest` on.

    None where fewer than two lengths are left.
    """
    points = [(r["length"], r["value"]) for r in records
              if r["what"] == "attention_seconds" and r["model"] == model and r["length"] >= shortest]  # fmt: skip
    return slope(points) if len(points) > 1 else None


def measure_attention_memory(sizes: AlternatingScale, device: torch.device, dtype: torch.dtype) -> list[dict]:
    """Bytes that one attention layer needs in training, over one document: eager, fused, and in blocks.

    On CUDA the allocator's peak of forward and backward, elsewhere what autograd keeps, q, k and v included.
    `mask_bytes` is the part of L that is made once for all local layers.
    """
    records, facts = [], _facts(device, dtype)
    for n in progress(sizes.memory_lengths, desc="memory", unit="length"):
        layout = Layout.from_lengths([n], device)
        q, k, v = (torch.randn(n, sizes.heads, sizes.head_size, device=device, dtype=dtype, requires_grad=True)
                   for _ in range(3))  # fmt: skip
        calls = {"G": dict(window=None), "L": dict(window=sizes.half_window)}
        if n <= sizes.mask_up_to:
            calls[EAGER] = dict(window=None, backend="eager")
        for name, how in calls.items():
            value, counted = _training_bytes(partial(attention, q, k, v, layout, **how), device)
            shared = sum(mask.nbytes for mask in layout.plans.values()) if name == "L" else 0
            records.append(facts | dict(
                what="attention_bytes", model=name, length=n, value=value, unit="bytes", how=counted, mask_bytes=shared
            ))  # fmt: skip
    return records


def _training_bytes(forward: Callable[[], Tensor], device: torch.device, exclude: Sequence[Tensor] = ()):
    """(bytes, how they were counted) of forward and backward."""
    if device.type == "cuda":
        found = memory.peak_memory(lambda: forward().sum().backward(), device)
        return found.added, "peak allocated during forward and backward, above what was allocated before"
    return memory.bytes_saved_for_backward(forward, exclude), "kept for the backward pass"


def measure_short_documents(sizes: AlternatingScale, device: torch.device, dtype: torch.dtype) -> list[dict]:
    """Seconds of a global and of a local layer over the same number of tokens, cut into documents of each length."""
    records, facts, w = [], _facts(device, dtype), sizes.half_window
    for n in progress(sizes.short_lengths, desc="short documents", unit="length"):
        lengths = [n] * max(1, sizes.short_tokens // n)
        q, k, v = torch.randn(3, sum(lengths), sizes.heads, sizes.head_size, device=device, dtype=dtype)
        calls = _layers(q, k, v, Layout.from_lengths(lengths, device), w)
        with torch.inference_mode():
            times = speed.time_interleaved(
                {name: calls[name] for name in ("G", "L")}, device=device, repeats=sizes.short_repeats
            )
        for name, timing in times.items():
            records.append(facts | dict(
                what="packed_seconds", model=name, length=n, documents=len(lengths), value=timing.median,
                spread=timing.spread, n=timing.n, unit="s", window=w,
                in_blocks=flops.local_pairs_in_blocks(lengths, w) / len(lengths),
            ))  # fmt: skip
    return records


def measure_encoder(sizes: AlternatingScale, device: torch.device, dtype: torch.dtype) -> list[dict]:
    """Tokens per second forward, and bytes for training, of one encoder with the patterns G, GLL and L.

    The batch always holds `sizes.encoder_tokens` tokens, cut into sequences of each length.
    """
    base = EncoderConfig.preset(sizes.modernbert_preset, num_hidden_layers=sizes.encoder_layers)
    records, facts, tokens = [], _facts(device, dtype), sizes.encoder_tokens
    encoders = {p: Encoder(base.replace(attention_pattern=p)).to(device, dtype) for p in PATTERNS}
    for n in progress(sizes.encoder_lengths, desc="encoder", unit="length"):
        ids = torch.randint(base.vocab_size, (tokens // n, n), device=device)
        calls = {pattern: speed.forward_call(encoder, ids, None) for pattern, encoder in encoders.items()}
        times = speed.time_interleaved(
            calls, device=device, repeats=sizes.timing_repeats, budget_seconds=sizes.timing_budget
        )
        for pattern, encoder in encoders.items():
            here = facts | dict(model=pattern, length=n, layers=encoder.config.layer_types, batch_tokens=ids.numel())
            rate, spread = (
                f(times[pattern], ids.numel()) for f in (speed.tokens_per_second, speed.tokens_per_second_spread)
            )
            bytes_, how = _training_bytes(
                lambda encoder=encoder, ids=ids: encoder(ids).last_hidden_state, device, [*encoder.parameters()]
            )
            encoder.zero_grad(set_to_none=True)
            needed = flops.forward_flops(encoder.config, [n] * len(ids)).total
            here["flops"] = needed
            records.append(here | dict(what="forward_tokens_per_second", value=rate, spread=spread, unit="tokens/s"))
            records.append(here | dict(what="train_memory_bytes", value=bytes_, unit="bytes", how=how))
    return records


# ---- in words --------------------------------------------------------------------------------------------------------


def verdicts(records: Sequence[dict]) -> list[str]:
    """One line a variant of the ablation: the difference from ModernBERT, and what can be said of it."""
    past, lines = ablation.past_plateau(records), []
    for d in ablation.paired_differences(records, "ModernBERT"):
        seeds = len(d.by_seed)
        verdict = side_of_zero(d.low, d.high, above="ended higher", below="ended lower")
        verdict = verdict if seeds > 1 else "one seed decides nothing"
        if not (past["ModernBERT"] and past[d.model]):
            verdict += "; training ended on the plateau, where attention hardly matters yet"
        interval = with_interval(d.mean, d.low, d.high, "nats")
        lines.append(f"{d.model}: {interval}, {seeds} seed{'s' * (seeds > 1)}: {verdict}")
    return lines


def cost_in_words(records: Sequence[dict]) -> list[str]:
    """Where a pattern stopped, the fitted exponents, and the ratios at the longest text that G was measured on."""
    lines = [
        f"{r['model']} stops before {r['length']:,} tokens: one call would take about {r['value']:.1f} s"
        for r in records
        if r["what"] == "stopped"
    ]
    formulas = {"G": "n^2", "GLL": "n^2 in the end, a third of G", "L": "n", MASKED: "n^2"}
    for model, formula in formulas.items():
        slope = fit_slope(records, model, SHORTEST)
        fitted = "too few lengths to fit" if slope is None else f"n^{slope:.2f}"
        lines.append(f"{model}: {fitted} from {SHORTEST:,} tokens on; formula: {formula}")
    times = {(r["model"], r["length"]): r["value"] for r in records if r["what"] == "attention_seconds"}
    n = max(n for model, n in times if model == "G" and ("GLL", n) in times)
    ratios = {model: times["G", n] / times[model, n] for model in ("L", "GLL")}
    lines.append(f"at {n:,} tokens L takes 1/{ratios['L']:.0f} of G's time, and GLL 1/{ratios['GLL']:.1f}")
    kept = [r for r in records if r["what"] == "attention_bytes" and r["model"] == "L"][-1]
    if kept["mask_bytes"]:
        lines.append(
            f"memory of L at {kept['length']:,} tokens: {kept['value'] / plots.MIB:.1f} MiB, of which "
            f"{kept['mask_bytes'] / plots.MIB:.1f} MiB are the mask that all local layers share"
        )
    return lines


# ---- figures ---------------------------------------------------------------------------------------------------------


@plots.style()
def draw_mask(length: int, window: int, documents: int = 1, block: int = BLOCK) -> Figure:
    """The masks of a global and of a local layer, drawn from the tensors; grey is what the blocks compute in vain."""
    cuts = [length // documents] * documents
    layout = Layout.from_lengths([*cuts[:-1], length - sum(cuts[:-1])])
    own = attention_mask(layout)
    near = attention_mask(layout, window)
    place = torch.arange(length)
    start = place // block * block  # where each query's block begins
    computed = (place >= start[:, None] - window) & (place < start[:, None] + block + window)
    if window >= layout.max_seqlen - 1:  # then local is global, and there are no blocks
        computed = own

    figure = plots.new_figure(9.2, 4.9)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.84, bottom=0.14, wspace=0.22)
    for ax, title, allowed, grey in zip(
        figure.subplots(1, 2), ("global layer", f"local layer, {window} keys on each side"), (own, near),
        (own, computed | near), strict=True,
    ):  # fmt: skip
        shade = torch.where(allowed, 0.85, torch.where(grey, 0.2, 0.0))
        ax.imshow(shade.numpy(), vmin=0, vmax=1, extent=(0, length, length, 0), interpolation="nearest")
        plots.frame_image(ax)
        ax.set(xlabel="key (token)", ylabel="query (token)")
        most = int(allowed.sum(dim=1).max())
        words = f"dark: {int(allowed.sum()):,} of {length * length:,} pairs, up to {most} in a row"
        ax.set_title(f"{title}\n{words}")
    cut = f", cut into {documents} documents" if documents > 1 else ""
    figure.suptitle(f"{length} tokens{cut}. Grey: computed by blocks of {block} queries, then masked")
    return figure


def _axes(ax: Axes, title: str, y: str, lengths: Sequence[int], x: str = "tokens of the document, log scale") -> None:
    """A log-log panel over lengths that double."""
    plots.octaves(ax, lengths, x, slanted=True)
    ax.set(yscale="log", ylabel=y, title=title)


def _lines(ax: Axes, records: Sequence[dict], what: str, scale: float = 1, label: Callable[[str], str] = str) -> None:
    """One line a pattern, with its spread, in the order of STYLES."""
    chosen = plots.select(records, what)
    for model in [name for name in STYLES if any(r["model"] == name for r in chosen)]:
        mine = sorted((r for r in chosen if r["model"] == model), key=lambda r: r["length"])
        values = [r["value"] / scale for r in mine]
        half = [r.get("spread", 0) / scale / 2 for r in mine]
        # No time was below the smallest: a bar that went there would leave a log axis.
        below = [
            min(h, v - r["minimum"] / scale) if "minimum" in r else h
            for h, v, r in zip(half, values, mine, strict=True)
        ]
        ax.errorbar(
            [r["length"] for r in mine], values, yerr=[below, half] if any(half) else None, label=label(model),
            **STYLES[model] | plots.EDGE | plots.BARS,
        )  # fmt: skip


@plots.style()
def plot_receptive_field(records: Sequence[dict]) -> Figure:
    """Tokens seen after each layer, gradient against formula, and how strong the dependence is by distance."""
    chosen = plots.select(records, "receptive_field")
    figure = plots.new_figure(11, 4.4)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.86, bottom=0.2, wspace=0.24)
    left, right = figure.subplots(1, 2)
    for model in plots.model_names(chosen):
        mine = [r for r in chosen if r["model"] == model]
        layers, look = [r["layer"] for r in mine], STYLES[model]
        left.plot(layers, [r["formula"] for r in mine], **look | dict(marker=""))
        plots.draw_line(left, layers, [r["value"] for r in mine], look, linestyle="none", markersize=7, label=model)
    one = chosen[0]
    left.set(xlabel="layers", ylabel=f"input tokens seen (of {one['length']:,})", xticks=layers)
    left.set_ylim(0, 1.08 * one["length"])
    left.set_title("Lines: formula. Points: gradient is not 0")
    left.legend(title="pattern", loc="lower right")
    local = [r for r in chosen if r["model"] == "L"]
    distance = torch.arange(one["length"]) - one["token"]
    dashes = ("-", "--", "-.", ":", (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
    for record, dash in zip(local, dashes, strict=False):
        row_T = torch.tensor(record["gradients"], dtype=torch.float64)
        row_T = torch.where(row_T > 0, row_T / row_T.max(), float("nan"))
        shade = 0.75 * (1 - record["layer"] / (len(local) + 1))
        right.plot(distance, row_T, label=f"{record['layer']}", color=str(shade), linestyle=dash, linewidth=1.2)
    right.set_yscale("log")
    right.set(xlabel="distance of the input from the output (tokens)", ylabel="gradient, the largest = 1, log scale")
    right.set_title("Pattern L: reach grows, what arrives from far is little")
    right.legend(title="layers", ncols=2, loc="upper right")
    return plots.finish(figure, chosen, own=True)


@plots.style()
def plot_attention_cost(records: Sequence[dict]) -> Figure:
    """One attention layer: seconds with the formulas behind them, and bytes, against the length of the document."""
    timed = plots.select(records, "attention_seconds")
    lengths = sorted({r["length"] for r in timed})
    figure = plots.new_figure(12, 5.2)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.9, bottom=0.24, wspace=0.2)
    left, right = figure.subplots(1, 2)
    # One number is fitted: the seconds of a pair, from G at its longest. All formula lines are drawn with it.
    longest = max((r for r in timed if r["model"] == "G"), key=lambda r: r["length"])
    per_pair = longest["value"] / longest["needed"]
    w = longest["window"]
    lines = [("pairs needed", [[n * n for n in lengths], [flops.pairs_in_window(n, w) for n in lengths],
                               [(n * n + 2 * flops.pairs_in_window(n, w)) / 3 for n in lengths]], DEFINED)]  # fmt: skip
    if longest["backend"] == "sdpa":
        blocks = [[flops.local_pairs_in_blocks([n], w) for n in lengths]]
        lines.append((f"pairs of L in blocks of {BLOCK}", blocks, COMPUTED))
    for label, curves, (color, dash) in lines:
        for number, curve in enumerate(curves):
            seconds = [1e3 * pairs * per_pair for pairs in curve]
            left.plot(lengths, seconds, color=color, linestyle=dash, linewidth=3 if color == DEFINED[0] else 1.4,
                      label=None if number else f"formula: {label}", zorder=1)  # fmt: skip

    def named(model: str) -> str:
        slope = fit_slope(timed, model, SHORTEST)
        return model if slope is None else f"{model}: n^{slope:.2f} from {SHORTEST:,} on"

    _lines(left, records, "attention_seconds", 1e-3, named)
    heads = f"{longest['heads']} head{'s' * (longest['heads'] > 1)} of {longest['head_size']}"
    _axes(left, f"Time of one attention layer, forward ({heads})", "time (ms), log scale", lengths)
    _lines(right, records, "attention_bytes", plots.MIB)
    kept = sorted({r["length"] for r in records if r["what"] == "attention_bytes"})
    _axes(right, "Memory of one attention layer in training", "memory (MiB), log scale", kept)
    plots.ticks_within_decades(right)
    left.legend()
    right.legend()
    shown = [r for r in records if r["what"] in ("attention_seconds", "attention_bytes")]
    return plots.finish(figure, shown, own=True)


@plots.style()
def plot_short_documents(records: Sequence[dict]) -> Figure:
    """How many times faster a local layer is than a global one, against the length of the documents."""
    chosen = plots.select(records, "packed_seconds")
    by = {(r["model"], r["length"]): r for r in chosen}
    lengths = sorted({r["length"] for r in chosen})
    w, same = chosen[0]["window"], chosen[0]["window"] + 1
    figure = plots.new_figure(8.4, 4.8)
    figure.subplots_adjust(left=0.1, right=0.97, top=0.9, bottom=0.2)
    ax = figure.subplots()
    ax.axvspan(lengths[0] / 1.1, same, color="#eeeeee", zorder=0)
    ax.axhline(1, color="black", linewidth=1)
    smooth = sorted({*lengths, *(int(lengths[0] * 2 ** (i / 8)) for i in range(8 * 12))})
    smooth = [n for n in smooth if n <= lengths[-1]]
    ax.plot(smooth, [n * n / flops.pairs_in_window(n, w) for n in smooth], color=DEFINED[0], linewidth=3,
            label="formula: pairs needed")  # fmt: skip
    if chosen[0]["backend"] == "sdpa":
        beyond = [n for n in smooth if n > same]
        ax.plot(beyond, [n / (BLOCK + 2 * w) for n in beyond], color=COMPUTED[0], linestyle=COMPUTED[1],
                label=f"formula: pairs computed in blocks of {BLOCK}")  # fmt: skip
    ratios = [by["G", n]["value"] / by["L", n]["value"] for n in lengths]
    plots.draw_line(ax, lengths, ratios, plots.MORE_STYLES[1], label="measured")
    _axes(ax, "Where the window saves time: above 1", "time of G / time of L, log scale", lengths,
          "tokens of each document, log scale")  # fmt: skip
    ax.text(math.sqrt(lengths[0] * same), ax.get_ylim()[1] * 0.8, f"up to {same} tokens\nL is G", ha="center",
            va="top")  # fmt: skip
    plots.ticks_within_decades(ax)
    ax.legend(loc="upper left", bbox_to_anchor=(0.3, 1))
    return plots.finish(figure, chosen, own=True)


@plots.style()
def plot_encoder(records: Sequence[dict]) -> Figure:
    """The whole encoder with each pattern: tokens per second forward, and bytes for training."""
    chosen = [r for r in records if r["what"] in ("forward_tokens_per_second", "train_memory_bytes") and "layers" in r]
    lengths = sorted({r["length"] for r in chosen})
    figure = plots.new_figure(11, 4.8)
    figure.subplots_adjust(left=0.08, right=0.985, top=0.9, bottom=0.25, wspace=0.22)
    left, right = figure.subplots(1, 2)
    layers = {r["model"]: r["layers"] for r in chosen}
    _lines(left, chosen, "forward_tokens_per_second", 1, lambda model: f"{model}: {layers[model]}")
    _lines(right, chosen, "train_memory_bytes", plots.MIB)
    x = "tokens of each sequence, log scale"
    _axes(left, "Whole encoder: speed, forward", "tokens/s, log scale", lengths, x)
    plots.ticks_within_decades(left)
    _axes(right, f"Whole encoder: memory for {chosen[0]['batch_tokens']:,} tokens", "memory (MiB)", lengths, x)
    right.set_yscale("linear")
    right.set_ylim(0, 1.1 * max(r["value"] for r in chosen if r["what"] == "train_memory_bytes") / plots.MIB)
    left.legend()
    right.legend()
    return plots.finish(figure, chosen, own=True)


@plots.style()
def plot_windows(records: Sequence[dict]) -> Figure:
    """The ablation: ModernBERT with other windows, or with none."""
    final = [r for r in records if r.get("purpose") == "final"]
    rates = ", ".join(f"{rate:g}" for rate in sorted({r["learning_rate"] for r in final}))
    chosen = [r for r in records if r["what"] == "unigram_entropy"] + final
    figure = ablation_plots.plot_ablation(chosen, "ModernBERT", f"Other windows, or none, at learning rate {rates}")
    figure.axes[2].locator_params(axis="x", nbins=4)  # tiny differences have long numbers
    return figure


FIGURES = {
    "06_alternating_attention_reach": plot_receptive_field,
    "06_alternating_attention_cost": plot_attention_cost,
    "06_alternating_attention_short": plot_short_documents,
    "06_alternating_attention_encoder": plot_encoder,
    "06_alternating_attention_ablation": plot_windows,
}
