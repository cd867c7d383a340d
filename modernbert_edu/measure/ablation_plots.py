"""The picture of an ablation: whole curves against tokens and against seconds, and the differences seed by seed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime import read_jsonl, write_jsonl
from . import plots
from .ablation import paired_differences, stuck_seeds
from .evidence import SCALES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@plots.style()
def plot_ablation(records: Sequence[dict], baseline: str, title: str = "Ablation") -> Figure:
    """Held-out loss of the final runs against tokens and seconds, a line for each seed, and how far each variant ends
    from the baseline. The title names the variants that have not left the plateau at the unigram entropy.
    """
    final = [r for r in records if r.get("purpose") == "final"]
    entropy = [r for r in records if r["what"] == "unigram_entropy"]
    figure = plots.new_figure(12, 5.2)
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    for ax, x in zip(axes, ("tokens", "seconds"), strict=False):
        _curves(ax, final, entropy, x)
    _differences(axes[2], final, baseline)
    handles, names = axes[0].get_legend_handles_labels()
    unique = {name: handle for handle, name in zip(handles, names, strict=True) if name != "unigram entropy"}
    columns = min(4, len(unique))
    figure.legend(
        unique.values(), unique.keys(), loc="lower center", ncols=columns, bbox_to_anchor=(0.5, 0.05), handlelength=3.5,
    )  # fmt: skip
    words, rows = _title(final, entropy, title), -(-len(unique) // columns)
    figure.suptitle(words)
    top, bottom = 0.9 - 0.045 * len(words.splitlines()), 0.18 + 0.045 * rows
    figure.subplots_adjust(left=0.055, right=0.985, top=top, bottom=bottom, wspace=0.25)
    return plots.finish(figure, [r for r in final if "how" not in r], own=True)


def _title(final: Sequence[dict], entropy: Sequence[dict], title: str) -> str:
    runs = stuck_seeds([*entropy, *final])
    stuck = {model: counts for model, counts in runs.items() if counts[0]}
    seeds = len({r["seed"] for r in final})
    words = f"{title}: {seeds} seed{'s' * (seeds > 1)} each"
    if stuck:
        named = (model if few == of else f"{model} ({few} of {of} seeds)" for model, (few, of) in stuck.items())
        short = "all" if all(few == of for few, of in runs.values()) else ", ".join(named)
        words += f". Still on the plateau (not 0.1 nats below the unigram entropy): {short}"
    return "\n".join(textwrap.wrap(words, 130))


def _curves(ax: Axes, final: Sequence[dict], entropy: Sequence[dict], x: str) -> None:
    losses = [r for r in final if r["what"] == "held_out_loss"]
    for model in plots.model_names(losses):
        for points in plots.by_seed([r for r in losses if r["model"] == model], x):
            ax.plot(*zip(*points, strict=True), label=model, alpha=0.75, **plots.line_style(losses, model))
    late = [r["value"] for r in losses if r["step"] > r["steps"] // 10]  # the first steep fall would squeeze the rest
    shown = [*late, *(r["value"] for r in entropy)]
    room = 0.1 * (max(shown) - min(shown)) + 0.05
    ax.set_ylim(min(shown) - room, max(shown) + room)
    plots.unigram_line(ax, entropy, [min(late)])
    plots.finish_learning(ax, "held_out_loss", x, "nats")
    ax.set_xlim(left=0)


def _differences(ax: Axes, final: Sequence[dict], baseline: str) -> None:
    """A row for each variant: the mean difference, its interval, and a point for each seed."""
    losses = [r for r in final if r["what"] == "held_out_loss"]
    rows = paired_differences(final, baseline)
    ax.axvline(0, color=plots.FAINT, linewidth=1)
    for row, d in enumerate(rows):
        color = plots.style_of(losses, d.model)["color"]
        ax.plot([d.low, d.high], [row, row], color=color, linewidth=2.5)
        ax.plot(d.mean, row, marker="|", markersize=16, markeredgewidth=2.5, color=color)
        ax.plot(list(d.by_seed.values()), [row] * len(d.by_seed), "o", color="white", markeredgecolor=color)
        ax.annotate(d.model, (d.mean, row), xytext=(0, 11), textcoords="offset points", ha="center", fontsize=8.5)
    ax.set_yticks([])
    ax.set_ylim(len(rows) - 0.5, -0.8)
    ax.margins(x=0.25)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(f"final loss minus {baseline}'s (nats)")
    ax.set_title("Left of 0: lower loss; | mean, o seeds")
    ax.locator_params(axis="x", nbins=5)


def keep_and_draw(records: Sequence[dict], baseline: str, name: str, scale: str, folder: Path) -> list[Path]:
    """Keep the records under folder/measurements/<device>/ablation-NAME-SCALE.jsonl and draw ablation-NAME.png."""
    path = folder / "measurements" / records[0]["device_slug"] / f"ablation-{name}-{scale}.jsonl"
    write_jsonl(path, records)
    picture = plots.save(plot_ablation(records, baseline, f"Ablation {name}"), folder / f"ablation-{name}.png")
    return [path, picture]


def redraw(figures: str | Path = "figures") -> list[Path]:
    """The picture of the ladder again, from the best records that are kept of it; nothing where there are none."""
    for scale in SCALES:
        for path in sorted((Path(figures) / "measurements").glob(f"*/ablation-ladder-{scale}.jsonl")):
            drawn = plot_ablation(read_jsonl(path), "BERT", "Ablation ladder")
            return [plots.save(drawn, Path(figures) / "ablation-ladder.png")]
    return []
