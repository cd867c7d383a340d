"""Labelled tasks made of the standard library, each divided by file or by package before anything is drawn from it.

    package_task     a passage                  -> the package it comes from      classes, split by file
    docstring_task   a docstring and a function -> whether they belong together   pairs, split by package
    fact_task        a long piece of a file     -> what a line in it says         classes, split by file
    outside          the text that no task holds out: all that pretraining may see

Letters: T tokens.
"""

from __future__ import annotations

import dataclasses
import random
import re
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.corpus import Corpus
from ..data.tokenizer import Tokenizer
from ..errors import InputError
from .forms import Task
from .library import Pair, functions, split_by_package
from .table import Examples

PACKAGE = Task("package", ("passage",), label="package")
DOCSTRING = Task("docstring", ("docstring", "function"), label="belongs")
FACT = Task("fact", ("text",), label="maintainer")

GENERATED = {"encodings", "pydoc_data"}  # tables written by a program, one file much like the next
IMPORT = re.compile(r"^\s*(import|from)\s")
AUTHORSHIP = re.compile(r"copyright|licen[sc]e|author|contributed", re.IGNORECASE)
NAMES = ("Ada Lovelace", "Alan Turing", "Edsger Dijkstra", "Grace Hopper")
SENTENCE = "# The maintainer of this file is {name}. Ask {name} before you change it: {address}@example.org\n"
SPARE = 8  # tokens: lines that are joined may have a token more than each alone


@dataclass(frozen=True)
class LibraryTask:
    """Examples to train on, to choose by (`dev`) and to report (`test`), and the files behind each, as sources.

    A source is a file's path inside the standard library, as `load_corpus("python")` names it.
    """

    task: Task
    train: Examples
    dev: Examples
    test: Examples
    train_files: frozenset[str]
    held_files: frozenset[str]  # of dev and test


def source_of(path: Path) -> str:
    """A file's path inside the standard library, with slashes; elsewhere the whole path."""
    root = Path(sysconfig.get_path("stdlib"))
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


# ---- which package a passage comes from ------------------------------------------------------------------------------


def package_task(
    files: Sequence[tuple[str, Path]], packages: int, lines: int, counts: tuple[int, int, int], seed: int = 0,
    min_files: int = 10,
) -> LibraryTask:  # fmt: skip
    """Passages of `lines` lines, `counts` of each package for (train, dev, test); a class for each of the `packages`
    with the most files.

    Of a package's files a fifth is held out for each of dev and test. `passages_of` says which lines are left out. A
    passage that stands in several places, as copied code does, is kept in the first of them alone.
    Raises `InputError` where fewer than two packages have `min_files` files.
    """
    by_package: dict[str, list[Path]] = {}
    for package, path in files:
        if package not in GENERATED:
            by_package.setdefault(package, []).append(path)
    chosen = sorted((name for name, own in by_package.items() if len(own) >= min_files),
                    key=lambda name: (-len(by_package[name]), name))[:packages]  # fmt: skip
    if len(chosen) < 2:
        raise InputError(f"fewer than two packages have {min_files} files; give more files, or lower min_files")
    texts: list[list[tuple[str]]] = [[], [], []]
    answers: list[list[str]] = [[], [], []]
    sources: list[set[str]] = [set(), set(), set()]
    seen: set[str] = set()
    for package in sorted(chosen):
        for side, paths in enumerate(_split_files(by_package[package], seed)):
            by_file = [passages_of(path, package, lines) for path in paths]
            drawn = dict.fromkeys(text for text in _turn_by_turn(by_file, seed) if text not in seen)
            drawn = list(drawn)[: counts[side]]
            seen.update(drawn)
            sources[side].update(map(source_of, paths))
            texts[side] += [(text,) for text in drawn]
            answers[side] += [package] * len(drawn)
    parts = [Examples(t, a) for t, a in zip(texts, answers, strict=True)]
    return LibraryTask(PACKAGE, *parts, frozenset(sources[0]), frozenset(sources[1] | sources[2]))


def passages_of(path: Path, package: str, lines: int) -> list[str]:
    """A file cut into passages, after its empty lines and those that would give the answer away are dropped.

    Dropped are lines that import, that hold the package's name anywhere, or that name a licence or an author.
    """
    text = path.read_text(encoding="utf-8", errors="ignore")
    tells = (IMPORT, AUTHORSHIP, re.compile(re.escape(package), re.IGNORECASE))
    kept = [line for line in text.split("\n") if line.strip() and not any(tell.search(line) for tell in tells)]
    cut = [kept[i : i + lines] for i in range(0, len(kept), lines)]
    return ["\n".join(piece) for piece in cut if len(piece) == lines]


def _split_files(paths: Sequence[Path], seed: int) -> tuple[list[Path], list[Path], list[Path]]:
    """(train, dev, test): a fifth of the files each for dev and test."""
    order = sorted(paths)
    random.Random(seed).shuffle(order)
    held = max(1, len(order) // 5)
    return order[2 * held :], order[:held], order[held : 2 * held]


def _turn_by_turn(groups: Iterable[Sequence], seed: int) -> list:
    """One of each group, then a second of each, ... so that no large group fills the whole draw."""
    drawn, generator = [], random.Random(seed)
    for group in groups:
        order = list(group)
        generator.shuffle(order)
        drawn += [(turn, generator.random(), one) for turn, one in enumerate(order)]
    return [one for *_, one in sorted(drawn, key=lambda entry: entry[:2])]


# ---- whether a docstring belongs to a function -----------------------------------------------------------------------


def docstring_task(
    files: Sequence[tuple[str, Path]], per_package: int | None, counts: tuple[int, int, int], seed: int = 0
) -> LibraryTask:
    """Docstring and function, "yes" or "no"; `counts` functions for (train, dev, test), at most `per_package` of one.

    Each function is there twice: with its own docstring and with one of another function of its package. So both
    answers are equally frequent, no docstring or function by itself tells which it is, and neither does the topic.
    Packages are held out whole; those with one function only are left out.
    """
    pairs = functions(files, per_package, seed)
    sizes: dict[str, int] = {}
    for pair in pairs:
        sizes[pair.package] = sizes.get(pair.package, 0) + 1
    train, held = split_by_package([pair for pair in pairs if sizes[pair.package] > 1], 0.3, seed)
    dev, test = split_by_package(held, 0.5, seed)
    parts = [_matched(part, count, seed) for part, count in zip((train, dev, test), counts, strict=True)]
    packages = [{pair.package for pair in part} for part in (train, dev + test)]
    sources = [frozenset(source_of(path) for package, path in files if package in own) for own in packages]
    return LibraryTask(DOCSTRING, *parts, *sources)


def _matched(pairs: Sequence[Pair], count: int, seed: int) -> Examples:
    """Of `count` functions, each with its own docstring ("yes") and with the next one of its package ("no")."""
    by_package: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_package.setdefault(pair.package, []).append(pair)
    generator, both = random.Random(seed), []
    for package in sorted(by_package):
        own = by_package[package]
        generator.shuffle(own)
        both += [((a.query, a.document), (b.query, a.document)) for a, b in zip(own, own[1:] + own[:1], strict=True)]
    generator.shuffle(both)
    return Examples([text for two in both[:count] for text in two], ["yes", "no"] * len(both[:count]))


# ---- what a line far inside a file says ------------------------------------------------------------------------------


@dataclass(frozen=True)
class FactTask:
    """As `LibraryTask`. `places` are the tokens that stand before the fact of each test text, [CLS] included."""

    task: Task
    train: Examples
    dev: Examples
    test: Examples
    places: list[int]
    length: int  # tokens of a test text, about


def fact_task(
    train_files: Sequence[Path], held_files: Sequence[Path], tokenizer: Tokenizer, lengths: tuple[int, int],
    counts: tuple[int, int, int], seed: int = 0, max_files: int | None = None,
) -> FactTask:  # fmt: skip
    """Pieces of real files, in each of which one line was put that names a maintainer: which of four?

    Training pieces have between `lengths[0]` and `lengths[1]` tokens, as many short as long ones on a logarithmic
    scale, and the line is anywhere. Test pieces all have `lengths[1]`, with the line at evenly spaced places; every
    name comes equally often at every part of the text. At most `max_files` files of each side are used.
    Raises `InputError` where no file is long enough, or the shortest text has no room beside the line.
    """
    sentences = tokenizer.encode_batch(map(_sentence, NAMES))
    if lengths[0] < max(map(len, sentences)) + SPARE + 16:
        raise InputError(
            f"{lengths[0]} tokens have no room for a fact of {max(map(len, sentences))}; take longer texts"
        )
    sides = [_lines(paths, tokenizer, lengths[1], max_files, seed) for paths in (train_files, held_files)]
    generator, parts, places, seen = random.Random(seed), [], [], set()
    for side, count in zip((0, 1, 1), counts, strict=True):
        test = len(parts) == 2
        texts, answers = [], []
        for i in range(count):
            length = lengths[1] if test else round(lengths[0] * (lengths[1] / lengths[0]) ** generator.random())
            share = (i + 0.5) / count if test else generator.random()
            name = NAMES[i % len(NAMES)]
            for _ in range(100):  # short pieces of different files can be the same: draw again
                text, place = _plant(generator.choice(sides[side]), length, share, name, tokenizer, generator)
                if text not in seen:
                    break
            seen.add(text)
            texts.append((text,))
            answers.append(name)
            places += [place] if test else []
        parts.append(Examples(texts, answers))
    return FactTask(FACT, *parts, places, lengths[1])


def _sentence(name: str) -> str:
    return SENTENCE.format(name=name, address=name.lower().replace(" ", "."))


def _lines(
    paths: Sequence[Path], tokenizer: Tokenizer, length: int, max_files: int | None, seed: int
) -> list[tuple[list[str], list[int]]]:
    """(lines, tokens of each line) of files with at least `length` tokens, drawn at random."""
    found, order = [], sorted(paths)
    random.Random(seed).shuffle(order)
    for path in order:
        if max_files is not None and len(found) == max_files:
            break
        lines = path.read_text(encoding="utf-8", errors="ignore").splitlines(keepends=True)
        if sum(map(len, lines)) < length:  # a token has a character or more
            continue
        sizes = list(map(len, tokenizer.encode_batch(lines, add_special_tokens=False)))
        if sum(sizes) >= length and max(sizes) < length // 4:
            found.append((lines, sizes))
    if not found:
        raise InputError(f"no file has {length:,} tokens; give longer files, or take a smaller length")
    return found


def _plant(file, length: int, share: float, name: str, tokenizer: Tokenizer, generator) -> tuple[str, int]:
    """(a piece of about `length` tokens with the sentence at this share of it, tokens before the sentence)."""
    lines, sizes = file
    sentence = _sentence(name)
    room = length - SPARE - len(tokenizer.encode(sentence))
    last, left = len(lines), 0
    while left < room and last:  # the last line at which a piece can begin and still fill the room
        last -= 1
        left += sizes[last]
    end = start = generator.randint(0, last)
    used = 0
    while end < len(lines) and used + sizes[end] <= room:
        used += sizes[end]
        end += 1
    at, before = start, 0
    while at < end and before + sizes[at] / 2 < share * used:
        before += sizes[at]
        at += 1
    head = "".join(lines[start:at])
    return head + sentence + "".join(lines[at:end]), 1 + len(tokenizer.encode(head, add_special_tokens=False))


# ---- what pretraining may see ----------------------------------------------------------------------------------------


def outside(corpus: Corpus, held_files: Iterable[str]) -> Corpus:
    """The same text divided anew: what the tasks hold out is the held-out part, all else is for training.

    Raises `InputError` where one side would be empty.
    """
    import datasets

    whole, held = datasets.concatenate_datasets([corpus.train, corpus.held_out]), set(held_files)
    sides = [[i for i, source in enumerate(whole["source"]) if (source in held) == out] for out in (False, True)]
    if not all(sides):
        raise InputError("the tasks hold out all of the corpus, or nothing of it; take the corpus 'python'")
    return dataclasses.replace(corpus, train=whole.select(sides[0]), held_out=whole.select(sides[1]))
