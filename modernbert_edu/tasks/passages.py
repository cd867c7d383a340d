"""A folder of text files -> passages of at most so many tokens, each with its file and lines, for an index to find.

Cuts lie between lines. Where a definition in Python or a section in Markdown begins, a passage begins; longer ones are
cut where a blank line is, if there is one near. Only a line that alone is too long is cut inside.
"""

from __future__ import annotations

import ast
import re
import warnings
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from pathlib import Path

from ..data.corpus import FOREIGN_FOLDERS, walk
from ..data.tokenizer import Tokenizer
from ..errors import InputError

PROSE = {".txt", ".md", ".rst", ".tex", ".adoc", ".org"}
CODE = set(".py .pyi .c .h .cc .cpp .hpp .cu .cs .go .java .js .jsx .jl .kt .lua .m .php .pl .proto .ps1 .r .rb .rs "
           ".scala .sh .sql .swift .toml .ts .tsx .vue .yaml .yml .zig".split())  # fmt: skip
SUFFIXES = PROSE | CODE

MIN_LIMIT = 16  # tokens of a passage

DEFINITION, UNINDENTED, AFTER_BLANK, ANYWHERE = range(4)  # where to cut before a line, the best place first
# A definition begins a new passage only after this share of the limit: one of three lines goes with its neighbour.
SMALL = 1 / 8


@dataclass(frozen=True)
class Passage:
    """Lines `first_line` to `last_line` (from 1, both included) of the file `source`, a path inside the folder."""

    text: str
    source: str
    first_line: int
    last_line: int

    @property
    def where(self) -> str:
        lines = f"{self.first_line}-{self.last_line}" if self.last_line > self.first_line else f"{self.first_line}"
        return f"{self.source}:{lines}"


@dataclass(frozen=True)
class TextFile:
    """A file as the folder lists it; size and time tell, without reading it, whether it may have changed."""

    source: str
    path: Path
    size: int  # bytes
    mtime_ns: int


# ---- files -----------------------------------------------------------------------------------------------------------


def list_files(folder: str | Path, leave_out: Path | None = None) -> list[TextFile]:
    """The text files under a folder, sorted by name, without hidden and foreign folders and `leave_out`; or one file.

    Raises `InputError` where there is no such folder or file.
    """
    folder = Path(folder).expanduser()
    if folder.is_file():
        found = [(folder.name, folder)]
    elif folder.is_dir():
        skipped = leave_out.resolve() if leave_out else None
        paths = [path for path in walk(folder, FOREIGN_FOLDERS) if path.suffix.lower() in SUFFIXES]
        found = [(path.relative_to(folder).as_posix(), path) for path in paths
                 if skipped is None or skipped not in path.resolve().parents]  # fmt: skip
    else:
        raise InputError(f"{str(folder)!r} does not exist: name a folder of text files, or one file")
    files = []
    for source, path in sorted(found):
        try:
            facts = path.stat()
        except OSError:  # gone since it was listed
            continue
        files.append(TextFile(source, path, facts.st_size, facts.st_mtime_ns))
    return files


def decode(data: bytes) -> str | None:
    """A file's text with "\\n" as line ends, or None where it is not UTF-8."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return None


def read_folder(
    folder: str | Path, tokenizer: Tokenizer, limit: int = 256, overlap: int = 0
) -> tuple[list[Passage], dict[str, int]]:
    """All passages of a folder, and how many files and lines were treated otherwise, by what was done to them.

    Raises `InputError` where there is no text.
    """
    passages, counts = [], {"files not UTF-8": 0, "lines cut inside": 0}
    for file in list_files(folder):
        text = decode(file.path.read_bytes())
        if text is None:
            counts["files not UTF-8"] += 1
            continue
        found, long_lines = cut_text(text, file.source, tokenizer, limit, overlap)
        passages += found
        counts["lines cut inside"] += long_lines
    if not passages:
        raise no_text(folder)
    return passages, counts


def no_text(folder: str | Path) -> InputError:
    return InputError(f"no text in {str(folder)!r}: it needs UTF-8 files with one of the endings "
                      f"{' '.join(sorted(suffix[1:] for suffix in SUFFIXES))}")  # fmt: skip


# ---- cutting ---------------------------------------------------------------------------------------------------------


def cut_text(
    text: str, source: str, tokenizer: Tokenizer, limit: int = 256, overlap: int = 0
) -> tuple[list[Passage], int]:
    """(passages of at most `limit` tokens, [CLS] and [SEP] not counted; lines that had to be cut inside).

    Every line that holds more than white space lies in a passage. Where a cut does not fall before a definition, the
    next passage repeats up to `overlap` lines. Raises `InputError` for a limit below 16.
    """
    if limit < MIN_LIMIT or overlap < 0:
        raise InputError(
            f"passages of {limit} tokens that share {overlap} lines cannot be made: at least {MIN_LIMIT} and 0"
        )
    lines = text.split("\n")
    counts = count_tokens([line + "\n" for line in lines], tokenizer)
    places = find_places(lines, Path(source).suffix.lower())
    spans = [_trim(lines, *span) for span in _spans(counts, places, limit, overlap)]
    spans = [(first, last) for first, last in spans if first < last]

    passages: list[Passage] = []
    long_lines = set()
    # Lines counted one by one can be a token or two off what they make together, so that is counted as well.
    while spans:
        texts = ["\n".join(lines[first:last]) for first, last in spans]
        again = []
        for (first, last), body, tokens in zip(spans, texts, count_tokens(texts, tokenizer), strict=True):
            if tokens <= limit:
                passages.append(Passage(body, source, first + 1, last))
            elif last - first == 1:
                long_lines.add(first)
                passages += [Passage(part, source, last, last) for part in _cut_line(body, tokenizer, limit)]
            else:
                middle = (first + last) // 2
                again += [_trim(lines, first, middle), _trim(lines, middle, last)]
        spans = [(first, last) for first, last in again if first < last]
    return sorted(passages, key=lambda passage: passage.first_line), len(long_lines)  # stable: a line's parts stay


def count_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    different = list(dict.fromkeys(texts))  # of a program's lines two thirds
    encodings = tokenizer.backend.encode_batch_fast(different, add_special_tokens=False)
    counts = dict(zip(different, map(len, encodings), strict=True))
    return [counts[text] for text in texts]


def _spans(counts: Sequence[int], places: Sequence[int], limit: int, overlap: int) -> list[tuple[int, int]]:
    """Ranges of lines, taken greedily: as many as fit; where that cuts a definition or section, back to a better place.

    The better place lies in the range's second half, and among equally good ones where the parts become equally long.
    """
    sums = [0, *accumulate(counts)]
    borders = [*(line for line, place in enumerate(places) if place == DEFINITION), len(counts)]
    spans, start, done = [], 0, 0  # all lines before `done` lie in a span
    while start < len(counts):
        end = start + 1
        while end < len(counts) and sums[end + 1] - sums[start] <= limit:
            if end > done and places[end] == DEFINITION:
                following = borders[bisect(borders, end)]
                if sums[end] - sums[start] >= limit * SMALL or sums[following] - sums[start] > limit:
                    break
            end += 1
        shared = 0
        if end < len(counts) and places[end] != DEFINITION:
            tokens = sums[borders[bisect(borders, end)]] - sums[start]
            equal = tokens / ceil(tokens / limit)
            earliest = max(done + 1, (start + end + 1) // 2)
            end = min(range(earliest, end + 1), key=lambda i: (places[i], abs(sums[i] - sums[start] - equal)))
            shared = min(overlap, (end - start) // 2) if places[end] != DEFINITION else 0
            while shared and sums[end + 1] - sums[end - shared] > limit:  # the next line must fit in beside them
                shared -= 1
        spans.append((start, end))
        start, done = end - shared, end
    return spans


def _trim(lines: Sequence[str], first: int, last: int) -> tuple[int, int]:
    """Without blank lines at both ends; (x, x) where nothing is left."""
    while first < last and not lines[first].strip():
        first += 1
    while first < last and not lines[last - 1].strip():
        last -= 1
    return first, last


def _cut_line(line: str, tokenizer: Tokenizer, limit: int) -> list[str]:
    """A line in halves of equally many tokens, halved again until all fit."""
    encoding = tokenizer.backend.encode(line, add_special_tokens=False)
    if len(encoding) <= limit or len(line) < 2:
        return [line] if line.strip() else []
    middle = encoding.offsets[len(encoding) // 2][0] or len(line) // 2
    return _cut_line(line[:middle], tokenizer, limit) + _cut_line(line[middle:], tokenizer, limit)


# ---- good places to cut ----------------------------------------------------------------------------------------------


def find_places(lines: Sequence[str], suffix: str) -> list[int]:
    """For each line, how good it is to cut before it."""
    places = [ANYWHERE] * len(lines)
    for number, (before, line) in enumerate(pairwise(lines), start=1):
        if line.strip() and not before.strip():
            places[number] = AFTER_BLANK if line[0].isspace() else UNINDENTED
    starts = _python_definitions(lines) if suffix in (".py", ".pyi") else _headings(lines) if suffix == ".md" else ()
    for number in starts:
        if number < len(lines):
            places[number] = DEFINITION
    return places


def _headings(lines: Sequence[str]) -> Iterator[int]:
    """Lines of Markdown that begin a section; a comment in a fenced block of code looks like one and is none."""
    fenced = False
    for number, line in enumerate(lines):
        if line.startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and re.match(r"#{1,6} ", line):
            yield number


def _python_definitions(lines: Sequence[str]) -> Iterator[int]:
    """Where functions, classes and their methods begin, decorators and comments above included, and where they end."""
    try:
        with warnings.catch_warnings():  # old code's odd escapes are not the reader's concern
            warnings.simplefilter("ignore")
            tree = ast.parse("\n".join(lines))
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # another Python's syntax: cut like any text
        return
    yield from _definitions(tree.body, lines)


def _definitions(body: list[ast.stmt], lines: Sequence[str]) -> Iterator[int]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        while first > 0 and lines[first - 1].lstrip().startswith("#"):
            first -= 1
        yield first
        yield node.end_lineno
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, lines)
