import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat import v4

from modernbert_edu.classroom.notebooks import REPOSITORY, run_notebooks
from modernbert_edu.errors import InputError


def write_lesson(path, *sources, **metadata):
    """A notebook whose code cells carry outputs of an earlier run."""
    cells = [v4.new_markdown_cell("# A lesson")]
    for source in sources:
        stale = [v4.new_output("stream", text="stale\n")]
        cells.append(v4.new_code_cell(source, outputs=stale, execution_count=9, metadata={"execution": {"a": "b"}}))
    nbformat.write(v4.new_notebook(cells=cells, metadata=metadata), path)


def printed(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Three lessons, one of which fails half-way, run in place with a broken `python3` kernel registered."""
    root = tmp_path_factory.mktemp("course")
    kernel = root / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    broken = {"argv": ["no-such-python"], "display_name": "Another", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(broken))
    folder = root / "notebooks"
    folder.mkdir()
    where = "import os, sys, modernbert_edu\nprint(os.environ['MODERNBERT_EDU_SCALE'], sys.executable, os.getcwd())"
    picture = "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])\nplt.show()"
    other = {"kernelspec": {"name": "elsewhere", "display_name": "Elsewhere", "language": "python"}}
    write_lesson(folder / "00_good.ipynb", where, picture, **other, widgets={"state": {}}, title="kept")
    write_lesson(folder / "01_bad.ipynb", "print('first half')", "raise ValueError('too\\nwide')", "print('never')")
    write_lesson(folder / "02_dead.ipynb", "import os\nos._exit(3)")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(root / "jupyter"))
        results = run_notebooks(folder, root / "out", scale="quick", in_place=True, cell_seconds=60)
    return folder, root / "out", before, results


def test_every_lesson_is_run_in_order_and_a_failure_stops_no_other(course):
    results = course[3]
    assert [result.name for result in results] == ["00_good", "01_bad", "02_dead"]
    assert [result.error for result in results] == [None, "ValueError: too wide", "Kernel died"]
    assert [result.cells for result in results] == [2, 3, 1]
    assert [result.pictures for result in results] == [1, 0, 0]
    assert all(result.seconds > 0 for result in results)


def test_a_lesson_runs_in_this_python_in_its_folder_at_the_scale_asked_for(course):
    folder, out = course[:2]
    assert printed(out / "00_good.ipynb") == f"quick {sys.executable} {folder}\n"


def test_a_failed_lesson_is_saved_up_to_its_failing_cell(course):
    out = course[1]
    assert printed(out / "01_bad.ipynb") == "first half\n"
    assert [path.name for path in sorted(out.iterdir())] == ["00_good.ipynb", "01_bad.ipynb", "02_dead.ipynb"]


def test_in_place_replaces_only_what_succeeded_and_cleans_it(course):
    folder, _, before, _ = course
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after["01_bad.ipynb"] == before["01_bad.ipynb"] and after["02_dead.ipynb"] == before["02_dead.ipynb"]
    lesson = nbformat.read(folder / "00_good.ipynb", as_version=4)
    assert lesson.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "title": "kept",
    }
    assert [cell.execution_count for cell in lesson.cells[1:]] == [1, 2]
    assert not any(cell.metadata for cell in lesson.cells)
    nbformat.validate(lesson)


def test_one_lesson_and_the_committed_copy_untouched(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_lesson(folder / "00_a.ipynb", "1 / 0")
    write_lesson(folder / "01_b.ipynb", "print(2)", "")
    before = (folder / "01_b.ipynb").read_bytes()
    (result,) = run_notebooks(only=["01"], scale="quick")
    assert result.name == "01_b" and result.error is None and result.executed.is_file()
    assert (folder / "01_b.ipynb").read_bytes() == before
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("01_b ") and lines[0].endswith(" ok")
    assert lines[1].startswith("total: 1 lesson ") and lines[1].endswith("all ran to the end")


def test_a_cell_that_hangs_ends(tmp_path):
    write_lesson(tmp_path / "a.ipynb", "import time\ntime.sleep(60)")
    start = time.perf_counter()
    (result,) = run_notebooks(tmp_path, tmp_path / "out", scale="quick", cell_seconds=1)
    assert result.error == "a cell ran longer than 1 s"
    assert time.perf_counter() - start < 30


@pytest.mark.skipif(os.name == "nt", reason="signals work differently")
def test_ctrl_c_ends_the_whole_run(tmp_path):
    for name in ["0.ipynb", "1.ipynb"]:
        write_lesson(tmp_path / name, "open('started', 'w').close()\nimport time\ntime.sleep(60)")
    program = "from modernbert_edu.classroom.notebooks import run_notebooks; run_notebooks('.', 'out', 'quick')"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    run = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        errors = run.communicate(timeout=30)[1]
    finally:
        run.kill()
    assert run.returncode != 0 and "KeyboardInterrupt" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.ipynb"]  # what there was is kept


def test_bad_input_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="no lessons"):
        run_notebooks(tmp_path, tmp_path / "out")
    write_lesson(tmp_path / "00_a.ipynb", "raise SystemExit")
    with pytest.raises(InputError, match="no lesson '07': there are 00_a$"):
        run_notebooks(tmp_path, tmp_path / "out", only=["00", "07"])
    with pytest.raises(InputError, match="scale 'huge'"):
        run_notebooks(tmp_path, tmp_path / "out", scale="huge")
    with pytest.raises(InputError, match="output folder"):
        run_notebooks(tmp_path, tmp_path / "00_a.ipynb" / "out")
    with pytest.raises(InputError, match="overwrite the lessons"):
        run_notebooks(tmp_path, tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": 1, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}'])
def test_a_file_that_is_no_notebook_is_named(tmp_path, text):
    (tmp_path / "00_a.ipynb").write_text(text)
    with pytest.raises(InputError, match="00_a.ipynb is not a readable notebook") as error:
        run_notebooks(tmp_path, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_without_the_packages_that_run_notebooks(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nbclient", None)
    with pytest.raises(InputError, match=r"needs nbclient: .*modernbert-edu\[lessons\]"):
        run_notebooks(tmp_path, tmp_path / "out")
