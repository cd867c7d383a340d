"""The quoted GLUE numbers agree with each other: table 5's cells with table 1's column, names with the tasks here."""

from pathlib import Path

import pytest

from modernbert_edu.errors import InputError
from modernbert_edu.tasks.forms import GLUE
from modernbert_edu.tasks.glue_paper import FROM_MNLI, METRICS, NAMES, TABLE_1, TABLE_5, average, paper_table, quoted


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_tasks_average_to_table_1(size):
    rows = paper_table(size)
    assert [row["model"] for row in rows] == list(TABLE_1[size])
    apart = {row["model"]: abs(average(row) - TABLE_1[size][row["model"]]) for row in rows}
    if size == "base":  # the paper's own two tables do not agree here
        assert apart.pop("DeBERTaV3") == pytest.approx(0.1625)
    assert max(apart.values()) < 0.1


def test_a_wrong_cell_would_be_seen():
    row = {**paper_table("large")[2], "RTE": 91.7}  # 92.7 is right
    assert abs(average(row) - TABLE_1["large"]["DeBERTaV3"]) > 0.1


def test_the_tasks_are_ours_and_so_are_the_metrics():
    assert set(NAMES) == set(GLUE) - {"wnli"} and set(FROM_MNLI) <= set(NAMES)
    for task in NAMES:
        assert METRICS.get(task, "accuracy") == GLUE[task].metrics[0] or task in ("mrpc", "qqp")


def test_one_line_says_what_to_expect():
    line = quoted("cola")
    assert line.startswith("quoted, not measured here") and "matthews" in line and "\n" not in line
    assert "ModernBERT-base 0.651" in line and "-large 0.714" in line and "MNLI" not in line
    assert "spearman" in quoted("stsb") and "MNLI checkpoint" in quoted("rte") and "0.874" in quoted("rte")
    assert quoted("wnli") is None and quoted("text") is None
    with pytest.raises(InputError, match="no size 'huge'"):
        paper_table("huge")


def test_the_readme_quotes_the_same_and_its_loops_cover_the_tasks():
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    assert "| | " + " | ".join(NAMES.values()) + " | mean |" in readme
    for size, models in TABLE_5.items():
        for model, scores in models.items():
            assert f"| {model}-{size} | {' | '.join(map(str, scores))} | {TABLE_1[size][model]} |" in readme
    loops = [line for line in readme.splitlines() if line.startswith("for task in ")]
    first, second = (line.removeprefix("for task in ").split(";")[0].split() for line in loops)
    assert (
        set(first + second) == set(NAMES) and set(second) == set(FROM_MNLI) and "finetune build/glue/mnli" in loops[1]
    )
