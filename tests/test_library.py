"""Tasks made from the Python that runs this: what is taken, what is left out, and that nothing leaks."""

import ast

import pytest

from modernbert_edu import InputError
from modernbert_edu.measure.retrieval import RetrievalTask, library_data, unseen
from modernbert_edu.tasks.library import (
    Pair,
    first_paragraph,
    functions,
    installed_files,
    library_files,
    modules,
    passages,
    split_by_package,
    topics,
)

MODULE = '''"""Say what colors are for and how they mix.

More about it.
"""

import os


def mixed(one, other):
    """Return the color that two colors
    give together.

    Not part of the question.
    """
    def inner():
        """Hidden words of an inner function."""
        return one
    return inner() + other


class Palette:
    """A palette."""

    async def names(self):
        """List every name that this palette holds."""
        return sorted(self.colors)

    def short(self):
        """Too short."""
        return 1

    def undocumented(self):
        return 2

    def nothing(self):
        """A docstring alone is no function to find."""
'''


@pytest.fixture()
def package(tmp_path):
    (tmp_path / "paint").mkdir()
    (tmp_path / "paint" / "color.py").write_text(MODULE)
    (tmp_path / "paint" / "broken.py").write_text("def (")
    (tmp_path / "paint" / "latin.py").write_bytes(b"# \xe9\n")
    return [("paint", path) for path in sorted((tmp_path / "paint").iterdir())]


def test_a_function_is_found_by_its_first_paragraph_and_holds_no_docstring(package):
    pairs = {pair.source.rsplit(":", 1)[1]: pair for pair in functions(package)}
    assert set(pairs) == {"mixed", "names"}
    assert pairs["mixed"].query == "Return the color that two colors give together."
    assert (
        pairs["mixed"].document
        == "def mixed(one, other):\n    def inner():\n        return one\n    return inner() + other"
    )
    assert pairs["names"].document == "async def names(self):\n    return sorted(self.colors)"
    assert pairs["names"].package == "paint" and pairs["names"].source == "paint/color.py:names"


def test_a_module_is_found_by_what_it_says_of_itself(package):
    (pair,) = modules(package)
    assert pair.query == "Say what colors are for and how they mix."
    assert '"""' not in pair.document and "def undocumented" in pair.document
    assert modules(package, min_characters=10_000) == []


def test_at_most_so_many_of_a_package_and_copies_once(package):
    assert len(functions(package, per_package=1)) == 1
    assert len(functions([*package, *[("copy", path) for _, path in package]])) == 2


def test_first_sentence_and_what_follows():
    pair = Pair("Open a file for reading. The file is closed at the end, also when reading it fails.", "code", "p", "s")
    (made,) = passages([pair, Pair("One sentence of five words.", "code", "p", "s")])
    assert made.query == "Open a file for reading."
    assert made.document == "The file is closed at the end, also when reading it fails."
    assert first_paragraph("  a\n  b\n\n  c") == "a b"


@pytest.fixture(scope="module")
def library():
    return functions(library_files(), per_package=5)


def test_the_library_gives_real_functions(library):
    assert len(library) > 300 and len({pair.package for pair in library}) > 80
    for pair in library[::20]:
        (node,) = ast.parse(
            pair.document.split("\n    @", 1)[0] if pair.document.startswith("@") else pair.document
        ).body
        assert ast.get_docstring(node) is None
        assert pair.query not in pair.document
    assert len({pair.query for pair in library}) == len({pair.document for pair in library}) == len(library)


def test_the_same_seed_draws_the_same_functions(library):
    assert functions(library_files(), per_package=5) == library
    assert functions(library_files(), per_package=5, seed=1) != library


def test_no_tests_and_not_this_package():
    files = library_files()
    assert not any(path.name.startswith("test_") or "test" in path.parts for _, path in files)
    assert "modernbert_edu" not in {package for package, _ in installed_files()}
    assert not any("site-packages" in path.parts for _, path in files)


def test_the_language_reference_has_sections():
    found = topics()
    if not found:
        pytest.skip("this Python comes without the language reference")
    assert len(found) > 50
    for pair in found:
        assert "***" not in pair.query and len(pair.document.split()) >= 20
        assert pair.document.split("\n")[0] != pair.query


def test_a_split_by_package_shares_no_package(library):
    train, held = split_by_package(library, 0.2, seed=3)
    assert {p.package for p in train}.isdisjoint(p.package for p in held)
    assert sorted(map(str, [*train, *held])) == sorted(map(str, library))
    assert 0.1 * len(library) < len(held) <= 0.2 * len(library)
    assert split_by_package(library, 0.2, seed=3) == (train, held) != split_by_package(library, 0.2, seed=4)


def test_what_cannot_be_split_says_so():
    with pytest.raises(InputError, match="one package"):
        split_by_package([Pair("a b c d", "x", "p", "s")] * 3)
    with pytest.raises(InputError, match="between 0 and 1"):
        split_by_package([], 1.5)


def test_nothing_that_is_asked_was_trained_on():
    data = library_data(per_package=4, modules_per_package=1, queries=60, installed=False)
    trained = {pair.document for pair in data.train} | {pair.query for pair in data.train}
    for name, task in data.tasks.items():
        assert isinstance(task, RetrievalTask) and len(task.queries) >= 10, name
        assert data.train_packages.isdisjoint(task.packages)
        assert trained.isdisjoint(task.documents) and trained.isdisjoint(task.queries)
        assert all(answers == {i} for i, answers in enumerate(task.relevant))
    assert "language reference" not in data.train_packages


def test_what_packages_copy_from_each_other_is_not_asked():
    trained = [Pair("Open the file named here.", "It is closed at the end.", "one", "s")]
    asked = [
        Pair("Open the file named here.", "Another text about it.", "two", "s"),
        Pair("Another question about a file.", "It is closed at the end.", "two", "s"),
        Pair("Close the file named here.", "It is open before that.", "two", "s"),
    ]
    assert unseen(asked, trained) == asked[2:]
