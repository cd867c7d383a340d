"""Figures, drawn from records of measurements and from nothing else.

A record is a flat dict, one JSON line: what was measured ("what", "value", "unit", "spread", "n", "seed", "model"), at
which place on the x axis ("tokens", "seconds" or "length"; "batch": "mixed" for a batch of mixed lengths), and where it
comes from ("device", "torch", "dtype", "backend", ...). Records of one run go into one figure. Where a measurement was
repeated, the later record counts.

Every series has its own colour, grey level, line style and marker, so that a figure survives a grey printer and a
colour-blind reader. Lines are named where they end. What all figures have in common stands in course.mplstyle.
"""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:  # matplotlib takes a second to import, so the functions that draw import it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Record = dict
MIB = 2**20
STYLE_FILE = Path(__file__).with_name("course.mplstyle")

# Dark against light first, then colours that colour-blind readers tell apart (after Okabe and Ito).
STYLES = {
    "BERT": dict(color="#d07c00", linestyle="--", marker="s"),
    "ModernBERT": dict(color="#00417a", linestyle="-", marker="o"),
}
MORE_STYLES = [
    dict(color="#009e73", linestyle="-.", marker="^"),
    dict(color="#7a4b6c", linestyle=":", marker="D"),
    dict(color="#56b4e9", linestyle=(0, (5, 1, 1, 1, 1, 1)), marker="v"),
    dict(color="#505050", linestyle=(0, (1, 3)), marker="X"),
    dict(color="#cc79a7", linestyle=(0, (7, 2)), marker="P"),
]
HATCHES = ["//", "", "..", "xx", "\\\\", "++", "oo"]
FAINT = "#666666"
EDGE = dict(markeredgecolor="white")  # points that touch stay apart; no style file can say so without hiding crosses
BARS = dict(elinewidth=1)  # a line's error bars are thinner than the line


@contextmanager
def style():
    """The course's look, for the time of a `with` block or, as `@style()`, of every call of a function that draws.

    Matplotlib asks its settings at three times: when axes are made, when something is drawn on them, and, for tick
    labels, when the file is written. So the look must hold over the whole function, and `png_bytes` puts it on again.
    It begins from matplotlib's defaults, not from the reader's settings, and these come back at the end.
    """
    from matplotlib.style import context

    with context(STYLE_FILE, after_reset=True):
        yield


# ------------------------------------------------------------------------------------------------ public figures


@style()
def plot_learning(
    records: Sequence[Record], *, what: str = "held_out_loss", x: str = "tokens", ax: Axes | None = None
) -> Figure:
    """A curve of learning, one line per model (and seed), against training "tokens" or "seconds".

    For losses, a "unigram_entropy" record becomes a dashed line: what knowing only how frequent each token is gives.
    Raises `InputError` where the records do not hold such a curve.
    """
    chosen = [record for record in select(records, what) if record.get(x) is not None]
    if not chosen:
        raise InputError(f"no record of {what!r} has the field {x!r}; record it with each evaluation")
    figure, ax, own = figure_for(ax)
    ends = []
    for model in model_names(chosen):
        curves = by_seed([record for record in chosen if record["model"] == model], x)
        for points in curves:
            xs, ys = zip(*points, strict=True)
            style = {**line_style(chosen, model), "alpha": 1 if len(curves) == 1 else 0.6}
            ax.plot(xs, ys, label=model, markevery=max(1, len(xs) // 12), **style)
        last = max((points[-1] for points in curves), key=lambda point: point[0])
        ends.append((model, last[0], sum(points[-1][1] for points in curves) / len(curves)))
    if chosen[0]["unit"] == "nats":
        unigram_line(ax, records, [y for _, _, y in ends])
    finish_learning(ax, what, x, chosen[0]["unit"])
    ax.set_xlim(0, 1.015 * (max(x for _, x, _ in ends) or 1))  # so that the names stand outside
    label_ends(ax, chosen, ends)
    return finish(figure, chosen, own)


@style()
def plot_speed(records: Sequence[Record], *, log: bool = True, ax: Axes | None = None) -> Figure:
    """Real tokens per second of the forward pass against sequence length, and for the mixed batch where recorded.

    A logarithmic y axis shows ratios as distances; without `log` it is linear and begins at 0.
    """
    chosen = select(records, "forward_tokens_per_second", unit="tokens/s")
    figure, ax, own = figure_for(ax)
    _against_length(ax, chosen, scale=1, label="real tokens per second (tokens/s)", log=log)
    ax.set_title("Speed: forward pass")
    return finish(figure, chosen, own)


@style()
def plot_memory(records: Sequence[Record], *, log: bool = True, ax: Axes | None = None) -> Figure:
    """Memory of a training step in MiB against sequence length, and for the mixed batch where recorded.

    A logarithmic y axis shows ratios as distances; without `log` it is linear and begins at 0.
    """
    chosen = select(records, "train_memory_bytes", unit="bytes")
    figure, ax, own = figure_for(ax)
    _against_length(ax, chosen, scale=MIB, label="memory of a training step (MiB)", log=log)
    ax.set_title(memory_title(chosen))
    return finish(figure, chosen, own)


@style()
def plot_mixed(records: Sequence[Record]) -> Figure:
    """Two pairs of bars for the batch of mixed lengths: real tokens per second, and memory of a training step."""
    mixed = [record for record in records if record.get("batch") == "mixed"]
    panels = [
        ("forward_tokens_per_second", "tokens/s", 1, "real tokens per second (tokens/s)", "Speed: forward pass"),
        ("train_memory_bytes", "bytes", MIB, "memory of a training step (MiB)", memory_title(mixed)),
    ]
    figure = new_figure(8, 4.2)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.79, bottom=0.24, wspace=0.3)
    used = []
    for place, (what, unit, scale, label, title) in enumerate(panels, start=1):
        chosen = select(mixed, what, unit=unit, among="records of a mixed batch")
        ax = figure.add_subplot(1, 2, place)
        _bars(ax, chosen, scale)
        ax.set_ylabel(label)
        ax.set_title(f"{title}\n{_ratio_in_words(chosen)}")
        used += chosen
    pads = next((record["pads"] for record in used if record.get("pads") is not None), None)
    padding = "" if pads is None else f": {pads:.0%} of the padded rectangle is padding"
    figure.suptitle(f"A batch of mixed lengths{padding}", x=0.01, ha="left", fontsize=12, fontweight="bold")
    return finish(figure, used, own=True)


@style()
def plot_tour(records: Sequence[Record]) -> Figure:
    """The whole comparison in one picture: learning twice, speed, memory; the title is `tour_claim` of the records.

    The second panel shows the loss against seconds, or the masked accuracy where no seconds were recorded.
    """
    title = tour_claim(records)
    figure = new_figure(11, 7.8)
    figure.subplots_adjust(left=0.07, right=0.92, top=0.85, bottom=0.12, wspace=0.38, hspace=0.42)
    axes = [figure.add_subplot(2, 2, place) for place in (1, 2, 3, 4)]
    plot_learning(records, ax=axes[0])
    timed = any(r.get("what") == "held_out_loss" and r.get("seconds") is not None for r in records)
    if timed:
        plot_learning(records, x="seconds", ax=axes[1])
    else:
        plot_learning(records, what="masked_accuracy", ax=axes[1])
    plot_speed(records, ax=axes[2])
    plot_memory(records, ax=axes[3], log=False)  # from zero: a few per cent must look like a few per cent
    lines = [textwrap.fill(line, 124) for line in title.splitlines()]
    figure.suptitle("\n".join(lines), x=0.01, y=0.98, ha="left", va="top", fontsize=10.5, fontweight="bold")
    shown = {"held_out_loss", "forward_tokens_per_second", "train_memory_bytes"} | ({"masked_accuracy"} - {timed})
    return finish(figure, [record for record in records if record.get("what") in shown], own=True)


def tour_claim(records: Sequence[Record], new: str = "ModernBERT", old: str = "BERT") -> str:
    """What the records say, in two lines: ratios at the longest length that both models have, and the final losses."""
    loss = select(records, "held_out_loss", unit="nats")
    speed = select(records, "forward_tokens_per_second", unit="tokens/s")
    memory = select(records, "train_memory_bytes", unit="bytes")
    length, faster = _ratio_at_longest(speed, new, old)
    memory_length, smaller = _ratio_at_longest(memory, new, old)
    at = "" if memory_length == length else f" (at {memory_length:,})"
    mixed = _ratio([record for record in speed if record.get("batch") == "mixed"], new, old)
    pads = next((record["pads"] for record in speed if record.get("pads") is not None), None)
    padding = f", {pads:.0%} of {old}'s batch padding" if pads else ""
    on_mixed = f" (mixed lengths{padding}: {_times(mixed)})" if mixed else ""
    claim = f"At {length:,} tokens {new} has {_times(faster)} {old}'s speed{on_mixed} and {_times(smaller)} "
    claim += f"its training memory{at}."
    here, there = (_final_mean(loss, model) for model in (new, old))
    return f"{claim}\nHeld-out loss at the end of training: {new} {here:.2f} nats, {old} {there:.2f} nats."


@style()
def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG. It bears no date and no version, so the same records give the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as a PNG, whole or not at all. Raises `InputError` for another ending or an unwritable place."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"figures are written as PNG, so the name must end in .png, not {path.name!r}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(png_bytes(figure))
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder that can be written") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


# ------------------------------------------------------------------------------------------------ records


def select(records: Sequence[Record], what: str, *, unit: str | None = None, among: str = "records") -> list[Record]:
    """The records of one quantity, checked: with a model and a finite value, all of one unit, device and dtype."""
    if not records:
        raise InputError(f"there are no {among} to draw; measure first")
    chosen = [record for record in records if record.get("what") == what]
    if not chosen:
        found = ", ".join(sorted({str(record.get("what")) for record in records}))
        raise InputError(f"none of the {len(records)} {among} is of {what!r}; they are of: {found}")
    for record in chosen:
        missing = [name for name in ("model", "value", "unit", "device") if record.get(name) is None]
        if missing:
            raise InputError(f"a record of {what!r} lacks the field {missing[0]!r}; every record needs it")
        if not math.isfinite(record["value"]):
            raise InputError(
                f"{what} of {record['model']} is {record['value']}, which cannot be drawn; did training fail?"
            )
    for name in ("unit", "device", "dtype"):
        different = sorted({str(record.get(name)) for record in chosen})
        if len(different) > 1:
            raise InputError(f"records of {what!r} differ in {name} ({', '.join(different)}); draw one figure for each")
    if unit is not None and chosen[0]["unit"] != unit:
        raise InputError(f"{what} must be recorded in {unit}, not in {chosen[0]['unit']}")
    return chosen


def model_names(records: Sequence[Record]) -> list[str]:
    """The models in the order in which they are drawn: BERT, ModernBERT, then others as they come."""
    found = list(dict.fromkeys(record["model"] for record in records))
    return [model for model in STYLES if model in found] + [model for model in found if model not in STYLES]


def by_seed(records: Sequence[Record], x: str) -> list[list[tuple[float, float]]]:
    """One curve [(x, value), ...] for each seed, in the order of x."""
    curves: dict[object, dict[float, float]] = {}
    for record in records:
        curves.setdefault(record.get("seed"), {})[record[x]] = record["value"]
    return [sorted(curve.items()) for curve in curves.values()]


def _by_length(records: Sequence[Record], model: str) -> dict[int, Record]:
    """{sequence length: the model's last record}, in the order of the lengths, without the mixed batch."""
    mine = [r for r in records if r["model"] == model and r.get("batch") != "mixed" and r.get("length") is not None]
    return {record["length"]: record for record in sorted(mine, key=lambda record: record["length"])}


def _mixed(records: Sequence[Record], model: str) -> Record | None:
    found = [record for record in records if record["model"] == model and record.get("batch") == "mixed"]
    return found[-1] if found else None


def _ratio(records: Sequence[Record], new: str, old: str) -> float | None:
    """new / old for the last record of each, or None where one is missing."""
    last = {record["model"]: record["value"] for record in records}
    return last[new] / last[old] if new in last and old in last else None


def _ratio_at_longest(records: Sequence[Record], new: str, old: str) -> tuple[int, float]:
    mine, theirs = _by_length(records, new), _by_length(records, old)
    common = sorted(set(mine) & set(theirs))
    if not common:
        raise InputError(f"{records[0]['what']} of {new} and {old} was recorded at no common length; measure both")
    return common[-1], mine[common[-1]]["value"] / theirs[common[-1]]["value"]


def _final_mean(records: Sequence[Record], model: str) -> float:
    """The value at the most training tokens, averaged over the seeds."""
    mine = [record for record in records if record["model"] == model and record.get("tokens") is not None]
    if not mine:
        raise InputError(f"no record of {records[0]['what']!r} of {model} has the field 'tokens'; train both models")
    finals = [curve[-1][1] for curve in by_seed(mine, "tokens")]
    return sum(finals) / len(finals)


def _times(ratio: float) -> str:
    """A ratio to two digits, and to two places below 2: "12 times", "3.4 times", "1.05 times", "0.45 times"."""
    places = 0 if ratio >= 9.95 else 1 if ratio >= 1.995 else 2
    return f"{ratio:.{places}f} times"


def _ratio_in_words(records: Sequence[Record]) -> str:
    ratio = _ratio(records, "ModernBERT", "BERT")
    return f"ModernBERT {_times(ratio)} BERT" if ratio else "by model"


# ------------------------------------------------------------------------------------------------ drawing


@style()
def new_figure(width: float, height: float, **options) -> Figure:
    """A figure (inches) that belongs to nobody: pyplot, and with it the choice of a window system, is never touched.

    The price is that a notebook does not know how to show it, so it is told.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **options)
    figure._repr_png_ = lambda: png_bytes(figure)
    return figure


@style()
def panels(
    width: float, height: float, columns: int, records: Sequence[Record] = (), rows: int = 1, **options
) -> tuple[Figure, list[Axes]]:
    """A figure that lays itself out and its axes, row by row; with `records`, a footer that names the device.

    `options` go to `Figure.subplots`.
    """
    figure = new_figure(width, height, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).flatten().tolist()
    if records:
        figure.get_layout_engine().set(rect=(0, 0.4 / height, 1, 1 - 0.4 / height))
        finish(figure, records, own=True)
    return figure, axes


@style()
def figure_for(ax: Axes | None) -> tuple[Figure, Axes, bool]:
    """The axes to draw on, with their figure, and whether the figure is ours to finish."""
    if ax is not None:
        return ax.figure, ax, False
    figure = new_figure(6.5, 4.4)
    figure.subplots_adjust(left=0.13, right=0.83, top=0.92, bottom=0.21)
    return figure, figure.add_subplot(), True


def frame_image(ax: Axes) -> None:
    """Axes that hold a picture of numbers: a frame around it, and no grid over it."""
    ax.grid(False)
    ax.spines[:].set_visible(True)


def draw_line(ax: Axes, xs: Sequence[float], ys: Sequence[float], look: dict, label: str | None = None, **more) -> None:
    """A line in one of the STYLES, its points with a white edge; `more` overrides."""
    ax.plot(xs, ys, label=label, **EDGE | look | more)


def legend_below(figure: Figure, ax: Axes, columns: int | None = None) -> None:
    """One legend for all panels, between them and the footer."""
    handles, names = ax.get_legend_handles_labels()
    place = dict(loc="lower center", bbox_to_anchor=(0.5, 0.24 / figure.get_figheight()), handlelength=3.5)
    figure.legend(handles, names, ncols=columns or len(names), **place)


def finish(figure: Figure, records: Sequence[Record], own: bool) -> Figure:
    """Name device, torch, dtype and backend in the footer of a figure that is ours."""
    if own:
        parts = [distinct(records, "device"), distinct(records, "torch", "torch "), distinct(records, "dtype")]
        parts.append(distinct(records, "backend", "attention: "))
        how = distinct(records, "how", "\nmemory: ")
        text = "measured on " + " | ".join(part for part in parts if part) + how
        figure.text(0.01, 0.01, text, fontsize=7.5, color=FAINT, ha="left", va="bottom")
    return figure


def distinct(records: Sequence[Record], name: str, prefix: str = "") -> str:
    """The field's values, each once; nothing where no record has it."""
    values = dict.fromkeys(str(record[name]) for record in records if record.get(name) is not None)
    return prefix + " / ".join(values) if values else ""


def style_of(records: Sequence[Record], model: str) -> dict:
    if model in STYLES:
        return STYLES[model]
    others = [name for name in model_names(records) if name not in STYLES]
    return MORE_STYLES[others.index(model) % len(MORE_STYLES)]


def line_style(records: Sequence[Record], model: str) -> dict:
    return {**style_of(records, model), **EDGE}


def entropy_line(ax: Axes, records: Sequence[Record], upright: bool = False) -> float | None:
    """A dashed line at the unigram entropy, what knowing only how frequent each token is gives: -> it, or None."""
    entropies = [record["value"] for record in records if record.get("what") == "unigram_entropy"]
    if not entropies:
        return None
    line = ax.axvline if upright else ax.axhline
    line(entropies[-1], color=FAINT, linestyle=(0, (2, 2)), linewidth=1, label="unigram entropy")
    return entropies[-1]


def unigram_line(ax: Axes, records: Sequence[Record], final_values: list[float]) -> None:
    """`entropy_line` with its value written at it, away from where the curves end."""
    entropy = entropy_line(ax, records)
    if entropy is None:
        return
    # A curve on the plateau runs close to this line: write on the side where it is not.
    nearest = min(final_values, key=lambda value: abs(value - entropy))
    place = dict(xytext=(0, -4), va="top") if nearest > entropy else dict(xytext=(0, 3), va="bottom")
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, entropy - 0.08 * (high - low)), high)  # room for the words above the axis
    place |= dict(xy=(1, entropy), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right")
    place["bbox"] = dict(facecolor="white", edgecolor="none", alpha=0.8, pad=1)  # a curve may still pass behind it
    ax.annotate(f"unigram entropy {entropy:.2f}", **place, fontsize=8, color=FAINT)


def finish_learning(ax: Axes, what: str, x: str, unit: str) -> None:
    from matplotlib.ticker import EngFormatter

    name = what.replace("_", " ").replace("held out", "held-out")
    ax.set_ylabel(f"{name} ({unit})")
    ax.set_xlabel("training tokens seen" if x == "tokens" else "training time (s)")
    ax.set_title(f"{name[0].upper()}{name[1:]} against {'tokens' if x == 'tokens' else 'time'}")
    if x == "tokens":
        ax.xaxis.set_major_formatter(EngFormatter(sep=" "))


def _against_length(ax: Axes, records: Sequence[Record], scale: float, label: str, log: bool) -> None:
    """One line per model over a log2 axis of lengths; the mixed batch as a column of points to its right.

    Points and no bars: on a log axis a bar has no foot to stand on. Few readers notice a log axis that does not say so.
    """
    lengths = sorted({length for model in model_names(records) for length in _by_length(records, model)})
    if not lengths:
        raise InputError(f"no record of {records[0]['what']!r} has the field 'length'; measure at fixed lengths")
    mixed_x = lengths[-1] * 2
    has_mixed = any(_mixed(records, model) for model in model_names(records))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log" if log else "linear")
    ax.set_ylabel(f"{label}, log scale" if log else label)
    ends = []
    for model in model_names(records):
        style = line_style(records, model) | BARS
        points = [(length, record) for length, record in _by_length(records, model).items()]
        if points:
            ends.append(_points_with_spread(ax, model, points, scale, style))
        if _mixed(records, model):
            alone = {**style, "linestyle": "none", "markersize": 8}
            ends = [end for end in ends if end[0] != model]  # the name goes to the rightmost point
            ends.append(_points_with_spread(ax, model, [(mixed_x, _mixed(records, model))], scale, alone, "mixed"))
    _ticks_at_lengths(ax, lengths, mixed_x if has_mixed else None)
    if log:
        ticks_within_decades(ax)
    else:
        ax.set_ylim(0, 1.04 * ax.get_ylim()[1])  # room for a name beside the highest point
        ax.yaxis.set_major_formatter(plain_number)
    label_ends(ax, records, ends)


def memory_title(records: Sequence[Record]) -> str:
    """What was counted: what a forward pass keeps for the backward pass, or the most that a whole step held."""
    how = distinct([record for record in records if record.get("what") == "train_memory_bytes"], "how")
    kept = how.startswith(("kept", "tensors kept"))
    return "Memory: kept for the backward pass" if kept else "Memory: forward and backward"


def _points_with_spread(
    ax: Axes, model: str, points: list[tuple[int, Record]], scale: float, style: dict, label: str = ""
) -> tuple[str, float, float]:
    """Draw values with bars as long as their spread; -> (model, x, y) of the last point."""
    xs = [x for x, _ in points]
    ys = [record["value"] / scale for _, record in points]
    half = [(record.get("spread") or 0) / scale / 2 for _, record in points]
    ax.errorbar(xs, ys, yerr=half if any(half) else None, label=f"{model} {label}".strip(), **style)
    return model, xs[-1], ys[-1]


def _ticks_at_lengths(ax: Axes, lengths: list[int], mixed_x: int | None) -> None:
    octaves(ax, lengths, "sequence length (tokens), log scale")
    if mixed_x:
        names = [f"{length:,}" for length in lengths]
        ax.set_xticks([*lengths, mixed_x], [*names, "mixed"])
        ax.axvline(mixed_x / 2**0.5, color=FAINT, linewidth=0.8)
    ax.set_xlim(lengths[0] / 1.25, (mixed_x or lengths[-1]) * 1.25)


def octaves(ax: Axes, at: Sequence[int], label: str, slanted: bool = False) -> None:
    """An x axis on which doubling is a step, with ticks at these numbers; slanted words where there are many."""
    from matplotlib.ticker import NullLocator

    slant = dict(rotation=45, ha="right", rotation_mode="anchor") if slanted else {}
    ax.set_xscale("log", base=2)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(at, [f"{n:,}" for n in at], **slant)
    ax.set_xlabel(label)


def ticks_within_decades(ax: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = ax.get_ylim()
    # Less than one power of ten holds too few round numbers unless the steps are finer.
    decades = math.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
    ax.yaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(plain_number)


def plain_number(value: float, _) -> str:
    return f"{value:,.10g}"


def _bars(ax: Axes, records: Sequence[Record], scale: float) -> None:
    models = model_names(records)
    for place, model in enumerate(models):
        record = _mixed(records, model)
        value, half = record["value"] / scale, (record.get("spread") or 0) / scale / 2
        style = dict(color=style_of(records, model)["color"], hatch=HATCHES[place % len(HATCHES)], edgecolor="white")
        ax.bar(place, value, width=0.6, yerr=half or None, capsize=4, **style)
        text = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
        ax.annotate(text, (place, value + half), xytext=(0, 3), textcoords="offset points", ha="center")
    slant = dict(rotation=25, ha="right", rotation_mode="anchor") if len(models) > 3 else {}
    ax.set_xticks(range(len(models)), models, **slant)
    ax.set_xlim(-0.6, len(models) - 0.4)
    ax.margins(y=0.12)
    ax.grid(False, axis="x")
    ax.yaxis.set_major_formatter(plain_number)


def label_ends(ax: Axes, records: Sequence[Record], ends: list[tuple[str, float, float]], gap: float = 12) -> None:
    """Write each model's name to the right of where its line ends, at least `gap` points apart."""
    to_points = 72 / ax.figure.dpi
    heights = {model: ax.transData.transform((x, y))[1] * to_points for model, x, y in ends}
    lowest = -math.inf
    for model, x, y in sorted(ends, key=lambda end: heights[end[0]]):
        height = max(heights[model], lowest + gap)
        lowest = height
        place = dict(xytext=(7, height - heights[model]), textcoords="offset points", va="center", ha="left")
        color = style_of(records, model)["color"]
        ax.annotate(model, (x, y), **place, fontweight="bold", color=color, annotation_clip=False)
