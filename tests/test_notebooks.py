"""The lessons as files: each notebook in notebooks/ is checked as it would be committed, without running it.

That the cells run, and that facts come out as stored, is nbval's part (`pytest notebooks`). A new lesson is covered by
being there; its planted wrong answers go to planted/.
"""

import ast
import builtins
import math
import re
import statistics
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F
from planted import PLANTED

from modernbert_edu.classroom import checks

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))

CELLS = (30, 48)
MEDIAN_LINES, MOST_LINES = 6, 30
EXERCISES = 3
HEADINGS = [
    "You will build",
    "Predict before you run",
    "Conventions",
    "Exercise 1",
    "Exercise 2",
    "Exercise 3",
    "Where this differs from the paper",
    "Summary",
    "Next",
]

# Absolute paths of the machine that ran a lesson. Built from parts, so that no checkout's own path stands here.
UNIX_ROOTS = ["root", "home", "Users", "tmp", "work", "opt", "mnt", "private", "var/folders", "usr", "content"]
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:" + "|".join(UNIX_ROOTS) + r")/[\w.]" + r"|\b[A-Za-z]:\\+\w" + r"|[/\\]site-packages[/\\]"
)
# What a scale decides must not be written into a lesson.
LITERAL_SIZE = re.compile(
    r"\b(steps|batch_size|warmup_steps|learning_rate|sequence_length|seeds?|repeats|timing_repeats|max_characters"
    r"|vocab_size|epochs|eval_every|held_out_sequences|max_steps|mask_rate|num_steps)\s*=\s*[\d\[(]"
)
CHECK_CALL = re.compile(r"_ = checks\.(check_\w+)\((\w+)\)")
FENCED = re.compile(r"```python\n(.*?)```", re.DOTALL)
FOLDED = re.compile(r"<details>\s*<summary>(.*?)</summary>(.*?)</details>", re.DOTALL)

each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


def cells_of(path, kind=None):
    lesson = nbformat.read(path, as_version=4)
    return [cell for cell in lesson.cells if kind is None or cell.cell_type == kind]


def code_lines(source):
    return sum(bool(line.strip()) for line in source.splitlines())


def output_texts(cell):
    """Every text that a reader sees under a cell."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (content for kind, content in output.get("data", {}).items() if kind.startswith("text/"))


def is_compared(cell):
    tagged = "nbval-check-output" in cell.metadata.get("tags", [])
    return tagged or any(line.strip() == "# NBVAL_CHECK_OUTPUT" for line in cell.source.splitlines())


def exercises_of(path):
    """[(check's name, function's name, stub's source, solution's source)]; asserts the form of each on the way."""
    cells, found = cells_of(path), []
    for place, cell in enumerate(cells):
        if "exercise" not in cell.metadata.get("tags", []):
            continue
        last = cell.source.strip().splitlines()[-1]
        call = CHECK_CALL.fullmatch(last.strip())
        assert call, f"{path.stem}: an exercise must end with _ = checks.check_NAME(function), not {last!r}"
        folded = dict(FOLDED.findall(cells[place + 1].source))
        assert "Solution" in folded, f"{path.stem}: no folded solution follows the exercise {call[1]}"
        code = FENCED.search(folded["Solution"])
        assert code, f"{path.stem}: the solution of {call[1]} is not a python block"
        found.append((call[1], call[2], cell.source, code[1]))
    return found


def lesson_exercises():
    return [(path, *exercise) for path in LESSONS for exercise in exercises_of(path)]


def run_answer(source, name):
    """The function `name` that a cell defines, with what every lesson's set-up imports at hand."""
    namespace = {"torch": torch, "math": math, "F": F, "nn": torch.nn}
    exec(compile(source, "<answer>", "exec"), namespace)
    return namespace[name]


def names_defined(source):
    """What a cell imports, assigns or defines at its top level, and in the targets of its loops."""
    tree, names = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


# ------------------------------------------------------------------------------------------------ the file


def test_there_are_lessons():
    assert LESSONS, f"no lesson in {FOLDER.name}/"
    assert [path.stem[:2] for path in LESSONS] == sorted({path.stem[:2] for path in LESSONS})


@each_lesson
def test_it_is_a_valid_notebook_without_machine_state(path):
    lesson = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert lesson.nbformat == 4
    nbformat.validate(lesson)
    assert lesson.metadata.kernelspec.name == "python3"
    assert set(lesson.metadata) <= {"kernelspec", "language_info"}, "widget state, or another tool's leavings"
    for cell in lesson.cells:
        assert set(cell.metadata) <= {"tags"}
        for output in cell.get("outputs", []):
            assert not any("widget" in kind for kind in output.get("data", {})), "a widget (a progress bar?) was saved"


@each_lesson
def test_it_was_run_from_top_to_bottom_without_errors(path):
    code = cells_of(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell.outputs:
            assert output.output_type != "error", f"cell {cell.execution_count}: {output.get('ename')}"
            assert output.get("name") != "stderr", f"cell {cell.execution_count} wrote to stderr: {output.text[:80]}"


@each_lesson
def test_it_names_no_path_of_the_machine_it_ran_on(path):
    for cell in cells_of(path):
        texts = [cell.source, *(output_texts(cell) if cell.cell_type == "code" else [])]
        for text in texts:
            assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)[0]


@pytest.mark.parametrize("root", [*UNIX_ROOTS, "C:"])
def test_a_machine_path_is_recognised(root):
    path = "C:\\" + "Users" if root == "C:" else f"/{root}/someone"
    assert MACHINE_PATH.search(f"saved to {path}/x.png")
    home = "/" + "home/"  # in two parts, so that this file holds no such path either
    assert not MACHINE_PATH.search(f"see figures{home}a.png and https://example.org{home}a")


@each_lesson
def test_its_links_into_the_repository_lead_somewhere(path):
    prose = "\n".join(cell.source for cell in cells_of(path, "markdown"))
    for target in re.findall(r"\]\(([^)#]+)", prose):
        assert "://" in target or (FOLDER / target).exists(), f"{target!r} is not there"


# ------------------------------------------------------------------------------------------------ the template


@each_lesson
def test_its_cells_are_few_and_small(path):
    lines = [code_lines(cell.source) for cell in cells_of(path, "code")]
    assert CELLS[0] <= len(cells_of(path)) <= CELLS[1]
    assert statistics.median(lines) <= MEDIAN_LINES
    assert max(lines) <= MOST_LINES


@each_lesson
def test_it_has_the_sections_of_the_template(path):
    prose = "\n".join(cell.source for cell in cells_of(path, "markdown"))
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", prose), re.MULTILINE)
    assert re.match(r"# \S", cells_of(path)[0].source), "a lesson begins with its title"
    places = []
    for wanted in HEADINGS:
        assert any(heading.startswith(wanted) for heading in headings), f"no heading {wanted!r}"
        places.append(next(i for i, heading in enumerate(headings) if heading.startswith(wanted)))
    assert places == sorted(places), f"the sections stand in another order: {headings}"
    prediction = prose[prose.index("Predict before you run") :]
    assert FOLDED.search(prediction.split("\n## ")[0]), "the answer to the prediction is not folded"


@each_lesson
def test_it_holds_a_picture(path):
    kinds = [kind for cell in cells_of(path, "code") for output in cell.outputs for kind in output.get("data", {})]
    assert any(kind.startswith("image/") for kind in kinds)


@each_lesson
def test_it_opens_with_its_environment(path):
    first = cells_of(path, "code")[0]
    assert "get_scale(" in first.source and "environment_line(" in first.source
    assert re.search(r"Python \S+ \| torch \S+ \| \S+ \(.+\) \| \w+ \| threads \d+ \| seed \d+", first.outputs[0].text)


@each_lesson
def test_its_sizes_come_from_the_scale(path):
    for cell in cells_of(path, "code"):
        found = LITERAL_SIZE.search(cell.source)
        assert not found, f"cell {cell.execution_count} holds {found[0]!r}; read it from the scale"


@pytest.mark.parametrize("literal", ["steps=500", "batch_size = 8", "seeds=(0, 1)", "repeats=[3]", "mask_rate=0.3"])
def test_a_literal_size_is_recognised(literal):
    assert LITERAL_SIZE.search(f"train(model, {literal})")
    assert not LITERAL_SIZE.search(
        "train(model, steps=sizes.steps, batch_size=sizes.batch_size, lengths=sizes.lengths)"
    )


@each_lesson
def test_what_is_compared_has_outputs(path):
    compared = [cell for cell in cells_of(path, "code") if is_compared(cell)]
    assert compared, "no cell is compared: mark those that print facts NBVAL_CHECK_OUTPUT"
    for cell in compared:
        assert cell.outputs, f"cell {cell.execution_count} is compared and has no output"


# ------------------------------------------------------------------------------------------------ exercises


@each_lesson
def test_it_has_three_exercises_with_level_time_and_two_hints(path):
    assert len(exercises_of(path)) == EXERCISES
    prose = "\n".join(cell.source for cell in cells_of(path, "markdown"))
    tasks = re.split(r"^### Exercise \d+: ", prose, flags=re.MULTILINE)[1:]
    assert len(tasks) == EXERCISES
    for task in tasks:
        level = task.split("\n", 2)[1]
        assert re.match(r"(?=.{5} )●+○* · \d+ minutes", level), f"level and minutes: {level!r}"
        assert [summary for summary, _ in FOLDED.findall(task)][:3] == ["Hint 1", "Hint 2", "Solution"]


EXERCISE_LIST = lesson_exercises()
EXERCISE_IDS = [f"{path.stem}-{check}" for path, check, *_ in EXERCISE_LIST]


@pytest.mark.parametrize(("path", "check", "name", "stub", "solution"), EXERCISE_LIST, ids=EXERCISE_IDS)
def test_an_exercise_is_open_and_its_solution_right(path, check, name, stub, solution, capsys):
    unsolved = stub.replace(f"_ = checks.{check}({name})", "")
    assert "raise NotImplementedError" in unsolved
    assert getattr(checks, check)(run_answer(unsolved, name)) is False
    assert capsys.readouterr().out == f"to do: fill in {name}, then run this cell again\n"
    assert getattr(checks, check)(run_answer(solution, name)) is True
    assert capsys.readouterr().out.startswith(f"passed: {name} ")


PLANTED_LIST = [(check, source, words) for check, answers in PLANTED.items() for source, words in answers]
PLANTED_IDS = [f"{check}-{words.replace(' ', '-')}" for check, _, words in PLANTED_LIST]


@pytest.mark.parametrize(("check", "source", "words"), PLANTED_LIST, ids=PLANTED_IDS)
def test_a_wrong_answer_is_told_what_is_wrong(check, source, words, capsys):
    name = re.match(r"def (\w+)", source)[1]
    assert getattr(checks, check)(run_answer(source, name)) is False
    line = capsys.readouterr().out
    assert line.startswith("not yet: ") and words in line and line.count("\n") == 1


def test_every_exercise_has_planted_wrong_answers():
    asked = {check: name for _, check, name, *_ in EXERCISE_LIST}
    for check, name in asked.items():
        planted = [source for source, _ in PLANTED.get(check, [])]
        assert len(set(planted)) >= 2, f"plant two wrong answers for {check} in planted/"
        assert all(source.startswith(f"def {name}(") for source in planted)
    assert set(PLANTED) == set(asked), "planted answers to an exercise that no lesson asks"


def test_every_check_is_asked_somewhere():
    there = {name for name in vars(checks) if name.startswith("check_")}
    assert there == {check for _, check, *_ in EXERCISE_LIST}


@pytest.mark.parametrize(
    ("path", "check", "function", "stub", "solution"), lesson_exercises(), ids=lambda x: str(x)[-30:]
)
def test_a_solution_uses_only_names_that_its_lesson_has(path, check, function, stub, solution):
    """Typed into the lesson, it must run: `run_answer` above lends it more than the lesson may have imported."""
    known = names_defined(solution) | set(dir(builtins))
    for cell in cells_of(path, "code"):
        known |= names_defined(cell.source)
        if "exercise" in cell.metadata.get("tags", []) and cell.source == stub:
            break
    used = {node.id for node in ast.walk(ast.parse(solution)) if isinstance(node, ast.Name)}
    assert used <= known, f"{path.stem}, {function}: {', '.join(sorted(used - known))} is not imported there"
