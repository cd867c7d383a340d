"""The live plot: one picture, drawn anew in its place, not too often; nothing where nobody looks."""

import base64
import math

import numpy as np
import pytest

from modernbert_edu.classroom import live
from modernbert_edu.classroom.live import LivePlot, smoothed


class Screen:
    """Stands in for IPython's display: counts what is shown and what is replaced."""

    def __init__(self):
        self.shown, self.updates = [], []

    def display(self, bundle, raw, display_id):
        assert raw and display_id
        self.shown.append(bundle)
        return self

    def update(self, bundle, raw):
        assert raw
        self.updates.append(bundle)


@pytest.fixture
def screen(monkeypatch):
    display = pytest.importorskip("IPython.display")
    screen = Screen()
    monkeypatch.setattr(display, "display", screen.display)
    monkeypatch.setattr(live, "watched", lambda: True)
    return screen


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def record(step, value=None, what="train_loss", **more):
    value = 5.0 / step if value is None else value
    return dict(what=what, value=value, unit="nats", step=step, tokens=100 * step, model="ModernBERT", seed=0) | more


def test_one_picture_is_drawn_anew_in_its_place_each_second(screen, clock):
    plot = LivePlot("Loss")
    for step in range(1, 31):  # ten records a second, for three seconds
        clock[0] += 0.1
        plot(record(step))
    assert len(screen.shown) == 1 and len(screen.updates) == 2
    assert base64.b64decode(screen.shown[0]["image/png"]).startswith(b"\x89PNG")
    assert screen.updates[-1]["text/plain"].startswith("[figure: Loss, 2")
    assert screen.updates[0]["image/png"] != screen.updates[1]["image/png"]
    plot.redraw()  # at the end, whatever the clock says
    assert len(screen.shown) == 1 and screen.updates[-1]["text/plain"] == "[figure: Loss, 30 records]"


def test_slow_drawing_is_done_less_often(screen, clock, monkeypatch):
    def slow(figure):
        clock[0] += 0.5
        return b"\x89PNG"

    monkeypatch.setattr(live, "png_bytes", slow)
    plot = LivePlot("Loss")
    start = clock[0]
    for step in range(1, 101):
        clock[0] += 1
        plot(record(step))
    drawn = 1 + len(screen.updates)
    assert 2 <= drawn and 0.5 * drawn <= 0.06 * (clock[0] - start) + 0.5


def test_nothing_is_shown_where_nobody_looks(screen, monkeypatch):
    monkeypatch.setattr(live, "watched", lambda: False)
    plot = LivePlot("Loss")
    for step in range(1, 5):
        plot(record(step))
    plot.redraw()
    assert screen.shown == screen.updates == [] and len(plot.records) == 4


def test_a_runner_and_a_test_are_nobody(monkeypatch):
    monkeypatch.setattr(live, "in_notebook", lambda: True)
    assert not live.watched()  # this is a test
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.delenv("MODERNBERT_EDU_STATIC", raising=False)
    assert live.watched()
    monkeypatch.setenv("MODERNBERT_EDU_STATIC", "1")
    assert not live.watched()
    monkeypatch.delenv("MODERNBERT_EDU_STATIC")
    monkeypatch.setattr(live, "in_notebook", lambda: False)
    assert not live.watched()


def test_the_figure_holds_line_and_points():
    plot = LivePlot("Loss while training", x="tokens", y="loss in nats")
    for step in range(1, 401):
        plot(record(step, device="a test"))
        if step % 100 == 0:
            plot(record(step, 1.5, "held_out_loss", device="a test"))
            plot(record(step, 0.2, "masked_accuracy"))  # another quantity has no place on this axis
    (ax,) = plot.figure().axes
    train, held_out = ax.get_lines()
    assert ax.get_title() == "Loss while training" and ax.get_ylabel() == "loss in nats"
    assert ax.get_xlabel() == "training tokens seen"
    assert train.get_label() == "ModernBERT, training (mean of 9 steps)" and len(train.get_xdata()) == 400
    assert train.get_marker() == "" and held_out.get_linestyle() == "None"
    assert held_out.get_xdata().tolist() == [10_000, 20_000, 30_000, 40_000] and set(held_out.get_ydata()) == {1.5}
    assert plot.figure().texts[0].get_text() == "measured on a test"


def test_models_and_seeds_are_told_apart():
    plot = LivePlot("Loss", x="step")
    for model, seed in (("BERT", 0), ("ModernBERT", 0), ("ModernBERT", 1)):
        for step in range(1, 6):
            plot(record(step, model=model, seed=seed))
    lines = plot.figure().axes[0].get_lines()
    labels = [line.get_label() for line in lines]
    assert labels == ["BERT, training", "ModernBERT, seed 0, training", "ModernBERT, seed 1, training"]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_an_empty_plot_and_one_record_can_be_drawn():
    assert LivePlot("Loss").figure().axes[0].get_lines()[:] == []
    plot = LivePlot("Loss")
    plot(record(1, 2.0, "held_out_loss"))
    plot({"what": "held_out_loss", "value": 1.0})  # no tokens: it has no place
    assert len(plot.figure().axes[0].get_lines()) == 1


def test_smoothing_is_the_plain_mean_of_the_neighbours():
    values = np.random.default_rng(0).normal(size=250)
    xs, means, width = smoothed(list(enumerate(values)))
    assert width == 5 and xs.tolist() == list(range(250))
    for i in range(250):
        assert means[i] == pytest.approx(values[max(0, i - 2) : i + 3].mean())
    xs, means, width = smoothed([(2, 1.0), (1, 3.0), (3, math.nan)])
    assert (xs.tolist(), means.tolist(), width) == ([1, 2], [3.0, 1.0], 1)


def test_pyplot_is_left_alone():
    import sys

    before = "matplotlib.pyplot" in sys.modules
    plot = LivePlot("Loss")
    plot(record(1))
    plot.figure()
    assert ("matplotlib.pyplot" in sys.modules) == before
