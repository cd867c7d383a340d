"""`record`: measures what is missing, keeps what is there, and names the parts it has."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modernbert_edu import __main__ as command_line
from modernbert_edu import lessons
from modernbert_edu.classroom.notebooks import NotebookResult
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.measure import record
from modernbert_edu.measure.record import PARTS
from modernbert_edu.runtime import device_slug, read_jsonl, write_jsonl


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
        others = [r for r in (read_jsonl(path) if path.exists() else []) if r.get("lesson") != part.lesson]
        line = {"what": part.file, "torch": torch.__version__} | ({"lesson": part.lesson} if part.lesson else {})
        write_jsonl(path, [*others, line] if part.lesson else [line])
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
    assert verbs == ["bench", *longer, *["notebooks"] * lessons, "tour", "claims"] and lessons == 14
    assert measured[-1][-2:] == ["--seed", "5"]
    assert all("--device" not in call for call in measured if call[0] == "notebooks")  # a lesson chooses by itself
    assert "tour: recorded already" in capsys.readouterr().out
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == len(PARTS)
    assert run(tmp_path=tmp_path) == 0 and len(measured) == len(PARTS)
    again = ["bench", "headline-bert", "retrieval-bert-1", "ladder", "lesson-03"]
    assert run("--again", "--part", *again, tmp_path=tmp_path) == 0 and len(measured) == len(PARTS) + len(again)
    # What keeps finished runs apart would only find them again.
    assert [call[0] for call in measured[len(PARTS) :] if call[-1] == "--anew"] == ["headline", "search", "ablate"]


def test_what_another_torch_measured_is_measured_again(measured, monkeypatch, tmp_path, capsys):
    assert run("--part", "bench", "lesson-06", tmp_path=tmp_path) == 0
    assert run("--part", "bench", "lesson-06", tmp_path=tmp_path) == 0 and len(measured) == 2
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    assert run("--part", "bench", "lesson-06", tmp_path=tmp_path) == 0 and len(measured) == 4


def test_it_ends_with_what_is_missing(measured, tmp_path, capsys):
    laptop = ["record", "--scale", "laptop", "--device", "cpu", "--figures", str(tmp_path)]
    assert command_line.main([*laptop, "--part", *[name for name in PARTS if name not in ("rates", "lesson-01")]]) == 0
    said = capsys.readouterr().out.splitlines()
    options = f"--device cpu --scale laptop --figures {tmp_path}"
    command = f"python -m modernbert_edu record {options} --part lesson-01 rates"
    assert said[-1] == f"still missing on this device: {command}" and "tour: done after" in said[1]
    assert command_line.main(laptop) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing is missing on this device"


def test_a_part_that_fails_costs_the_others_nothing(measured, monkeypatch, tmp_path, capsys):
    working = command_line.main
    monkeypatch.setattr(command_line, "main", lambda argv: 2 if argv[0] == "bench" else working(argv))
    assert run("--part", "tour", "bench", "rates", tmp_path=tmp_path) == 2
    assert "bench: failed with status 2" in capsys.readouterr().out
    assert [call[:2] for call in measured] == [["tour", "--figures"], ["tour", "--sweep"]]


def test_a_part_that_breaks_costs_the_others_nothing(measured, monkeypatch, tmp_path, capsys):
    working = command_line.main

    def main(argv):
        if argv[0] == "bench":
            raise RuntimeError("out of memory")
        return 2 if argv[1] == "--sweep" else working(argv)

    monkeypatch.setattr(command_line, "main", main)
    assert run("--part", "bench", "tour", "rates", "claims", tmp_path=tmp_path) == 1  # the first, not the largest
    said = capsys.readouterr()
    assert "bench: failed with status 1" in said.out and "RuntimeError: out of memory" in said.err
    assert "Traceback" in said.err and [call[0] for call in measured] == ["tour", "claims"]


def test_a_part_that_paused_is_not_done(measured, monkeypatch, tmp_path, capsys):
    working, ready = command_line.main, []
    monkeypatch.setattr(command_line, "main", lambda argv: working(argv) if argv[0] == "record" or ready else 0)
    laptop = [
        "record",
        "--scale",
        "laptop",
        "--device",
        "cpu",
        "--figures",
        str(tmp_path),
        "--part",
        "retrieval-bert-0",
    ]
    for again in ([], ["--again"]):  # the second time there are records, of before
        ready.clear()
        assert command_line.main([*laptop, *again]) == 0
        said = capsys.readouterr().out
        assert "retrieval-bert-0: paused after" in said and "the same command goes on" in said and "done" not in said
        ready.append(True)
        assert command_line.main([*laptop, *again]) == 0
        assert "retrieval-bert-0: done after" in capsys.readouterr().out


def test_ctrl_c_ends_it(measured, monkeypatch, tmp_path):
    working = command_line.main
    monkeypatch.setattr(command_line, "main", lambda argv: 130 if argv[0] == "bench" else working(argv))
    assert run("--part", "tour", "bench", "rates", tmp_path=tmp_path) == 130
    assert [call[:2] for call in measured] == [["tour", "--figures"]]


def test_a_lesson_is_looked_for_on_the_device_that_lessons_choose(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "resolve_device", lambda: torch.device("cpu"))
    other = torch.device("mps")
    assert PARTS["bench"].path(tmp_path, other, "laptop").parent.name == device_slug(other)
    assert PARTS["lesson-04"].path(tmp_path, other, "laptop").parent.name == device_slug(torch.device("cpu"))


def test_rows_that_do_not_name_their_torch_do_not_count(tmp_path):
    cpu = torch.device("cpu")
    path = PARTS["bench"].path(tmp_path, cpu, "laptop")
    write_jsonl(path, [{"what": "x"}])
    assert PARTS["bench"].records(tmp_path, cpu, "laptop") == []
    write_jsonl(path, [{"what": "x", "torch": torch.__version__}])
    assert len(PARTS["bench"].records(tmp_path, cpu, "laptop")) == 1


def test_every_lesson_is_a_part():
    lessons = sorted(path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
    assert [part.lesson for part in PARTS.values() if part.lesson] == lessons


def test_minutes_are_kept_beside_those_of_other_lessons(tmp_path):
    def took(name, seconds, error=None):
        return NotebookResult(name, tmp_path, seconds, 3, 1, error)

    lessons.keep_minutes([took("04_rope", 60.0), took("05_geglu", 90.0)], "laptop", tmp_path)
    path = lessons.keep_minutes([took("05_geglu", 80.0), took("06_a", 1.0, "a cell failed")], "laptop", tmp_path)
    assert [(r["lesson"], r["value"], r["unit"]) for r in read_jsonl(path)] == [
        ("04_rope", 60, "s"),
        ("05_geglu", 80, "s"),
    ]
    assert path.name == PARTS["lesson-04"].file.format(scale="laptop") and read_jsonl(path)[0]["torch"]


def test_an_unknown_part_is_named(capsys, tmp_path):
    assert run("--part", "moon", tmp_path=tmp_path) == 2
    said = capsys.readouterr().err
    assert (
        "there is no part 'moon' to record; there are: tour, bench, headline-bert, headline-modernbert, retrieval"
        in said
    )


def test_the_files_are_those_that_the_commands_leave(monkeypatch, tmp_path):
    """The names here and those in the modules that write the files are one agreement."""
    from modernbert_edu import tour
    from modernbert_edu.measure import ablation_plots, bench_plots, headline, inference_memory, retrieval_curve

    device = torch.device("cpu")
    for module in (headline, retrieval_curve):
        monkeypatch.setattr(module, "redraw", lambda figures: [])
    for model in headline.MODELS:
        headline.keep_and_draw([dict(model=model, what="x")], "laptop", device, tmp_path)
    runs = [dict(model=model, seed=seed) for model in retrieval_curve.MODELS for seed in (0, 1)]
    retrieval_curve.keep_and_draw(runs, "laptop", device, tmp_path)
    monkeypatch.setattr(ablation_plots, "plot_ablation", lambda *given: None)
    monkeypatch.setattr(ablation_plots.plots, "save", lambda figure, path: path)
    ablation_plots.keep_and_draw([dict(device_slug=device_slug(device))], "BERT", "ladder", "laptop", tmp_path)
    trained = dict(what="held_out_loss", model="BERT", value=1.0)
    monkeypatch.setattr(tour, "RATES", (1e-3, 2e-3))
    monkeypatch.setattr(tour, "configurations", lambda *given: {"BERT": None})
    monkeypatch.setattr(tour, "build_models", lambda *given: None)
    monkeypatch.setattr(tour, "train_both", lambda *given: [trained])
    text = SimpleNamespace(tokenizer=None, corpus=SimpleNamespace(name="text", fingerprint="0"))
    rates = PARTS["rates"].path(tmp_path, device, "laptop")
    said = []

    def stop_at_the_second(words):
        said.append(words)
        if len(said) == 2:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):  # half a sweep is not kept, or it would count as recorded
        tour.sweep_rates(text, SCALES["quick"].tour, "quick", device, tmp_path, say=stop_at_the_second)
    assert not rates.exists()
    tour.sweep_rates(text, SCALES["quick"].tour, "quick", device, tmp_path)
    monkeypatch.setattr(inference_memory, "measure_inference_memory", lambda device, seed: [dict(what="x")])
    claims = ["claims", "--measure", "--figures", str(tmp_path), "--device", "cpu"]
    assert command_line.main(claims) == 0
    facts = dict(device_slug=device_slug(device), scale="laptop", size="base", what="x")
    monkeypatch.setattr(tour, "draw", lambda records, figures: [])
    monkeypatch.setattr(bench_plots, "plot_bench", lambda records: None)
    monkeypatch.setattr(bench_plots, "save", lambda figure, path: path)
    tour.keep_and_draw([facts], tmp_path)
    bench_plots.keep_and_draw([facts], tmp_path)
    for name in [name for name in PARTS if not name.startswith("lesson-")]:
        assert PARTS[name].path(tmp_path, device, "laptop").exists(), name
