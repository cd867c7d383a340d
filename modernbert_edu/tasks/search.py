"""What `search` does: a folder of text becomes an index, and a question finds its passages in it."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from ..checkpoint import find_folder
from ..errors import InputError
from ..retriever import Embedder
from ..retriever_folder import load_retriever
from ..runtime import provenance
from .index import Built, Changes, Hit, Index, build, model_name, read_manifest
from .rag import find

SHOWN_LINES, SHOWN_WIDTH = 5, 110  # of a passage, without --full


def open_embedder(name: str, device: torch.device) -> Embedder:
    """A retriever with one vector a text, on `device`. Raises `InputError` for one with a vector a token."""
    model = load_retriever(name)
    if not isinstance(model, Embedder):
        raise InputError(f"{name} makes a vector of each token, and an index holds one of each passage; "
                         "give a model with pooling")  # fmt: skip
    return model.to(device).eval()


def open_index_model(manifest: dict, out: Path, device: torch.device) -> Embedder:
    """The model that an index was built with, where it still is."""
    return open_embedder(model_name(manifest, out), device)


def lasting_name(name: str | Path) -> str:
    """A model's name that means the same from another folder: a path in full, a Hub id as it is."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else str(name)


# ---- build -----------------------------------------------------------------------------------------------------------


def run_build(
    folder: str | Path, out: str | Path, *, model: str | None = None, scale=None, device: torch.device, **options
) -> dict:
    """Build or update the index `out` of `folder` and say what was done -> the record for --json.

    Without `model` it is the index's own, and for a new index the course's small one, trained once. `options` are those
    of `index.build`.
    """
    out, start = Path(out), time.perf_counter()
    manifest = read_manifest(out)  # what is no index is refused before a model is opened
    if model is not None:
        name = lasting_name(model)
        embedder = open_embedder(name, device)
    elif manifest and not options.get("anew"):
        name, embedder = manifest["model"]["name"], open_index_model(manifest, out, device)
    else:
        name = lasting_name(_default_model(scale, device))
        embedder = open_embedder(name, device)
    if not (find_folder(name) / "modules.json").exists():
        print(f"{name} was trained for no search: its vectors are means over its tokens, and may find little")
    built = build(folder, out, embedder, name, **options)
    seconds = time.perf_counter() - start
    print(summary(built, embedder.max_length, seconds))
    print(f"kept: {out}")
    return provenance(device, what="index", folder=str(folder), model=name, total_seconds=seconds, **asdict(built))


def _default_model(scale, device: torch.device) -> Path:
    from .default_model import default_model

    return default_model(scale, device)


def summary(built: Built, max_length: int, seconds: float) -> str:
    if not built.embedded:
        line = f"nothing to embed; {built.passages:,} passages"
    else:
        line = (f"embedded {built.embedded:,} of {built.passages:,} passages in {built.seconds:.1f} s, "
                f"{built.embedded / built.seconds:,.0f} passages/s")  # fmt: skip
    if built.shortened:
        line += f"; {built.shortened:,} cut by the model at {max_length:,} tokens"
    return line + ("; approximate" if built.approximate else "") + f"; {seconds:.1f} s in all"


# ---- ask -------------------------------------------------------------------------------------------------------------


def run_ask(
    out: str | Path, questions: Iterable[str], *, model: str | None = None, device: torch.device, top: int = 5,
    full: bool = False, reranker=None, **how,
) -> list[dict]:  # fmt: skip
    """Answer each question from the index `out` -> one record a question, with its hits.

    `how` is `Index.search`'s: `exact`, `hybrid`, `words`.
    """
    if top < 1:
        raise InputError(f"--top must be at least 1, not {top}")
    index = open_for_questions(out, model, device, **how)
    records = [ask(index, question, top, full=full, reranker=reranker, **how) for question in questions]
    if not records:
        raise InputError("there was no question; give one, or one a line on standard input")
    return records


def open_for_questions(
    out: str | Path, model: str | None, device: torch.device, *, hybrid: bool = False, words: bool = False, **how
) -> Index:
    """The index with its model, its words or both; says in a line where the folder has changed since."""
    out, start, parts = Path(out), time.perf_counter(), []
    index = Index(out)  # one that does not open is told before a model is loaded, and so are missing words
    if hybrid or words:
        parts += [f"{index.words.vocabulary_size:,} words"]
    if not words:
        name, found = (lasting_name(model), open_embedder(model, device)) if model is not None else (
            index.manifest["model"]["name"], open_index_model(index.manifest, out, device))  # fmt: skip
        index.use(found, name)
        parts += ["its model"]
    print(f"{out}: {len(index):,} passages of {index.manifest['folder']}; opened with {' and '.join(parts)} in "
          f"{time.perf_counter() - start:.2f} s")  # fmt: skip
    note = folder_note(index, index.changes())
    if note:
        print(note)
    return index


def folder_note(index: Index, changes: Changes | None) -> str:
    """What to know before the answers: that the folder is no longer what was indexed."""
    folder = index.manifest["folder"]
    if changes is None:
        return f"{folder} is gone; the answers are what the index holds of it"
    if not changes:
        return ""
    return (f"{folder} has changed since (files: {changes.new:,} new, {changes.changed:,} changed, {changes.gone:,} "
            f"gone); `search build {folder} --out {index.folder}` brings the index up to date")  # fmt: skip


def ask(index: Index, question: str, top: int, *, full: bool = False, reranker=None, **how) -> dict:
    """Search, print what was found and how long it took -> the record of it. A reranker orders the best anew."""
    start = time.perf_counter()
    hits = find(index, question, top, reranker=reranker, **how)
    reranking = time.perf_counter() - start - sum(index.seconds.values()) if reranker else 0.0
    print(f"\n{question.strip()}")
    if index.model and index.model.cut:
        print(f"(only its first {index.model.max_length:,} tokens: the model takes no more)")
    for rank, hit in enumerate(hits, start=1):
        print(show(rank, hit, full))
    if not hits:
        print("(no passage holds one of its words)")
    embedding, searching = (index.seconds[what] for what in ("embedding", "searching"))
    print(f"best {len(hits):,} of {len(index):,} passages; "
          + (f"embedding the question {1000 * embedding:.1f} ms, " if index.model else "")
          + f"searching {1000 * searching:.1f} ms"
          + (f", reranking {1000 * reranking:.1f} ms" if reranker else ""), flush=True)  # fmt: skip
    found = [dict(rank=rank, score=hit.score, **asdict(hit.passage)) for rank, hit in enumerate(hits, start=1)]
    return dict(question=question.strip(), hits=found, passages=len(index), embedding_seconds=embedding,
                searching_seconds=searching, reranking_seconds=reranking)  # fmt: skip


def show(rank: int, hit: Hit, full: bool) -> str:
    """A hit as text: rank, score, place, and its first lines."""
    lines = textwrap.dedent(hit.passage.text).split("\n")
    if not full:
        more = len(lines) - SHOWN_LINES
        shown = [line if len(line) <= SHOWN_WIDTH else line[: SHOWN_WIDTH - 3] + "..." for line in lines[:SHOWN_LINES]]
        lines = [*shown, f"... {more} more line{'s' if more > 1 else ''}"] if more > 0 else shown
    body = "\n".join(f"       {line}".rstrip() for line in lines)
    return f"{rank:>3}  {hit.score:.3f}  {hit.passage.where}\n{body}"


def standard_input() -> Iterator[str]:
    """Questions, one a line, until the end of standard input."""
    if sys.stdin.isatty():
        print("one question a line; end with Ctrl-D (Windows: Ctrl-Z and Enter)", file=sys.stderr)
    for line in sys.stdin:
        if line.strip():
            yield line.strip()
