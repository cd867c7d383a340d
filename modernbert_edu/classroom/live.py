"""The loss, drawn while it falls: one figure that a live notebook draws anew in its place as the records come in."""

from __future__ import annotations

import base64
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..measure.plots import line_style, new_figure, png_bytes, style
from ..runtime import in_notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SECONDS_BETWEEN = 1.0  # redraw no more often than this
DRAWING_SHARE = 0.05  # nor spend more of the time than this on drawing: it is taken from the training


def watched() -> bool:
    """Whether somebody is looking on: a notebook's kernel that no runner and no test drives."""
    driven = os.environ.get("MODERNBERT_EDU_STATIC") or os.environ.get("PYTEST_CURRENT_TEST")
    return in_notebook() and not driven


class LivePlot:
    """Give it each record of a run's history as it comes; it draws train losses as a line, held-out ones as points.

    A record is a dict with "what" ("train_loss", "held_out_loss"; others are passed over), "value", "model", and the
    field that `x` names ("tokens", "step", "seconds"). Each train loss is that of one batch and jumps, so the line is a
    running mean, over a fiftieth of the steps so far. Outside a live notebook nothing is shown: `figure()` draws what
    came in.
    """

    def __init__(self, title: str, x: str = "tokens", y: str = "loss in nats"):
        self.title, self.x, self.y = title, x, y
        self.records: list[dict] = []
        self._live = watched()
        self._handle = None  # IPython's, of the picture on the screen
        self._next_time = 0.0

    def __call__(self, record: dict) -> None:
        if record.get("what") not in ("train_loss", "held_out_loss") or record.get(self.x) is None:
            return
        self.records.append({"model": "model", **record})
        if self._live and time.monotonic() >= self._next_time:
            self.redraw()

    def redraw(self) -> None:
        """Put the figure of all records so far on the screen, in place of the last one; nothing where nobody looks."""
        if not self._live:
            return
        start = time.monotonic()
        png = base64.b64encode(png_bytes(self.figure())).decode()
        bundle = {"image/png": png, "text/plain": f"[figure: {self.title}, {len(self.records)} records]"}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
        now = time.monotonic()
        self._next_time = now + max(SECONDS_BETWEEN, (now - start) / DRAWING_SHARE)

    @style()
    def figure(self) -> Figure:
        """The figure of all records so far. It does not move any more."""
        from matplotlib.ticker import EngFormatter

        figure = new_figure(7.2, 4.2)
        ax = figure.add_subplot()
        figure.subplots_adjust(left=0.11, right=0.97, top=0.9, bottom=0.2)
        ax.set_title(self.title)
        ax.set_ylabel(self.y)
        names = {"tokens": "training tokens seen", "step": "training step", "seconds": "training time in s"}
        ax.set_xlabel(names.get(self.x, self.x))
        if self.x != "seconds":
            ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
        for model in dict.fromkeys(record["model"] for record in self.records):
            self._draw_model(ax, model)
        if self.records:
            ax.legend()
        devices = dict.fromkeys(record["device"] for record in self.records if record.get("device"))
        if devices:
            text = "measured on " + " / ".join(devices)
            figure.text(0.01, 0.01, text, fontsize=7.5, color="#666666", ha="left", va="bottom")
        return figure

    def _draw_model(self, ax: Axes, model: str) -> None:
        """One line and its points for each seed, all in the model's own style."""
        curves = _by_seed([record for record in self.records if record["model"] == model], self.x)
        style = line_style(self.records, model)
        line = {**style, "marker": "", "linewidth": 1.2}
        points = {**style, "linestyle": "", "markersize": 6}
        for seed, (train, held_out) in curves.items():
            name = model if len(curves) == 1 else f"{model}, seed {seed}"
            if train:
                xs, ys, width = smoothed(train)
                mean = "" if width == 1 else f" (mean of {width} steps)"
                ax.plot(xs, ys, label=f"{name}, training{mean}", **line)
            if held_out:
                ax.plot(*zip(*held_out, strict=True), label=f"{name}, held-out", **points)


def smoothed(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray, int]:
    """[(x, y), ...] -> (x, running mean of y, width): over `width` neighbours, half of them on each side.

    The width is a fiftieth of the points, made odd; near the ends there are fewer neighbours. Values that are not
    finite are left out.
    """
    xs, ys = np.array(sorted(point for point in points if np.isfinite(point[1])), dtype=float).reshape(-1, 2).T
    half = len(ys) // 100
    sums = np.concatenate([[0.0], np.cumsum(ys)])
    begin = np.maximum(np.arange(len(ys)) - half, 0)
    end = np.minimum(np.arange(len(ys)) + half + 1, len(ys))
    return xs, (sums[end] - sums[begin]) / (end - begin), 2 * half + 1


def _by_seed(records: Sequence[dict], x: str) -> dict:
    """{seed: (train points, held-out points)}, each point (x, value)."""
    curves = defaultdict(lambda: ([], []))
    for record in records:
        which = 0 if record["what"] == "train_loss" else 1
        curves[record.get("seed")][which].append((record[x], record["value"]))
    return curves
