"""Tasks made of what every reader has: the Python that runs the course, and the packages installed in it.

    functions   every documented function: what its docstring says, and its source without that docstring
    modules     whole files, with and without what their own docstrings say
    topics      the language reference that `help()` shows, as sections with a heading

Nothing is run or imported: files are read and parsed. `split_by_package` divides so that a package lies on one side
only: names, authors and habits of a package seen in training would give the answers of another part of it away.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.corpus import FOREIGN_FOLDERS, LIBRARY_TEST_FOLDERS
from ..errors import InputError

MIN_WORDS = 4  # of a docstring's first paragraph: "Return x." says too little to find a function by
TESTS = LIBRARY_TEST_FOLDERS | {"testing", "conftest.py"}


@dataclass(frozen=True)
class Pair:
    """A question and the text that answers it, and where they come from."""

    query: str
    document: str
    package: str
    source: str  # file, and what in it

    @property
    def text(self) -> str:
        """Both, as a tokenizer or a masked language model reads them."""
        return f"{self.query}\n{self.document}"


# ---- where the files are ---------------------------------------------------------------------------------------------


def library_files() -> list[tuple[str, Path]]:
    """(package, file) of the standard library without its tests; a module of one file is a package of one file."""
    root = Path(sysconfig.get_path("stdlib"))
    return [(name.removesuffix(".py"), path) for name, path in _files(root) if not name.startswith("_sysconfigdata")]


def installed_files() -> list[tuple[str, Path]]:
    """(package, file) of the packages installed beside the standard library, without this one and without tests."""
    root = Path(sysconfig.get_path("purelib"))
    found = [(name.removesuffix(".py"), path) for name, path in _files(root)]
    return [(name, path) for name, path in found if name not in ("modernbert_edu", "_virtualenv", "sitecustomize")]


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """(first folder or file under `root`, path) of each Python file, sorted; tests and foreign folders left out."""
    unwanted = FOREIGN_FOLDERS | TESTS
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not unwanted.intersection(parts) and not path.name.startswith("test_"):
            yield parts[0], path


# ---- what is in them -------------------------------------------------------------------------------------------------


def functions(files: Iterable[tuple[str, Path]], per_package: int | None = None, seed: int = 0) -> list[Pair]:
    """Docstring -> function, for every documented function; at most `per_package` of a package, drawn at random.

    The query is the docstring's first paragraph. The document is the source without any docstring, so a query never
    stands in its own answer. Functions that differ in nothing are kept once.
    """
    pairs: list[Pair] = []
    queries, documents = set(), set()
    for package, paths in _shuffled(files, seed):
        found = 0
        for path in paths:
            for name, docstring, source in _documented(path):
                query = first_paragraph(docstring)
                if len(query.split()) < MIN_WORDS or query in queries or source in documents:
                    continue
                queries.add(query)
                documents.add(source)
                pairs.append(Pair(query, source, package, f"{package}/{path.name}:{name}"))
                found += 1
                if found == per_package:
                    break
            if found == per_package:
                break
    return pairs


def _shuffled(files: Iterable[tuple[str, Path]], seed: int) -> Iterator[tuple[str, list[Path]]]:
    """(package, its files in random order), packages sorted; the order in one package does not depend on the others."""
    by_package: dict[str, list[Path]] = {}
    for package, path in files:
        by_package.setdefault(package, []).append(path)
    for package in sorted(by_package):
        random.Random(f"{seed} {package}").shuffle(by_package[package])
        yield package, by_package[package]


def _documented(path: Path) -> Iterator[tuple[str, str, str]]:
    """(name, docstring, source without docstring) of the functions in a file, nested ones left out."""
    text, tree = _parsed(path)
    if tree is None:
        return
    lines = text.split("\n")
    for node in _outer_functions(tree):
        docstring = ast.get_docstring(node)
        if docstring and len(node.body) > 1:
            yield node.name, docstring, _without_docstrings(lines, node)


def _outer_functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try):
            yield from _outer_functions(node)


def _without_docstrings(lines: Sequence[str], node: ast.AST) -> str:
    """The source lines of a node, less every docstring in it, moved to the left margin."""
    drop = set()
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            drop.update(range(body[0].lineno, body[0].end_lineno + 1))
    first = getattr(node, "lineno", 1)
    last = getattr(node, "end_lineno", len(lines))
    kept = [line for number, line in enumerate(lines[first - 1 : last], start=first) if number not in drop]
    margin = len(kept[0]) - len(kept[0].lstrip()) if kept else 0
    return "\n".join(line[margin:] if not line[:margin].strip() else line for line in kept)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def modules(
    files: Iterable[tuple[str, Path]], per_package: int | None = None, min_characters: int = 0, seed: int = 0
) -> list[Pair]:
    """What a module says of itself -> the module, all its docstrings left out.

    Modules that say nothing or are shorter than `min_characters` do not count; at most `per_package` of a package.
    """
    pairs, queries, documents = [], set(), set()
    for package, paths in _shuffled(files, seed):
        found = 0
        for path in paths:
            if found == per_package:
                break
            text, tree = _parsed(path) if path.stat().st_size >= min_characters else ("", None)
            query = first_paragraph((ast.get_docstring(tree) if tree else None) or "")
            source = _without_docstrings(text.split("\n"), tree).strip() if tree else ""
            known = query in queries or source in documents
            if len(query.split()) < MIN_WORDS or len(source) < min_characters or known:
                continue
            queries.add(query)
            documents.add(source)
            pairs.append(Pair(query, source, package, f"{package}/{path.name}"))
            found += 1
    return pairs


def topics() -> list[Pair]:
    """Heading -> section, from the language reference; the heading is not part of the section."""
    try:
        from pydoc_data.topics import topics as texts
    except ImportError:  # some slim builds of Python leave it out
        return []
    pairs, seen = [], set()
    for name, text in sorted(texts.items()):
        # A heading is underlined with as many signs as it has: "The if statement" and a line of asterisks.
        parts = re.split(r"^([^\n]+)\n([*=\-~^\"]{4,})\n", text, flags=re.MULTILINE)
        for heading, section in zip(parts[1::3], parts[3::3], strict=True):
            heading, section = heading.strip(), section.strip()
            if len(section.split()) >= 20 and section not in seen:
                seen.add(section)
                pairs.append(Pair(heading, section, "language reference", f"topics:{name}"))
    return pairs


def passages(pairs: Sequence[Pair]) -> list[Pair]:
    """For each pair whose query has more than one sentence: the first sentence -> the others.

    Prose on both sides: what a docstring begins with, and what it goes on to say.
    """
    made = []
    for pair in pairs:
        first, _, rest = pair.query.partition(". ")
        if len(first.split()) >= MIN_WORDS and len(rest.split()) >= 2 * MIN_WORDS:
            made.append(Pair(first + ".", rest, pair.package, pair.source))
    return made


def first_paragraph(docstring: str) -> str:
    """Up to the first blank line, in one line."""
    return " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())


def _parsed(path: Path) -> tuple[str, ast.Module | None]:
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        with warnings.catch_warnings():  # old code's odd escapes are not the reader's concern
            warnings.simplefilter("ignore")
            return text, ast.parse(text)
    except (OSError, ValueError, SyntaxError, RecursionError):  # another encoding, another Python's syntax
        return "", None


# ---- what training may see -------------------------------------------------------------------------------------------


def split_by_package(pairs: Sequence[Pair], share: float = 0.2, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """(training, held out): whole packages, in random order, are held out until `share` of the pairs is reached.

    Raises `InputError` where the pairs come from a single package.
    """
    if not 0 < share < 1:
        raise InputError(f"the held-out share must lie between 0 and 1, not {share!r}")
    sizes: dict[str, int] = {}
    for pair in pairs:
        sizes[pair.package] = sizes.get(pair.package, 0) + 1
    if len(sizes) < 2:
        raise InputError("all pairs come from one package; a split by package needs two or more")
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    held, wanted = set(), share * len(pairs)
    for package in order[:-1]:
        if sum(sizes[name] for name in held) + sizes[package] <= wanted:
            held.add(package)
    held = held or {min(order, key=sizes.__getitem__)}
    return [p for p in pairs if p.package not in held], [p for p in pairs if p.package in held]
