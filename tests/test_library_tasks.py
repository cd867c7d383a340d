"""Tasks made of a library: nothing of a held-out file or package is in training, and no text gives its answer away."""

import sys
from collections import Counter

import pytest

from modernbert_edu.data.corpus import load_corpus
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.errors import InputError
from modernbert_edu.tasks import library_tasks as tasks
from modernbert_edu.tasks.library import library_files

FUNCTION = '''
def {name}(value):
    """Turn the {name} of a value into the {other} that follows it."""
    {name} = value + {number}
    return {name}

'''


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three packages of 12 files and five of one, as `library_files` gives them."""
    root, found = tmp_path_factory.mktemp("library"), []
    for package in ("alpha", "beta", "gamma"):
        for i in range(12):
            body = "".join(
                FUNCTION.format(name=f"{package[:2]}{i}_{j}", other=f"{package[:2]}{j}", number=j) for j in range(6)
            )
            head = f"# Copyright {package}\nimport os\nfrom sys import path\nx = 'ALPHA beta Gamma'\n"
            path = root / package / f"file{i}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(head + body)
            found.append((package, path))
    for i in range(5):
        path = root / f"single{i}.py"
        path.write_text("".join(FUNCTION.format(name=f"s{i}_{j}", other=f"o{j}", number=j) for j in range(4)))
        found.append((f"single{i}", path))
    return found


@pytest.fixture(scope="module")
def tokenizer(files):
    facts = [tasks._sentence(name) for name in tasks.NAMES] * 9  # so that the fact has few tokens, as in a real one
    return train_bpe([*(path.read_text() for _, path in files), *facts], 384)


# ---- packages --------------------------------------------------------------------------------------------------------


def test_passages_of_a_package_come_from_other_files_in_each_part(files):
    task = tasks.package_task(files, packages=3, lines=3, counts=(20, 5, 5))
    assert not task.train_files & task.held_files and len(task.train_files | task.held_files) == 36
    assert set(task.train.answers) == {"alpha", "beta", "gamma"}
    for part, count in ((task.train, 20), (task.dev, 5), (task.test, 5)):
        assert Counter(part.answers) == dict.fromkeys(("alpha", "beta", "gamma"), count)
    text_of = {tasks.source_of(path): path.read_text() for _, path in files}
    for part, own in ((task.train, task.train_files), (task.test, task.held_files)):
        for (text,) in part.texts:
            first = text.split("\n")[0]
            assert any(first in text_of[source] for source in own)


def test_the_parts_share_no_passage(files):
    task = tasks.package_task(files, packages=2, lines=2, counts=(50, 20, 20))
    parts = [set(part.texts) for part in (task.train, task.dev, task.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]


def test_copied_text_stays_in_one_part(files, tmp_path):
    copies = [(package, tmp_path / f"{package}{i}.py") for package in ("one", "two") for i in range(10)]
    for _, path in copies:
        path.write_text("a = 1\nb = 2\n")
    task = tasks.package_task(copies, packages=2, lines=2, counts=(5, 5, 5))
    assert [len(part) for part in (task.train, task.dev, task.test)] == [1, 0, 0]


def test_a_passage_holds_no_line_that_gives_the_package_away(files):
    for package, path in files[:24:12]:
        text = "\n".join(tasks.passages_of(path, package, 2))
        assert text and package not in text.lower()
        assert not any(word in text for word in ("import", "Copyright", "\n\n"))


def test_a_file_is_cut_into_passages_of_so_many_lines(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("import os\na = 1\n\nb = 2\nkey = 3\nc = 3  # licensed\nd = 4\ne = 5\n")
    assert tasks.passages_of(path, "key", 2) == ["a = 1\nb = 2", "d = 4\ne = 5"]


def test_the_packages_with_the_most_files_are_classes_but_not_generated_tables(files):
    more = files + [("encodings", path) for _, path in files]
    assert set(tasks.package_task(more, 2, 2, (5, 2, 2)).train.answers) == {"alpha", "beta"}
    with pytest.raises(InputError, match="fewer than two packages have 13 files"):
        tasks.package_task(files, 3, 2, (5, 2, 2), min_files=13)


# ---- docstrings ------------------------------------------------------------------------------------------------------


def test_packages_are_held_out_whole_and_answers_are_balanced(files):
    task = tasks.docstring_task(files, per_package=None, counts=(30, 5, 5))
    assert not task.train_files & task.held_files and task.held_files
    for part in (task.train, task.dev, task.test):
        assert Counter(part.answers)["yes"] == Counter(part.answers)["no"] > 0
    functions = [{function for _, function in part.texts} for part in (task.train, task.dev, task.test)]
    assert not functions[0] & functions[1] and not functions[0] & functions[2] and not functions[1] & functions[2]


def test_every_function_comes_with_its_own_docstring_and_with_a_neighbours(files):
    task = tasks.docstring_task(files, per_package=None, counts=(500, 500, 500))
    packages = {name: package for package, path in files for name in _names(path)}
    for part in (task.train, task.dev, task.test):
        for text, other, answers in zip(part.texts[::2], part.texts[1::2], zip(*[iter(part.answers)] * 2, strict=True),
                                        strict=True):  # fmt: skip
            (own, function), (wrong, same) = text, other
            assert answers == ("yes", "no") and function == same and own != wrong
            name = function.split("(")[0].removeprefix("def ")
            assert f"the {name} of" in own and '"""' not in function
            assert packages[wrong.split()[2]] == packages[name]
        # So no text by itself tells the answer: each stands as often with "yes" as with "no".
        for column in (0, 1):
            counts = Counter((text[column], answer) for text, answer in zip(part.texts, part.answers, strict=True))
            assert all(counts[text, "yes"] == counts[text, "no"] == 1 for text, _ in counts)


def _names(path):
    return [
        line.split("(")[0].removeprefix("def ") for line in path.read_text().splitlines() if line.startswith("def ")
    ]


def test_a_limit_takes_so_many_functions(files):
    task = tasks.docstring_task(files, per_package=3, counts=(4, 2, 1))
    assert [len(part) for part in (task.train, task.dev, task.test)] == [8, 4, 2]


# ---- facts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def facts(files, tokenizer):
    paths = [path for _, path in files]
    return tasks.fact_task(paths[:24], paths[24:], tokenizer, (128, 256), (40, 8, 24))


def test_a_text_holds_one_fact_and_its_answer_is_the_name_in_it(facts):
    for part in (facts.train, facts.dev, facts.test):
        for (text,), answer in zip(part.texts, part.answers, strict=True):
            (line,) = [line for line in text.splitlines() if "maintainer" in line]
            assert [name for name in tasks.NAMES if name in line] == [answer]
        assert set(Counter(part.answers).values()) == {len(part) // len(tasks.NAMES)}


def test_the_place_of_a_fact_is_counted_in_tokens(facts, tokenizer):
    for (text,), place in zip(facts.test.texts, facts.places, strict=True):
        head = text[: text.index("# The maintainer")]
        assert len(tokenizer.encode(head)) - 1 == place  # [CLS] counts, [SEP] is not there yet
    wanted = [(i + 0.5) / 24 * (facts.places[-1] + facts.places[0]) for i in range(24)]  # evenly from front to end
    assert all(abs(place - even) < 30 for place, even in zip(facts.places, wanted, strict=True))


def test_test_texts_have_the_full_length_and_fit(facts, tokenizer):
    lengths = [len(tokenizer.encode(text)) for (text,) in facts.test.texts]
    assert max(lengths) <= 256 and min(lengths) >= 256 - 60  # a file's lines are taken whole
    train = [len(tokenizer.encode(text)) for (text,) in facts.train.texts]
    assert max(train) <= 256 and min(train) < 160


def test_facts_are_planted_into_files_of_their_own_side(facts, files):
    sides = [[path.read_text() for _, path in part] for part in (files[:24], files[24:])]
    for part, own in ((facts.train, sides[0]), (facts.dev, sides[1]), (facts.test, sides[1])):
        for (text,) in part.texts:
            piece = "".join(line for line in text.splitlines(keepends=True) if "maintainer" not in line)
            assert any(piece in whole for whole in own)


def test_only_so_many_files_are_planted_in(files, tokenizer):
    paths = [path for _, path in files]
    few = tasks.fact_task(paths[:24], paths[24:], tokenizer, (128, 256), (12, 4, 4), max_files=1)
    texts = [path.read_text() for path in paths[:24]]
    pieces = ["".join(line for line in text.splitlines(keepends=True) if "maintainer" not in line)
              for (text,) in few.train.texts]  # fmt: skip
    assert any(all(piece in whole for piece in pieces) for whole in texts)


def test_too_short_files_are_refused(files, tokenizer):
    with pytest.raises(InputError, match="no file has 100,000 tokens"):
        tasks.fact_task([files[0][1]], [files[1][1]], tokenizer, (128, 100_000), (4, 4, 4))


def test_a_text_without_room_beside_the_fact_is_refused(files, tokenizer):
    with pytest.raises(InputError, match="32 tokens have no room for a fact"):
        tasks.fact_task([files[0][1]], [files[1][1]], tokenizer, (32, 256), (4, 4, 4))


# ---- what pretraining may see ----------------------------------------------------------------------------------------


def test_pretraining_sees_no_held_out_file_of_the_real_library():
    files = library_files()
    package = tasks.package_task(files, packages=3, lines=6, counts=(10, 4, 4))
    docstring = tasks.docstring_task(files, per_package=3, counts=(20, 5, 5))
    held = package.held_files | docstring.held_files
    corpus = load_corpus("python", max_characters=1_500_000)
    divided = tasks.outside(corpus, held)
    seen = set(divided.train["source"])
    assert seen and not seen & held and set(divided.held_out["source"]) <= held
    assert len(divided.train) + len(divided.held_out) == len(corpus.train) + len(corpus.held_out)
    assert divided.fingerprint == corpus.fingerprint
    assert any(source in seen for source in package.train_files)  # sources are named alike in both


def test_a_corpus_of_which_nothing_is_held_out_is_refused(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("some text that is long enough to count as a document " * 5)
    with pytest.raises(InputError, match="take the corpus 'python'"):
        tasks.outside(load_corpus(tmp_path), {"nothing.py"})


def test_files_elsewhere_keep_their_whole_path(tmp_path):
    assert tasks.source_of(tmp_path / "a.py") == (tmp_path / "a.py").as_posix()
    name = sys.modules["json"].__file__
    assert tasks.source_of(type(tmp_path)(name)) == "json/__init__.py"
