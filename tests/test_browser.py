"""A lesson in the JupyterLab that `make lab` starts, as a student sees it in a browser (skipped without one)."""

import os
import re
import shutil
import subprocess

import nbformat
import pytest
from browser import ROOT, chromium, headless, make_lab, opened
from planted import PLANTED
from test_notebooks import exercises_of

LESSON = ROOT / "notebooks" / "04_rope.ipynb"
needs_make = pytest.mark.skipif(not shutil.which("make") or os.name == "nt", reason="needs make and a POSIX shell")
# A busy machine may take many times the minute that an idle one needs.
patient = pytest.mark.timeout(1800)


def broken_notebook():
    """What the test of the lesson must notice: a picture that is none, an error, a cell that never ran."""
    sources = [
        "print('fine')",
        "from IPython.display import display\ndisplay({'image/png': 'bm90IGEgcGljdHVyZQ=='}, raw=True)",
        "1 / 0",
        "print('never')",
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return nbformat.v4.new_notebook(metadata=kernel, cells=[nbformat.v4.new_code_cell(source) for source in sources])


@pytest.fixture(scope="module")
def lesson():
    return nbformat.read(LESSON, as_version=4)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("playwright", reason="Playwright is not installed (requirements.txt has it)")
    program, why_not = chromium()
    if program is None:
        pytest.skip(why_not)
    with headless(program, tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def lab(browser, lesson, tmp_path_factory):
    """`make lab` in a folder with a copy of the lesson, less its outputs: what is seen is new."""
    checkout = tmp_path_factory.mktemp("checkout")
    (checkout / "notebooks").mkdir()
    shutil.copytree(ROOT / "figures" / "measurements", checkout / "figures" / "measurements")
    bare = nbformat.from_dict(lesson)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(bare, checkout / "notebooks" / LESSON.name)
    nbformat.write(broken_notebook(), checkout / "notebooks" / "broken.ipynb")
    with make_lab(checkout) as running:
        yield running


def cell_with(notebook, text):
    (place,) = [place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code" and text in cell.source]
    return place


def stored_pictures(notebook):
    """{cell: number of pictures stored with it}."""
    code = [(place, cell) for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    counts = {place: sum("image/png" in output.get("data", {}) for output in cell.outputs) for place, cell in code}
    return {place: count for place, count in counts.items() if count}


@needs_make
@patient
def test_a_student_runs_a_lesson_moves_a_slider_and_solves_an_exercise(browser, lab, lesson):
    before = LESSON.read_bytes()
    with opened(browser, lab, LESSON.name, cells=len(lesson.cells)) as seen:
        code = [cell for cell in lesson.cells if cell.cell_type == "code"]
        assert seen.prompts() == [""] * len(code)
        seen.run_all()
        assert seen.errors() == []
        assert seen.prompts() == [str(number) for number in range(1, len(code) + 1)]
        assert seen.text(cell_with(lesson, "environment_line(")).startswith("scale: quick | Python ")

        # The figures: where the stored lesson has some, and drawn, not only announced.
        expected = stored_pictures(lesson)
        assert sum(expected.values()) >= 5
        for place, count in expected.items():
            pictures = seen.pictures(place)
            assert len(pictures) == count, f"cell {place} shows {len(pictures)} pictures, {count} are stored"
            assert all(picture["pixels"] > 300 and picture["width"] > 300 for picture in pictures), pictures

        # A slider: its picture, the only one, follows, and comes back with it.
        sliders = cell_with(lesson, "interact.slider(")
        first = seen.live_picture(sliders)
        assert first.startswith("data:image/png;base64,")
        seen.move_slider(sliders, "distance", "ArrowRight")
        moved = seen.live_picture(sliders)
        seen.move_slider(sliders, "position", "ArrowRight")
        assert len({first, moved, seen.live_picture(sliders)}) == 3
        seen.move_slider(sliders, "position", "ArrowLeft")
        assert seen.live_picture(sliders) == moved
        seen.move_slider(sliders, "distance", "ArrowLeft")
        assert seen.live_picture(sliders) == first

        # An exercise: open, then answered wrongly, then rightly; the check turns from amber to red to green.
        (solution,) = [solution for _, name, _, solution in exercises_of(LESSON) if name == "turn"]
        wrong, words = next(planted for planted in PLANTED["check_turn"] if "the other way" in planted[1])
        place = cell_with(lesson, "checks.check_turn(")
        line, (red, green, blue) = seen.verdict(place)
        assert line == "to do: fill in turn, then run this cell again" and min(red, green) > 2 * blue
        for answer, line, is_green in [(wrong, f"not yet: .*{words}", False), (solution, "passed: turn .+", True)]:
            typed = f"{answer.strip()}\n\n\n_ = checks.check_turn(turn)"
            seen.write(place, typed)
            assert seen.source(place) == typed
            seen.run(place)
            said, (red, green, blue) = seen.verdict(place)
            assert re.fullmatch(line + ".*", said), said
            assert green > 2 * max(red, blue) if is_green else red > 2 * max(green, blue)
        assert seen.errors() == []
    assert LESSON.read_bytes() == before


@needs_make
@patient
def test_an_error_a_broken_picture_and_a_cell_not_run_are_noticed(browser, lab):
    with opened(browser, lab, "broken.ipynb", cells=4) as seen:
        seen.run_all()
        assert seen.text(0) == "fine"
        assert seen.errors() == ["ZeroDivisionError: division by zero"]
        assert seen.prompts() == ["1", "2", "3", ""] and seen.text(3) == ""
        (picture,) = seen.pictures(1)
        assert picture["pixels"] == 0
        seen.write(2, "def half(x):\n    return x / 2\n\n\nhalf(1)")
        seen.run(2)
        assert seen.errors() == [] and seen.text(2) == "0.5"


# ------------------------------------------------------------------------------------ where there is none


@needs_make
@pytest.mark.parametrize(("browser_there", "apt_status"), [(True, 0), (False, 0), (False, 100)])
def test_ci_installs_a_browser_where_it_may_and_tests_in_any_case(tmp_path, browser_there, apt_status):
    log, tools = tmp_path / "log", tmp_path / "bin"
    tools.mkdir()
    logged = f'echo "${{0##*/}} $*" >> "{log}"\n'
    bodies = {"apt-get": f"{logged}exit {apt_status}", "make": f"{logged}exit 7", "id": "echo 0"}
    for name, body in (bodies | ({"chromium": "exit 0"} if browser_there else {})).items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    for name in ["bash", "sh", "dirname", "timeout", "env"]:
        (tools / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [str(tools / "bash"), str(ROOT / ".ci" / "run")], env={"PATH": str(tools)}, capture_output=True, text=True
    )
    calls = log.read_text().splitlines()
    assert done.returncode == 7 and calls[-1] == "make test", done.stderr  # make's own status is the script's
    installs = [call for call in calls if call.startswith("apt-get") and " install " in call]
    assert bool(installs) == (not browser_there and apt_status == 0)
    assert ("no browser" in done.stderr) == (apt_status != 0)


def test_without_a_browser_the_reason_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium() == (None, "Chromium is not installed (Debian: apt-get install chromium)")
    (tmp_path / "chromium-browser").write_text("#!/bin/sh\nexit 10\n")
    (tmp_path / "chromium-browser").chmod(0o755)
    assert chromium() == (None, f"{tmp_path}/chromium-browser did not start: exit status 10")
