"""Every figure that the committed records give: one colour for each model, named axes, series apart without colour."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

from modernbert_edu import lessons
from modernbert_edu.classroom.notebooks import figures_of, redraw_figures
from modernbert_edu.measure import ablation_plots, bench_plots, headline, plots, retrieval_curve
from modernbert_edu.runtime import read_jsonl

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "figures"
MODEL = re.compile(r"(BERT|ModernBERT)(?:, \d+ seeds?| mixed)?")  # a model itself, not one of its variants


def kept(pattern):
    return [record for path in sorted((FIGURES / "measurements").glob(pattern))[:1] for record in read_jsonl(path)]


def drawings():
    """{name: (function, records)} of all that is recorded."""
    found = {}
    for lesson, module in lessons.MODULES.items():
        records = lessons.recorded(lesson, FIGURES)
        figures = importlib.import_module(f"modernbert_edu.lessons.{module}").FIGURES
        found |= {name: (figure, records) for name, figure in figures.items()}
    tour = lessons.recorded("00_tour", FIGURES)
    found["00_tour"], found["00_tour_mixed"] = (plots.plot_tour, tour), (plots.plot_mixed, tour)
    found["headline"] = headline.plot_headline, headline.kept(FIGURES)
    found["retrieval"] = retrieval_curve.plot_curve, retrieval_curve.kept(FIGURES)
    found["bench"] = bench_plots.plot_bench, kept("*/bench-base.jsonl")
    ladder = lessons.recorded("ablation-ladder", FIGURES)
    found["ablation-ladder"] = lambda records: ablation_plots.plot_ablation(records, "BERT"), ladder
    return found


DRAWINGS = drawings()


# ------------------------------------------------------------------------------------------------ what is looked for


def series(ax):
    """[(name, colour, what is left of its look on a grey printer)] of all that bears a name in these axes."""
    found = []
    for artist in [*ax.lines, *ax.containers]:
        if artist.get_label().startswith("_"):
            continue
        if isinstance(artist, BarContainer):
            for bar in artist:
                found.append((artist.get_label(), to_hex(bar.get_facecolor()), bar.get_hatch()))
            continue
        line = artist.lines[0] if isinstance(artist, ErrorbarContainer) else artist
        dashes = None if line.get_linestyle() == "None" else str(line._dash_pattern)
        width = line.get_linewidth() >= 3  # as good as a style of its own
        found.append((artist.get_label(), to_hex(line.get_color()), (dashes, str(line.get_marker()), width)))
    return found


def bars_with_ticks(ax):
    """[(name of its tick, colour)] of the bars that stand at named ticks."""
    found = []
    for box in (box for box in ax.containers if isinstance(box, BarContainer)):
        upright = box.orientation == "vertical"
        axis = ax.xaxis if upright else ax.yaxis
        names = dict(zip(axis.get_majorticklocs(), (t.get_text() for t in axis.get_majorticklabels()), strict=True))
        for bar in box:
            middle = bar.get_x() + bar.get_width() / 2 if upright else bar.get_y() + bar.get_height() / 2
            near = [name for place, name in names.items() if abs(place - middle) < 1e-6]
            found += [(name, to_hex(bar.get_facecolor())) for name in near]
    return found


def wrong_colours(ax):
    named = [(name, colour) for name, colour, _ in series(ax)] + bars_with_ticks(ax)
    written = [(text.get_text(), to_hex(text.get_color())) for text in ax.texts]
    named += [(name, colour) for name, colour in written if colour not in ("#000000", plots.FAINT)]
    for name, colour in named:
        model = MODEL.fullmatch(name)
        if model and colour != plots.STYLES[model[1]]["color"]:
            yield f"{name} is {colour}"


def without_a_name(ax):
    """Axes of numbers that are not named, nor is an axis that they share, nor all of the figure's."""
    if not ax.has_data() or not ax.axison:
        return
    for letter in "xy":
        axis = getattr(ax, f"{letter}axis")
        together = getattr(ax, f"get_shared_{letter}_axes")().get_siblings(ax)
        whole = getattr(ax.figure, f"get_sup{letter}label")()
        ticks = [tick.get_text() for tick in axis.get_majorticklabels()]
        words = any(tick[:1].isalpha() for tick in ticks)
        labels = [getattr(other, f"get_{letter}label")() for other in together]
        if ticks and not words and not whole and not any(labels):
            yield f"the {letter} axis of {ax.get_title()!r} has no name"


def alike(ax):
    """Pairs of series of one panel that only their colour tells apart."""
    looks = {}
    for name, _, look in series(ax):
        other = looks.setdefault(look, name)
        if other != name:
            yield f"{name!r} and {other!r} differ in colour alone"


def complaints(figure):
    return [words for ax in figure.axes for check in (wrong_colours, without_a_name, alike) for words in check(ax)]


# ------------------------------------------------------------------------------------------------ the figures


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_readable_and_gives_each_model_its_colour(name):
    draw, records = DRAWINGS[name]
    if not records:
        pytest.skip("nothing is recorded yet")
    figure = draw(records)
    assert complaints(figure) == []
    plain = [ax for ax in figure.axes if ax.axison and not ax.images]
    assert not any(ax.spines[side].get_visible() for ax in plain for side in ("top", "right"))


def test_both_models_are_among_what_was_looked_at():
    """Or a change of the labels would make the test above see nothing."""
    seen = {}
    for name in ("00_tour", "00_tour_mixed", "headline", "bench"):
        draw, records = DRAWINGS[name]
        axes = draw(records).axes
        labels = [label for ax in axes for label, *_ in series(ax) + bars_with_ticks(ax)]
        seen[name] = {match[1] for match in map(MODEL.fullmatch, labels) if match}
    both = {"BERT", "ModernBERT"}
    assert seen == {"00_tour": both, "00_tour_mixed": both, "headline": both, "bench": {"BERT"}}


def test_a_wrong_figure_is_found_out():
    ax = Figure().add_subplot()
    wrong = plots.STYLES["ModernBERT"]["color"]
    ax.plot([0, 1], [1, 2], color=wrong, label="BERT, 3 seeds")
    ax.plot([0, 1], [2, 3], color="#009e73", label="another")
    assert complaints(ax.figure) == [
        f"BERT, 3 seeds is {wrong}",
        "the x axis of '' has no name",
        "the y axis of '' has no name",
        "'another' and 'BERT, 3 seeds' differ in colour alone",
    ]
    ax = Figure().add_subplot(xlabel="x", ylabel="y")
    ax.errorbar([0, 1], [1, 2], yerr=0.1, color="red", label="ModernBERT mixed")
    ax.annotate("BERT", (0, 0), color="red")
    assert complaints(ax.figure) == ["ModernBERT mixed is #ff0000", "BERT is #ff0000"]
    ax = Figure().add_subplot(ylabel="y")
    ax.bar([0, 1], [1, 2], color=["#d07c00", "red"])
    ax.set_xticks([0, 1], ["BERT", "ModernBERT"])
    assert complaints(ax.figure) == ["ModernBERT is #ff0000"]
    ax = Figure().add_subplot(xlabel="x")
    ax.barh(["BERT"], [1], color="red")
    assert complaints(ax.figure) == ["BERT is #ff0000"]
    ax = Figure().add_subplot(xlabel="x", ylabel="y")
    for place, name in enumerate("ab"):
        ax.bar([place], [1], label=name, hatch="//")
    assert complaints(ax.figure) == ["'b' and 'a' differ in colour alone"]
    ax = Figure().add_subplot(xlabel="x", ylabel="y")
    for name, look in plots.STYLES.items():
        ax.plot([0, 1], [1, 2], label=name, **look)
    assert complaints(ax.figure) == []


# ------------------------------------------------------------------------------------------------ the style


def test_the_style_holds_for_a_drawing_and_for_no_longer():
    import matplotlib

    reader = {"axes.grid": False, "lines.linewidth": 7.0, "font.size": 20.0, "axes.spines.top": True}
    records = lessons.recorded("00_tour", FIGURES)
    before = plots.png_bytes(plots.plot_tour(records))
    with matplotlib.rc_context(reader):
        settings = dict(matplotlib.rcParams)
        assert plots.png_bytes(plots.plot_tour(records)) == before
        assert dict(matplotlib.rcParams) == settings
        with plots.style():
            assert matplotlib.rcParams["lines.linewidth"] == 1.8 and matplotlib.rcParams["axes.grid"]
        assert matplotlib.rcParams["lines.linewidth"] == 7


def test_the_style_file_has_the_models_colours_and_is_shipped():
    import matplotlib

    with plots.style():
        cycle = ["#" + colour.lstrip("#") for colour in matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]]
    looks = [plots.STYLES["ModernBERT"], plots.STYLES["BERT"], *plots.MORE_STYLES]
    assert cycle == [look["color"] for look in looks]
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    package = plots.__name__.rpartition(".")[0]
    assert plots.STYLE_FILE.name in data[package] and plots.STYLE_FILE.parent == Path(plots.__file__).parent


# ------------------------------------------------------------------------------------------------ drawn again


def test_all_committed_figures_are_drawn_again(monkeypatch, tmp_path):
    """Each by its own name, and none is forgotten: what is saved is what lies in figures/."""
    saved = []
    monkeypatch.setattr(plots, "save", lambda figure, path: saved.append(path) or path)
    monkeypatch.setattr(bench_plots, "save", plots.save)
    monkeypatch.setattr(lessons.plots, "save", plots.save)
    for owner, names in {
        plots: ("plot_tour", "plot_mixed"), headline: ("plot_headline",), retrieval_curve: ("plot_curve",),
        bench_plots: ("plot_bench",), ablation_plots: ("plot_ablation",),
    }.items():  # fmt: skip
        for name in names:
            monkeypatch.setattr(owner, name, lambda *_: None)
    for module in lessons.MODULES.values():
        module = importlib.import_module(f"modernbert_edu.lessons.{module}")
        monkeypatch.setattr(module, "FIGURES", dict.fromkeys(module.FIGURES, lambda records: None))
    assert redraw_figures(FIGURES) == saved
    drawn = {path.name for path in saved}
    assert {"bench.png", "ablation-ladder.png", "headline.png", "00_tour.png"} <= drawn
    assert {path.name for path in FIGURES.glob("*.png")} <= drawn
    saved.clear()
    assert {path.name[:2] for path in redraw_figures(FIGURES, ["04"])} == {"04"}
    assert redraw_figures(tmp_path) == []


def test_another_folder_of_lessons_has_figures_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert figures_of("notebooks", "out") == Path("figures")
    assert figures_of(tmp_path / "notebooks", "out") == Path("figures")
    for other in ("copy", "copy/notebooks", tmp_path.parent / "notebooks"):
        assert figures_of(other, "out") == Path("out/figures")


def test_the_command_draws_the_committed_figures_for_the_committed_lessons_alone(tmp_path, monkeypatch, capsys):
    from modernbert_edu.__main__ import main
    from modernbert_edu.classroom import notebooks

    given = []
    monkeypatch.setattr(notebooks, "run_notebooks", lambda *_, figures, **__: given.append(figures) or [])
    monkeypatch.chdir(tmp_path)
    kept_here = tmp_path / "figures" / "measurements" / "a-cpu" / "04_rope-laptop.jsonl"
    kept_here.parent.mkdir(parents=True)
    kept_here.write_bytes(next(FIGURES.glob("measurements/*/04_rope-laptop.jsonl")).read_bytes())
    assert main(["notebooks", "--folder", "copy", "--only", "04", "--out", "out"]) == 0
    assert "figures drawn: none" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.png"))
    assert main(["notebooks", "--only", "04", "--out", "out"]) == 0
    assert {path.parent.name for path in tmp_path.rglob("04_rope_*.png")} == {"figures"}
    assert main(["notebooks", "--folder", "copy", "--only", "04", "--figures", "named"]) == 0
    assert given == [Path("out/figures"), Path("figures"), Path("named")]
