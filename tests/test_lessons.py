"""The lessons' records: kept apart from the evidence unless a runner says otherwise, found again, drawn again."""

import json

import pytest
import torch

from modernbert_edu import lessons
from modernbert_edu.errors import InputError
from modernbert_edu.runtime import device_slug

CPU = torch.device("cpu")


@pytest.fixture
def figures_of(monkeypatch):
    """Lesson 04 with one figure that writes down what it was drawn from."""
    import matplotlib.figure

    import modernbert_edu.lessons.rope as module

    drawn = []

    def plot(records):
        drawn.append(records)
        return matplotlib.figure.Figure()

    monkeypatch.setattr(module, "FIGURES", {"04_rope_test": plot})
    return drawn


def test_records_are_kept_with_where_they_come_from_and_drawn(figures_of, tmp_path, monkeypatch):
    monkeypatch.delenv("MODERNBERT_EDU_FIGURES", raising=False)
    path = lessons.keep([dict(what="x", value=1)], "04_rope", "laptop", CPU, tmp_path, dtype="float32")
    assert path == tmp_path / "measurements" / device_slug(CPU) / "04_rope-laptop.jsonl"
    record = json.loads(path.read_text())
    assert record["what"] == "x" and record["lesson"] == "04_rope" and record["torch"] == torch.__version__
    assert figures_of == [[record]] and (tmp_path / "04_rope_test.png").exists()
    assert lessons.recorded("04_rope", tmp_path) == [record]
    assert lessons.recorded("04_rope", tmp_path, kind="gpu") == []


def test_the_runner_says_where_the_evidence_goes(figures_of, tmp_path, monkeypatch):
    monkeypatch.setenv("MODERNBERT_EDU_FIGURES", str(tmp_path / "figures"))
    path = lessons.keep([dict(what="x", value=1)], "04_rope", "laptop", CPU, tmp_path / "trial")
    assert tmp_path / "figures" in path.parents and not (tmp_path / "trial").exists()


def test_the_best_records_are_found_and_drawn(figures_of, tmp_path, monkeypatch):
    monkeypatch.delenv("MODERNBERT_EDU_FIGURES", raising=False)
    for scale, value in (("quick", 1), ("gpu", 3), ("laptop", 2)):
        lessons.keep([dict(what="x", value=value)], "04_rope", scale, CPU, tmp_path)
    assert lessons.recorded("04_rope", tmp_path)[0]["value"] == 3
    assert lessons.recorded("04_rope", tmp_path, kind="laptop")[0]["value"] == 2
    figures_of.clear()
    assert lessons.redraw(tmp_path) == [tmp_path / "04_rope_test.png"]
    assert figures_of[0][0]["value"] == 3


def test_an_unknown_lesson_is_named(tmp_path):
    with pytest.raises(InputError, match="no lesson '99_moon' has figures"):
        lessons.draw("99_moon", [], tmp_path)
    assert lessons.recorded("99_moon", tmp_path) == []
