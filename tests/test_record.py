"""`record`: measures what is missing, keeps what is there, and names the parts it has."""

import json

import pytest
import torch

from modernbert_edu import __main__ as command_line
from modernbert_edu.measure.record import PARTS
from modernbert_edu.runtime import device_slug


@pytest.fixture()
def measured(monkeypatch):
    """The commands that were called; each leaves the file that its part says it leaves."""
    calls, real = [], command_line.main

    def main(argv=None):
        if argv[0] == "record":
            return real(argv)
        calls.append(argv)
        figures, scale = argv[argv.index("--figures") + 1], argv[argv.index("--scale") + 1]
        part = next(p for p in PARTS.values() if tuple(argv[: argv.index("--figures")]) == p.command)
        path = part.path(command_line.Path(figures), torch.device("cpu"), scale)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"what": part.file}) + "\n")
        return 0

    monkeypatch.setattr(command_line, "main", main)
    return calls


def run(*words, tmp_path):
    return command_line.main(
        ["record", "--scale", "quick", "--device", "cpu", "--figures", str(tmp_path), *map(str, words)]
    )


def test_what_is_missing_is_measured_once(measured, tmp_path, capsys):
    assert run("--part", "tour", tmp_path=tmp_path) == 0
    assert [call[0] for call in measured] == ["tour"]
    assert run("--json", tmp_path / "all.jsonl", "--seed", 5, tmp_path=tmp_path) == 0
    verbs = [call[0] for call in measured[1:]]
    lessons = len([name for name in PARTS if name.startswith("lesson-")])
    longer = ["headline", "headline", *["search"] * 4, "ablate"]
    assert verbs == ["bench", *longer, *["notebooks"] * lessons, "tour", "claims"] and lessons == 11
    assert measured[-1][-2:] == ["--seed", "5"]
    assert all("--device" not in call for call in measured if call[0] == "notebooks")  # a lesson chooses by itself
    assert "tour: recorded already" in capsys.readouterr().out
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == len(PARTS)
    assert run(tmp_path=tmp_path) == 0 and len(measured) == len(PARTS)
    assert run("--again", "--part", "bench", tmp_path=tmp_path) == 0 and len(measured) == len(PARTS) + 1


def test_a_part_that_fails_ends_the_run_with_its_status(monkeypatch, tmp_path):
    real = command_line.main
    monkeypatch.setattr(command_line, "main", lambda argv: real(argv) if argv[0] == "record" else 2)
    assert run(tmp_path=tmp_path) == 2


def test_an_unknown_part_is_named(capsys, tmp_path):
    assert run("--part", "moon", tmp_path=tmp_path) == 2
    said = capsys.readouterr().err
    assert (
        "there is no part 'moon' to record; there are: tour, bench, headline-bert, headline-modernbert, retrieval"
        in said
    )


def test_the_files_are_those_that_the_commands_leave(monkeypatch, tmp_path):
    """The names here and those in tour.py and bench_plots.py are one agreement."""
    from modernbert_edu import tour
    from modernbert_edu.measure import bench_plots

    device = torch.device("cpu")
    facts = dict(device_slug=device_slug(device), scale="laptop", size="base", what="x")
    monkeypatch.setattr(tour, "draw", lambda records, figures: [])
    monkeypatch.setattr(bench_plots, "plot_bench", lambda records: None)
    monkeypatch.setattr(bench_plots, "save", lambda figure, path: path)
    tour.keep_and_draw([facts], tmp_path)
    bench_plots.keep_and_draw([facts], tmp_path)
    for name in ("tour", "bench"):
        assert PARTS[name].path(tmp_path, device, "laptop").exists(), name
