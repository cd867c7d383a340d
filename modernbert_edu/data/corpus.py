"""Where the text comes from: one call turns a corpus spec into documents split into train and held-out.

Three kinds of spec, all needing no more than one line from the caller:

    "python"             the standard library of the Python that runs this: code, docstrings, language reference
    "path/to/anything"   a folder (recursively) or one file of text
    "hub:NAME[:CONFIG]"  a dataset on the Hugging Face Hub, streamed

A document is a pair (source, text). The split is made between documents, so no file has text on both sides:
a model that merely remembers a file gains nothing on the held-out text.
"""

import contextlib
import glob
import hashlib
import os
import random
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modernbert_edu.errors import InputError
from modernbert_edu.runtime import progress

if TYPE_CHECKING:  # slow to import, so only the functions that need it do
    import datasets

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")  # one file = one document
ROW_SUFFIXES = (".jsonl", ".parquet")  # one row = one document
SUFFIXES = TEXT_SUFFIXES + ROW_SUFFIXES  # ".json" (lines or a list) is read too, but only when named: folders are full
# of .json settings files that are nobody's corpus

# Other people's code and caches, never what someone means by "my folder". Hidden folders are skipped as well.
FOREIGN_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
# The library's tests triple its size with repetitive text.
LIBRARY_TEST_FOLDERS = {"test", "tests", "idle_test"}

HUB_MAX_DOCUMENTS = 20_000  # a streamed dataset has no natural end that fits a laptop
MIN_SIDE = 100  # characters that each side must keep when one single document is cut in two

SPEC_FORMS = "'python', a folder, a file ({}), or 'hub:NAME[:CONFIG]'".format(", ".join(SUFFIXES + (".json",)))

Document = tuple[str, str]  # (source, text)


@dataclass(frozen=True)
class Corpus:
    """Documents with a source, split into train and held-out.

    `train` and `held_out` are `datasets.Dataset`s with the string columns `text` and `source`. `fingerprint` names
    the text itself (16 hex digits): the same files give the same fingerprint on every machine. `skipped` counts the
    documents left out, by reason.
    """

    name: str
    train: "datasets.Dataset"
    held_out: "datasets.Dataset"
    fingerprint: str
    skipped: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """One line: how many documents and characters on each side, what was skipped, and the fingerprint."""
        sides = []
        for label, split in (("train", self.train), ("held-out", self.held_out)):
            sides.append(f"{label} {len(split):,} documents, {sum(map(len, split['text'])):,} characters")
        skipped = _describe(self.skipped) or "none"
        return f"{self.name}: {'; '.join(sides)}; skipped: {skipped}; fingerprint {self.fingerprint}"


def load_corpus(
    spec="python",
    *,
    held_out: float = 0.1,
    seed: int = 0,
    max_documents: int | None = None,
    max_characters: int | None = None,
    text_column: str | None = None,
) -> Corpus:
    """Read the text that `spec` names and split it.

    Args:
        spec: "python", a folder, a file, or "hub:NAME[:CONFIG]". A folder that is itself called python: "./python".
        held_out: the share of the characters to hold out, in (0, 1); met to within a document.
        seed: decides the split, and which documents a limit keeps.
        max_documents, max_characters: upper limits. Local text is sampled at random by `seed`; a Hub dataset is read
            from its start, 20,000 documents unless told otherwise. The last document is cut to meet `max_characters`.
        text_column: the column with the text in jsonl, parquet and Hub rows; otherwise `text`, `content`, or the
            only column of strings.

    Line ends become "\\n"; nothing else about the text is changed. Files that are not UTF-8 and documents without
    text are skipped and counted. All text is held in memory. Raises InputError where nothing readable is found.
    """
    spec = os.fspath(spec)
    if not 0 < held_out < 1:
        raise InputError(f"held_out is {held_out}: it is a share of the text and must lie between 0 and 1")
    for label, limit in (("max_documents", max_documents), ("max_characters", max_characters)):
        if limit is not None and limit < 1:
            raise InputError(f"{label} is {limit}: it must be at least 1, or None for no limit")

    skipped: Counter[str] = Counter()
    if spec == "python":
        name, found = spec, _python_documents(skipped)
    elif spec.startswith("hub:"):
        name, found = spec, _hub_documents(spec, text_column, max_documents, max_characters)
    else:
        path = Path(spec).expanduser()
        name, found = path.resolve().name, _local_documents(path, text_column, skipped)

    documents = _clean(found, skipped)
    if not documents:
        reasons = f" ({_describe(skipped)} skipped)" if skipped else ""
        raise InputError(f"no readable text in {spec!r}{reasons}: give {SPEC_FORMS}, with UTF-8 text in it")
    documents = _sample(documents, max_documents, max_characters, seed)
    train, held = _split(documents, held_out, seed)
    return Corpus(name, _dataset(train), _dataset(held), _fingerprint(train + held), dict(skipped))


# ------------------------------------------------------------------------------------------ where documents come from


def _python_documents(skipped: Counter) -> list[Document]:
    """The running interpreter's library, without its tests, and the language reference that `help()` shows."""
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for path in walk(root, FOREIGN_FOLDERS | LIBRARY_TEST_FOLDERS):
        source = path.relative_to(root).as_posix()
        # Written while Python was built: they hold the paths of one machine, and the fingerprint must not.
        generated = path.name.startswith("_sysconfigdata") or source.startswith("config-")
        # topics.py is one dictionary of prose in quotes; the prose itself follows below.
        if path.suffix == ".py" and not generated and source != "pydoc_data/topics.py":
            documents += _read_text_file(path, source, skipped)
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some slim builds of Python leave it out
        topics = {}
    return documents + [(f"pydoc_data.topics:{name}", text) for name, text in topics.items()]


def _local_documents(path: Path, text_column: str | None, skipped: Counter) -> list[Document]:
    if not path.exists():
        raise InputError(f"no such corpus: {str(path)!r} does not exist; a corpus is {SPEC_FORMS}")
    if path.is_dir():
        files = [(file, file.relative_to(path).as_posix()) for file in walk(path, FOREIGN_FOLDERS)]
        files = [(file, source) for file, source in files if file.suffix.lower() in SUFFIXES]
    elif path.suffix.lower() in (*SUFFIXES, ".json"):
        files = [(path, path.name)]
    else:
        raise InputError(f"cannot read {path.name!r} as text: a corpus file ends in {', '.join(SUFFIXES)} or .json")
    documents = []
    for file, source in files:
        if file.suffix.lower() in TEXT_SUFFIXES:
            documents += _read_text_file(file, source, skipped)
        else:
            documents += _read_rows(file, source, text_column, skipped)
    return documents


def walk(root: Path, unwanted: set[str]) -> list[Path]:
    """Every regular file under `root`, sorted; hidden files and folders and the `unwanted` folders left out."""
    files = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in unwanted and not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def _read_text_file(path: Path, source: str, skipped: Counter) -> list[Document]:
    """The file as a list of one document, or of none where it is not UTF-8 or cannot be opened."""
    try:
        # "-sig": the byte order mark that Windows editors put first is not part of the text
        return [(source, path.read_bytes().decode("utf-8-sig"))]
    except UnicodeDecodeError:
        skipped["not UTF-8"] += 1
    except OSError:
        skipped["unreadable"] += 1
    return []


def _read_rows(path: Path, source: str, text_column: str | None, skipped: Counter) -> list[Document]:
    """One document per row of a jsonl, json or parquet file, through `datasets`."""
    import datasets

    kind = "parquet" if path.suffix.lower() == ".parquet" else "json"
    if kind == "json":
        as_text = _read_text_file(path, source, skipped)
        if not as_text or not as_text[0][1].strip():
            skipped["empty"] += len(as_text)
            return []
    # Streamed, and with a cache folder that is thrown away: an edited file is read anew and nothing stays behind.
    # The name is escaped because `datasets` takes it for a glob pattern.
    with tempfile.TemporaryDirectory() as cache, _quiet_datasets():
        try:
            files = [glob.escape(str(path.resolve()))]
            rows = list(datasets.load_dataset(kind, data_files=files, split="train", streaming=True, cache_dir=cache))
        except Exception as error:  # pyarrow, json and datasets each have their own
            raise InputError(f"{source!r} is not a readable {path.suffix} file: {_one_line(error)}") from error
    if not rows:
        return []
    column = find_text_column(rows, text_column, source)
    return [(f"{source}:{number}", _row_text(row, column, f"{source}:{number}")) for number, row in enumerate(rows)]


def _hub_documents(
    spec: str, text_column: str | None, max_documents: int | None, max_characters: int | None
) -> list[Document]:
    """The first documents of a Hub dataset's `train` split, streamed: nothing but these is downloaded."""
    from huggingface_hub import constants

    name, _, config = spec.removeprefix("hub:").partition(":")
    if not name:
        raise InputError("'hub:' lacks a dataset's name: write hub:NAME or hub:NAME:CONFIG")
    no_network = "the corpus 'python' or a local folder needs no network"
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        raise InputError(f"{spec!r} is out of reach: the Hugging Face Hub is offline (HF_HUB_OFFLINE); {no_network}")
    import datasets

    limit = max_documents or HUB_MAX_DOCUMENTS
    documents, characters, column = [], 0, None
    try:
        stream = datasets.load_dataset(name, config or None, split="train", streaming=True)
        with progress(total=limit, desc=spec, unit=" documents") as bar:
            for number, row in enumerate(stream.take(limit)):
                column = column or find_text_column([row], text_column, spec)
                documents.append((f"{name}:{number}", _row_text(row, column, f"{spec}, row {number}")))
                characters += len(documents[-1][1])
                bar.update()
                if max_characters is not None and characters >= max_characters:
                    break
    except InputError:
        raise
    except datasets.exceptions.DatasetNotFoundError as error:
        raise InputError(f"no dataset {name!r} on the Hub (misspelt, private, or gated?); {no_network}") from error
    except OSError as error:  # ConnectionError and the Hub's own errors among them
        raise InputError(f"cannot reach {spec!r} on the Hub ({_one_line(error)}); {no_network}") from error
    except Exception as error:  # an unknown configuration, no `train` split, a broken file: each library has its own
        raise InputError(f"cannot read {spec!r}: {_one_line(error)}") from error
    return documents


_TRUE = {"1", "true", "yes", "on"}


def find_text_column(rows: list[dict], wanted: str | None, where: str) -> str:
    """The column of `rows` with the text: the one asked for, `text`, `content`, or the only one with strings."""
    columns = list(rows[0])
    strings = [name for name in columns if any(isinstance(row[name], str) for row in rows)]
    candidates = [wanted] if wanted else ["text", "content"]
    for name in candidates:
        if name in columns:
            return name
    if not wanted and len(strings) == 1:
        return strings[0]
    problem = f"no column {wanted!r}" if wanted else "no column 'text' or 'content', nor a single column of strings"
    raise InputError(f"{where}: {problem}; the columns are {', '.join(columns)} (choose one with text_column)")


def _row_text(row: dict, column: str, where: str) -> str:
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise InputError(f"{where}: column {column!r} holds {type(text).__name__}, not text (choose with text_column)")
    return text or ""


# ------------------------------------------------------------------------------------- what happens to them afterwards


def _clean(documents: list[Document], skipped: Counter) -> list[Document]:
    """Line ends to "\\n", documents without text dropped, sorted by source so that listing order cannot matter."""
    kept = []
    for source, text in documents:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if not text.strip():
            skipped["empty"] += 1
        elif not _is_unicode(text):
            skipped["not UTF-8"] += 1
        else:
            kept.append((source, text))
    return sorted(kept)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from an escape such as "\ud800" in a JSON file
        return False
    return True


def _sample(
    documents: list[Document], max_documents: int | None, max_characters: int | None, seed: int
) -> list[Document]:
    """At most so many documents and characters, drawn at random; the last one is cut to fit."""
    if max_documents is None and max_characters is None:
        return documents
    drawn = random.Random(seed).sample(documents, min(len(documents), max_documents or len(documents)))
    room = max_characters if max_characters is not None else float("inf")
    kept = []
    for source, text in drawn:
        text = text if len(text) <= room else text[: int(room)]
        if text.strip():
            kept.append((source, text))
        room -= len(text)
        if room <= 0:
            break
    if not kept:
        raise InputError(f"max_characters={max_characters} leaves no text: raise it")
    return sorted(kept)


def _split(documents: list[Document], held_out: float, seed: int) -> tuple[list[Document], list[Document]]:
    """Whole documents in random order go to the held-out side until it has its share of the characters.

    One that would overfill it stays in train, so a single huge file cannot swallow the share.
    """
    if len(documents) == 1:
        return _split_one(*documents[0], held_out)
    target = held_out * sum(len(text) for _, text in documents)
    order = documents.copy()
    random.Random(seed).shuffle(order)
    held, size = [], 0
    for document in order[:-1]:  # the last stays in train, which is never empty
        if size + len(document[1]) <= target:
            held.append(document)
            size += len(document[1])
        if size >= 0.95 * target:  # near enough; going on would pick nothing but ever smaller documents
            break
    held = held or [min(order, key=lambda document: len(document[1]))]
    chosen = {source for source, _ in held}
    return [document for document in documents if document[0] not in chosen], sorted(held)


def _split_one(source: str, text: str, held_out: float) -> tuple[list[Document], list[Document]]:
    """A lone document is cut in two: at a blank line near the place, else at a line's end, else at a space."""
    wished = round((1 - held_out) * len(text))
    for border in ("\n\n", "\n", " "):
        before = text.rfind(border, 0, wished) + len(border)
        after = text.find(border, wished) + len(border)
        for cut in sorted((before, after), key=lambda place: abs(place - wished)):
            train, held = text[:cut], text[cut:]
            # "near": off by no more than half of the held-out share
            near = abs(cut - wished) <= 0.5 * min(held_out, 1 - held_out) * len(text)
            if near and min(len(train.strip()), len(held.strip())) >= MIN_SIDE:
                return [(f"{source}#train", train)], [(f"{source}#held-out", held)]
    raise InputError(
        f"{source!r} is the only document and too short to split ({len(text):,} characters): "
        f"give at least two documents, or one of some {round(2 * MIN_SIDE / min(held_out, 1 - held_out)):,} characters"
    )


def _dataset(documents: list[Document]):
    import datasets

    return datasets.Dataset.from_dict(
        {"text": [text for _, text in documents], "source": [source for source, _ in documents]}
    )


def _fingerprint(documents: list[Document]) -> str:
    """16 hex digits of a SHA-256 over the sorted documents, each part preceded by its length in bytes."""
    digest = hashlib.sha256()
    for document in sorted(documents):
        for part in document:
            data = part.encode()
            digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()[:16]


def _describe(skipped: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items()) if count)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def _quiet_datasets():
    """`datasets` logs a broken file before raising; our one line says it already."""
    import datasets

    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)
