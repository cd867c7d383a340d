"""The picture of `bench`, drawn from its records and from nothing else: bars for each case, and cost against length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..runtime import read_jsonl, write_jsonl
from .evidence import NO_GPU
from .plots import (
    FAINT,
    MORE_STYLES,
    STYLES,
    draw_line,
    finish,
    new_figure,
    octaves,
    plain_number,
    save,
    style,
    ticks_within_decades,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The hatch tells them apart on a grey printer; the names stand beside the bars anyway.
LOOKS = {
    "ours": dict(color=STYLES["ModernBERT"]["color"], hatch=""),
    "modernbert": dict(color=MORE_STYLES[2]["color"], hatch="//"),
    "bert": dict(color=STYLES["BERT"]["color"], hatch=".."),
    "roberta": dict(color=MORE_STYLES[0]["color"], hatch="xx"),
    "deberta": dict(color=MORE_STYLES[1]["color"], hatch="\\\\"),
}

ATTENTION_LOOKS = [MORE_STYLES[0], MORE_STYLES[1]]  # local, global
MEMORY_LOOKS = [STYLES["ModernBERT"], MORE_STYLES[2]]  # ours, transformers'


def redraw(figures: str | Path = "figures") -> list[Path]:
    """The committed picture again, from what a GPU did, else a CPU; nothing where no run is kept."""
    found = sorted((Path(figures) / "measurements").glob("*/bench-base.jsonl"))
    found.sort(key=lambda path: path.parent.name.startswith(NO_GPU))
    return [save(plot_bench(read_jsonl(found[0])), Path(figures) / "bench.png")] if found else []


def keep_and_draw(records: Sequence[dict], figures: str | Path) -> list[Path]:
    """Keep the records under `figures`/measurements/<device>/ (the file holds one run), draw the picture: -> both."""
    first = records[0]
    kept = Path(figures) / "measurements" / first["device_slug"] / f"bench-{first['size']}.jsonl"
    write_jsonl(kept, records)
    name = "bench.png" if first["size"] == "base" else f"bench-{first['size']}.png"
    return [kept, save(plot_bench(records), Path(figures) / name)]


@style()
def plot_bench(records: Sequence[dict]) -> Figure:
    """A panel of bars for each case: real tokens per second, with the ratio to transformers' ModernBERT; then time and
    memory against length. Rows that did not run are named with the reason. Raises `InputError` where nothing was
    measured.
    """
    speeds = [r for r in records if r["what"] == "real_tokens_per_second"]
    costs = [r for r in records if r["what"] in ("attention_seconds", "slope") or r.get("task") == "memory"]
    cases = list(dict.fromkeys((r["task"], r["batch"], r["length"]) for r in speeds))
    if not speeds and not costs:
        raise InputError("there are no records of bench to draw; run `bench` first")
    panels = [[r for r in speeds if (r["task"], r["batch"], r["length"]) == case] for case in cases]
    pairs = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    heights = [0.26 * max(len(panel) for panel in pair) + 0.2 for pair in pairs] + [3.0] * bool(costs)
    between = 0.95  # inches from one row of panels to the next, for names of axes and titles
    figure = new_figure(12, sum(heights) + between * len(heights) + 0.7)
    top, bottom = 1 - 0.7 / figure.get_figheight(), 0.75 / figure.get_figheight()
    gap = between * len(heights) / sum(heights)  # as a share of the mean panel
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, left=0.2, right=0.985, top=top, bottom=bottom,
                               wspace=0.55, hspace=gap)  # fmt: skip
    for i, panel in enumerate(panels):
        _bars(figure.add_subplot(grid[i // 2, i % 2]), panel)
    if costs:
        _against_length(figure.add_subplot(grid[-1, 0]), *_attention_curves(costs), ATTENTION_LOOKS)
        _against_length(figure.add_subplot(grid[-1, 1]), *_memory_curves(costs), MEMORY_LOOKS)
    size = next((r["size"] for r in records if r.get("size")), "")
    title = f"Real tokens per second, {size} size; x: times transformers' ModernBERT (sdpa); whiskers: half the "
    title += "interquartile range"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    measured = [{k: v for k, v in r.items() if k not in ("backend", "how")} for r in speeds + costs]
    return finish(figure, measured, own=True)


def _bars(ax: Axes, panel: Sequence[dict]) -> None:
    """One case: a bar a row, in the order in which they ran, the first at the top."""
    base = next((r["value"] for r in panel if r["row"] == "modernbert"), None)
    longest = max((r["value"] + (r["spread"] or 0) / 2 for r in panel if r["value"]), default=1)
    for place, r in enumerate(panel):
        if r["value"] is None:
            ax.annotate(_short(r["failed"] or "not run"), (0, place), xytext=(4, 0), textcoords="offset points",
                        va="center", fontsize=7.5, color=FAINT)  # fmt: skip
            continue
        look = LOOKS["ours" if r["package"] == "modernbert_edu" else r["row"].split()[0]]
        ax.barh(place, r["value"], height=0.72, xerr=(r["spread"] or 0) / 2, edgecolor="white", **look)
        ratio = f"  {r['value'] / base:.2f}x" if base else ""
        end = r["value"] + (r["spread"] or 0) / 2
        ax.annotate(f"{r['value']:,.0f}{ratio}", (end, place), xytext=(4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(panel)), [r["model"] for r in panel], fontsize=8)
    ax.set_ylim(len(panel) - 0.4, -0.6)
    ax.set_xlim(0, 1.35 * longest)
    ax.xaxis.set_major_formatter(plain_number)
    ax.grid(False, axis="y")
    first = panel[0]
    tokens, sequences = first["tokens_in_batch"], first["sequences"]
    batch = f"{sequences} sequence{'s' * (sequences > 1)}, {tokens:,} real tokens"
    ax.set_title(f"{first['task']}, {first['batch']} {first['length']:,} ({batch})", loc="left", fontsize=9)
    ax.set_xlabel("real tokens per second (tokens/s)")


def _short(text: str, limit: int = 58) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _attention_curves(costs: Sequence[dict]) -> tuple:
    curves = {}
    for kind in ("local", "global"):
        points = [(r["length"], 1000 * r["value"]) for r in costs
                  if r["what"] == "attention_seconds" and r["kind"] == kind]  # fmt: skip
        curves[f"{kind} layer{_power(costs, f'{kind} attention')}"] = points
    return "Attention of one layer against length", "milliseconds, forward", curves


def _memory_curves(costs: Sequence[dict]) -> tuple:
    curves = {}
    for row, name in (("ours", f"ours{_power(costs, 'memory')}"), ("modernbert", "transformers' ModernBERT")):
        curves[name] = [(r["length"], r["value"] / 2**20) for r in costs
                        if r.get("task") == "memory" and r["row"] == row and r["value"]]  # fmt: skip
    return "Memory of a training step against length", "MiB for one sequence", curves


def _power(costs: Sequence[dict], kind: str) -> str:
    found = [r["value"] for r in costs if r["what"] == "slope" and r["kind"] == kind]
    return f": length$^{{{found[-1]:.2f}}}$" if found else ""


def _against_length(
    ax: Axes, title: str, unit: str, curves: dict[str, list[tuple[float, float]]], looks: Sequence[dict]
) -> None:
    """Both axes logarithmic: a power of the length is a straight line, its exponent the slope."""
    for (name, points), look in zip(curves.items(), looks, strict=True):
        if points:
            draw_line(ax, *zip(*points, strict=True), look, name, markersize=7 if len(points) == 1 else 5)
    ax.set_yscale("log")
    ticks_within_decades(ax)
    octaves(ax, sorted({x for points in curves.values() for x, _ in points}), "tokens, log scale")
    ax.set_ylabel(f"{unit}, log scale")
    ax.set_title(title, loc="left")
    if any(curves.values()):
        ax.legend(loc="lower right")
