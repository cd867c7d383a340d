"""Figures drawn from synthetic records: what they say, what they refuse, and that they are the same every time."""

import subprocess
import sys

import pytest

from modernbert_edu.errors import InputError
from modernbert_edu.measure import plots

LENGTHS = [128, 256, 512]
DEVICE = "Test CPU, 2 cores"


def record(what, value, unit, model, **more):
    where = dict(device=DEVICE, torch="9.9.9", dtype="float32", backend="sdpa")
    return dict(what=what, value=value, unit=unit, model=model, spread=None, n=5, seed=0) | where | more


def loss(model, tokens, value, **more):
    return record("held_out_loss", value, "nats", model, **{"tokens": tokens, "seconds": tokens / 1000} | more)


def speed(model, value, **more):
    return record("forward_tokens_per_second", value, "tokens/s", model, **{"spread": value / 20} | more)


def memory(model, mib, **more):
    return record("train_memory_bytes", mib * 2**20, "bytes", model, how="peak of the test", **more)


def tour_records():
    found = [record("unigram_entropy", 6.5, "nats", "corpus")]
    for step in range(4):
        found += [loss("BERT", step * 1000, 8 - 0.5 * step), loss("ModernBERT", step * 1000, 8 - step)]
        found += [record("masked_accuracy", step / 10, "fraction", m, tokens=step) for m in ("BERT", "ModernBERT")]
    for length in LENGTHS:
        found += [speed("BERT", 1e6 / length, length=length), speed("ModernBERT", 2e4, length=length)]
        found += [memory("BERT", length, length=length), memory("ModernBERT", length / 2, length=length)]
    found += [speed("BERT", 3000, batch="mixed"), speed("ModernBERT", 7500, batch="mixed")]
    found += [memory("BERT", 300, batch="mixed"), memory("ModernBERT", 100, batch="mixed")]
    return found


def without(records, *fields, **only):
    """The records with fields removed from those that match `only`."""
    matches = [all(r.get(k) == v for k, v in only.items()) for r in records]
    strip = [{k: v for k, v in r.items() if k not in fields} for r in records]
    return [s if m else r for s, r, m in zip(strip, records, matches, strict=True)]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def labels(ax):
    return [text.get_text() for text in ax.texts]


def lines(ax, name):
    """The data lines of one model, also those inside error bars."""
    named = [line for line in ax.lines if line.get_label() == name]
    named += [box.lines[0] for box in ax.containers if box.get_label() == name and hasattr(box, "lines")]
    return named


FIGURES = {
    "learning": plots.plot_learning,
    "learning_seconds": lambda records: plots.plot_learning(records, x="seconds"),
    "speed": plots.plot_speed,
    "memory": plots.plot_memory,
    "mixed": plots.plot_mixed,
    "tour": plots.plot_tour,
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_units_names_and_its_device(name):
    figure = FIGURES[name](tour_records())
    assert any(DEVICE in text and "torch 9.9.9" in text and "float32" in text for text in texts(figure))
    for ax in figure.axes:
        assert any(unit in ax.get_ylabel() for unit in ("(nats)", "(tokens/s)", "(MiB)")), ax.get_ylabel()
        assert name == "mixed" or any(unit in ax.get_xlabel() for unit in ("tokens", "(s)")), ax.get_xlabel()
        assert ax.get_title()
        words = labels(ax) + [tick.get_text() for tick in ax.get_xticklabels()]
        assert {"BERT", "ModernBERT"} <= set(words)


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_records_give_the_same_bytes(name):
    first, second = (plots.png_bytes(FIGURES[name](tour_records())) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")
    assert b"Software" not in first and b"matplotlib" not in first


def test_learning_curves_are_the_records():
    ax = plots.plot_learning(tour_records()).axes[0]
    (bert,), (modern,) = lines(ax, "BERT"), lines(ax, "ModernBERT")
    assert list(bert.get_xdata()) == [0, 1000, 2000, 3000]
    assert list(bert.get_ydata()) == [8, 7.5, 7, 6.5]
    assert list(modern.get_ydata()) == [8, 7, 6, 5]
    (entropy,) = lines(ax, "unigram entropy")
    assert set(entropy.get_ydata()) == {6.5}
    assert "unigram entropy 6.50" in labels(ax)
    ax = plots.plot_learning(tour_records(), x="seconds").axes[0]
    assert list(lines(ax, "BERT")[0].get_xdata()) == [0, 1, 2, 3]


def test_accuracy_has_no_entropy_line():
    ax = plots.plot_learning(tour_records(), what="masked_accuracy").axes[0]
    assert not lines(ax, "unigram entropy")
    assert ax.get_ylabel() == "masked accuracy (fraction)"


def test_each_seed_has_its_line_and_each_model_one_name():
    records = [loss("BERT", t, 8 - t + seed / 10, seed=seed) for seed in (0, 1, 2) for t in (0, 1)]
    ax = plots.plot_learning(records).axes[0]
    assert len(lines(ax, "BERT")) == 3
    assert labels(ax) == ["BERT"]


def test_a_repeated_measurement_replaces_the_earlier_one():
    records = [speed("BERT", 1.0, length=128), speed("BERT", 5.0, length=128)]
    ax = plots.plot_speed(records).axes[0]
    assert list(lines(ax, "BERT")[0].get_ydata()) == [5.0]


def test_speed_axis_is_logarithmic_with_the_lengths_as_ticks():
    ax = plots.plot_speed(tour_records()).axes[0]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert "log scale" in ax.get_xlabel() and "log scale" in ax.get_ylabel()
    assert list(ax.get_xticks()) == [*LENGTHS, 1024]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["128", "256", "512", "mixed"]
    assert list(lines(ax, "BERT")[0].get_xdata()) == LENGTHS
    assert list(lines(ax, "ModernBERT mixed")[0].get_ydata()) == [7500]
    bars = next(box for box in ax.containers if box.get_label() == "ModernBERT").lines[2][0]
    low, high = bars.get_segments()[0][:, 1]
    assert high - low == pytest.approx(2e4 / 20)


@pytest.mark.parametrize("plot", [plots.plot_speed, plots.plot_memory])
def test_a_linear_axis_begins_at_zero_and_does_not_claim_to_be_logarithmic(plot):
    ax = plot(tour_records(), log=False).axes[0]
    assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] == 0 and "log scale" not in ax.get_ylabel()
    assert list(lines(ax, "BERT")[0].get_ydata()) == list(lines(plot(tour_records()).axes[0], "BERT")[0].get_ydata())


def test_without_a_mixed_batch_there_is_no_column_for_it():
    fixed = [r for r in tour_records() if r.get("batch") != "mixed"]
    ax = plots.plot_speed(fixed).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["128", "256", "512"]


def test_memory_is_drawn_in_mib_and_says_how_it_was_counted():
    figure = plots.plot_memory(tour_records())
    assert list(lines(figure.axes[0], "BERT")[0].get_ydata()) == LENGTHS
    assert any("memory: peak of the test" in text for text in texts(figure))


def test_mixed_bars_start_at_zero_and_show_the_values():
    left, right = plots.plot_mixed(tour_records()).axes
    assert [bar.get_height() for bar in left.patches] == [3000, 7500]
    assert [bar.get_height() for bar in right.patches] == [300, 100]
    assert left.get_ylim()[0] == right.get_ylim()[0] == 0
    assert {"3,000", "7,500"} <= set(labels(left))
    assert "2.5 times" in left.get_title() and "0.33 times" in right.get_title()


@pytest.mark.parametrize(
    ("how", "title"),
    [("kept for the backward pass", "Memory: kept for the backward pass"),
     ("tensors kept for the backward pass, each storage once", "Memory: kept for the backward pass"),
     ("highest allocation over forward and backward", "Memory: forward and backward"),
     (None, "Memory: forward and backward")],
)  # fmt: skip
def test_the_memory_panels_title_says_what_was_counted(how, title):
    ax = plots.plot_memory([memory("BERT", 1, length=8) | {"how": how}]).axes[0]
    assert ax.get_title() == title


def test_series_differ_in_more_than_colour():
    from matplotlib.colors import to_rgb

    styles = [*plots.STYLES.values(), *plots.MORE_STYLES]
    assert len({str(s["linestyle"]) for s in styles}) == len({s["marker"] for s in styles}) == len(styles)
    assert len(plots.HATCHES) >= len(styles)
    grey = [sum(w * c for w, c in zip((0.299, 0.587, 0.114), to_rgb(s["color"]), strict=True)) for s in styles[:2]]
    assert abs(grey[0] - grey[1]) > 0.2


def test_end_labels_keep_their_distance():
    records = [loss(name, t, 5 + i / 1000) for i, name in enumerate(["BERT", "ModernBERT", "X", "Y"]) for t in (0, 1)]
    figure = plots.plot_learning([*records, loss("BERT", 0, 9)])  # one high start: the ends lie within a pixel
    ax = figure.axes[0]
    heights = sorted(
        ax.transData.transform(text.xy)[1] * 72 / figure.dpi + text.xyann[1]
        for text in ax.texts
        if text.get_text() in {"BERT", "ModernBERT", "X", "Y"}
    )
    assert len(heights) == 4
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) >= 11.99


def test_the_tour_states_what_the_records_say():
    records = tour_records()
    claim = plots.tour_claim(records)
    assert "At 512 tokens ModernBERT has 10 times BERT's speed (mixed lengths: 2.5 times)" in claim
    assert "0.50 times its training memory" in claim
    assert "ModernBERT 5.00 nats, BERT 6.50 nats" in claim
    figure = plots.plot_tour(records)
    assert figure.get_suptitle().replace("\n", " ") == claim.replace("\n", " ")
    assert len(figure.axes) == 4
    assert figure.axes[1].get_xlabel() == "training time (s)"
    slower = [r | {"value": 100.0} if r["model"] == "ModernBERT" and "tokens_per" in r["what"] else r for r in records]
    assert "0.05 times BERT's speed" in plots.tour_claim(slower)


def test_the_claim_uses_the_longest_length_that_both_have():
    records = [r for r in tour_records() if not (r["model"] == "BERT" and r.get("length") == 512)]
    assert plots.tour_claim(records).startswith("At 256 tokens")


def test_without_seconds_the_tour_shows_accuracy():
    figure = plots.plot_tour(without(tour_records(), "seconds"))
    assert figure.axes[1].get_ylabel() == "masked accuracy (fraction)"


@pytest.mark.parametrize("name", FIGURES)
def test_no_records_are_refused(name):
    with pytest.raises(InputError, match="no record"):
        FIGURES[name]([])
    with pytest.raises(InputError, match="none of the 1 records is of|no records of a mixed batch"):
        FIGURES[name]([record("something_else", 1.0, "s", "BERT")])


@pytest.mark.parametrize(
    "draw, records, message",
    [
        (plots.plot_learning, without(tour_records(), "model", what="held_out_loss"), "lacks the field 'model'"),
        (plots.plot_learning, without(tour_records(), "device", what="held_out_loss"), "lacks the field 'device'"),
        (plots.plot_learning, without(tour_records(), "tokens"), "has the field 'tokens'"),
        (plots.plot_speed, without(tour_records(), "length"), "has the field 'length'"),
        (plots.plot_learning, [loss("BERT", 0, float("nan"))], "held_out_loss of BERT is nan"),
        (plots.plot_speed, [speed("BERT", 1, length=8), speed("BERT", 1, length=8, device="GPU")], "differ in device"),
        (plots.plot_speed, [speed("A", 1, length=8), speed("B", 1, length=8, dtype="bfloat16")], "differ in dtype"),
        (plots.plot_memory, [memory("BERT", 1, length=8) | {"unit": "MiB"}], "must be recorded in bytes, not in MiB"),
        (plots.tour_claim, [r for r in tour_records() if r["model"] != "BERT"], "at no common length"),
    ],
)
def test_records_that_cannot_be_drawn_are_refused_by_name(draw, records, message):
    with pytest.raises(InputError, match=message) as error:
        draw(records)
    assert "\n" not in str(error.value)


def test_save_writes_whole_files_only(tmp_path):
    figure = plots.plot_speed(tour_records())
    path = plots.save(figure, tmp_path / "speed.png")
    assert path.read_bytes() == plots.png_bytes(figure)
    assert [p.name for p in tmp_path.iterdir()] == ["speed.png"]
    with pytest.raises(InputError, match="cannot write"):
        plots.save(figure, tmp_path / "missing" / "speed.png")
    with pytest.raises(InputError, match="must end in .png"):
        plots.save(figure, tmp_path / "speed.pdf")


def test_a_failed_save_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "speed.png"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots.os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        plots.save(plots.plot_speed(tour_records()), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["speed.png"]


def test_figures_show_themselves_in_a_notebook():
    formatters = pytest.importorskip("IPython.core.formatters")
    figure = plots.plot_speed(tour_records())
    data, _ = formatters.DisplayFormatter().format(figure)
    assert data["image/png"] == plots.png_bytes(figure)


def test_drawing_never_touches_pyplot_and_importing_not_even_matplotlib():
    code = (
        "import sys; from modernbert_edu.measure import plots; assert 'matplotlib' not in sys.modules;"
        "figure = plots.plot_speed([dict(what='forward_tokens_per_second', value=1.0, unit='tokens/s', model='BERT',"
        " device='d', length=8)]); plots.png_bytes(figure); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_on_given_axes_adds_no_footer():
    from matplotlib.figure import Figure

    figure = Figure()
    assert plots.plot_memory(tour_records(), ax=figure.add_subplot()) is figure
    assert texts(figure) == []
