"""A folder's passages and their vectors on disk: built once, brought up to date, searched.

    INDEX/manifest.json            what was indexed with which model, and which generation is valid
    INDEX/.generation-000001/      passages.jsonl, vectors.safetensors, words/ (BM25's index), and vectors.usearch
                                   for a large index

A build writes a whole new generation and then replaces the manifest, which is one rename. Killed before it, the earlier
index stands; killed after it, the new one does; the next build removes what is left over.

Vectors are float32. Half of it would halve the file, but a search multiplies in float32 on a CPU: 100,000 vectors of
256 numbers are mapped from the disk and searched in 10 ms, and converting them takes five times as long.

Letters: N passages, Q questions, D the vectors' dimension.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint import find_folder
from ..data.tokenizer import Tokenizer, load_tokenizer
from ..errors import InputError
from ..retriever import Embedder, fingerprint
from ..runtime import default_dtype, prepare_output_folder, progress, write_text_atomic
from .passages import MIN_LIMIT, Passage, TextFile, cut_text, decode, list_files, no_text
from .ranking import Bm25, bm25_library, code_words, exact_top_k

FORMAT, VERSION = "modernbert_edu search index", 1
MANIFEST, GENERATION, LOCK = "manifest.json", ".generation-", ".lock"
PASSAGES, VECTORS, GRAPH, WORDS = "passages.jsonl", "vectors.safetensors", "vectors.usearch", "words"

MAX_TOKENS, OVERLAP = 256, 0  # a passage's tokens, [CLS], [SEP] and prompt included; lines that neighbours share
# Passages. Comparing with each of 200,000 takes 40 ms, a graph of them 1 ms, and building the graph takes minutes.
APPROXIMATE_FROM = 500_000
EMBEDDED_AT_ONCE = 1024  # passages between two steps of the progress bar
# HNSW (Malkov and Yashunin 2018): neighbours of a vector, and candidates looked at when adding and when searching.
NEIGHBOURS, ADDING, SEARCHING = 16, 128, 128
RRF, FUSED = 60, 100  # reciprocal rank fusion: its constant, and the ranks that are fused


# ---- the manifest ----------------------------------------------------------------------------------------------------


def read_manifest(out: Path) -> dict | None:
    """The manifest of the index in `out`; None where there is nothing yet but what a killed first build left.

    Raises `InputError` for a folder or file that is something else: it is never written to.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise InputError(f"{out} is a file, not an index; choose another place for the index")
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ValueError
    except FileNotFoundError:
        foreign = sorted(path.name for path in out.iterdir() if not _is_leftover(path.name))
        if foreign:
            raise InputError(f"{out} holds other things ({foreign[0]}) and no index; choose a new folder") from None
        return None
    except (OSError, ValueError):
        raise InputError(f"{out} is not an index: its {MANIFEST} is something else; choose a new folder") from None
    if manifest["version"] > VERSION:
        raise InputError(f"{out} was built by a newer version of this package; update it, or build in another folder")
    return manifest


def _is_leftover(name: str) -> bool:
    return name == LOCK or name.startswith((GENERATION, f".{MANIFEST}."))


def _clean(out: Path, valid: str | None) -> None:
    """Remove generations that no manifest names. What another process still reads goes with the next build."""
    for path in out.iterdir():
        if path.name.startswith(GENERATION) and path.name != valid:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(f".{MANIFEST}."):
            path.unlink(missing_ok=True)


# ---- building --------------------------------------------------------------------------------------------------------


@dataclass
class Built:
    """What a build did."""

    passages: int = 0
    embedded: int = 0
    new: int = 0  # files
    changed: int = 0
    gone: int = 0
    kept: int = 0
    long_lines: int = 0
    shortened: int = 0  # passages that the model cut after all
    skipped: dict[str, int] = field(default_factory=dict)  # files without passages, by reason
    seconds: float = 0.0  # of embedding
    approximate: bool = False


def build(
    folder: str | Path, out: str | Path, model: Embedder, name: str, *, max_tokens: int | None = None,
    overlap: int | None = None, anew: bool = False, approximate: bool | None = None,
    approximate_from: int = APPROXIMATE_FROM, say: Callable[[str], None] = print,
) -> Built:  # fmt: skip
    """Index a folder of text files, or bring its index up to date: only files whose content changed are embedded.

    `name` is where the model comes from, for `search ask` to open it again. `anew` embeds everything, with whatever
    model and settings; the earlier index is valid until that is done. `approximate` writes a graph beside the vectors
    (True), never (False), or from `approximate_from` passages on (None). Raises `InputError` where the index is one of
    another folder, model or setting, where there is no text, and where another build is at work.
    """
    out = Path(out)
    read_manifest(out)  # before anything is written to the folder
    prepare_output_folder(out)
    with _alone(out):
        manifest = read_manifest(out)
        _clean(out, manifest and manifest["generation"])
        settings = _settings(manifest and manifest["settings"], max_tokens, overlap, model, anew)
        about = dict(name=str(name), fingerprint=fingerprint(model), dimension=model.dimension,
                     similarity="cosine" if model.normalize else "dot product")  # fmt: skip
        if manifest and not anew:
            _refuse_another(manifest, about, settings, folder, out)
        return _Build(folder, out, model, about, settings, manifest, anew).run(approximate, approximate_from, say)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"another build is writing to {out}; wait for it") from None
    try:
        yield
    finally:
        lock.release()


def _settings(earlier: dict | None, max_tokens: int | None, overlap: int | None, model: Embedder, anew: bool) -> dict:
    """The given ones, else the index's own, else the defaults, as far as the model takes them."""
    default = dict(max_tokens=min(MAX_TOKENS, model.max_length), overlap=OVERLAP)
    if earlier and not anew:
        default = earlier
    settings = dict(max_tokens=default["max_tokens"] if max_tokens is None else max_tokens,
                    overlap=default["overlap"] if overlap is None else overlap)  # fmt: skip
    tokens, least = settings["max_tokens"], MIN_LIMIT + tokens_around(model)
    if tokens < least:
        raise InputError(f"passages of {tokens} tokens hold too little; choose --max-tokens {least} or more")
    if tokens > model.max_length:
        raise InputError(
            f"the model takes texts of {model.max_length:,} tokens and passages of {tokens:,} would be cut; "
            f"choose --max-tokens {model.max_length}"
        )
    if settings["overlap"] < 0:
        raise InputError(f"--overlap must be at least 0 lines, not {settings['overlap']}")
    return settings


def tokens_around(model: Embedder) -> int:
    """[CLS], what is put before a document, and [SEP]."""
    return len(model.tokenizer.encode(model.prompts["document"]))


def _refuse_another(manifest: dict, about: dict, settings: dict, folder: str | Path, out: Path) -> None:
    mend = "give --anew to build all of it again, or choose another --out"
    if Path(manifest["root"]) != _absolute(folder):
        raise InputError(f"{out} is the index of {manifest['folder']}, not of {folder}; {mend}")
    check_model(manifest, about["fingerprint"], about["name"], out, mend)
    for setting, value in settings.items():
        if manifest["settings"][setting] != value:
            was = manifest["settings"][setting]
            raise InputError(f"{out} was built with {setting.replace('_', ' ')} {was}, not {value}; {mend}")


def check_model(manifest: dict, found: str, name: str, out: Path, mend: str) -> None:
    """Vectors of two models have nothing to do with each other. Raises `InputError` unless it is the index's model."""
    model = manifest["model"]
    if found == model["fingerprint"]:
        return
    if name == model["name"]:
        raise InputError(f"the model {name} has changed since {out} was built with it; {mend}")
    raise InputError(f"{out} was built with another model, {model['name']}, not with {name}; {mend}")


def model_name(manifest: dict, out: Path) -> str:
    """Where the index's model comes from: a Hub id, or a folder, which may be gone."""
    name = manifest["model"]["name"]
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise InputError(f"the model that {out} was built with, {name}, is gone; put it back, "
                         "or build the index again with --model MODEL --anew")  # fmt: skip
    return name


def _absolute(folder: str | Path) -> Path:
    return Path(folder).expanduser().resolve()


class _Build:
    """One build: which files to embed, embedding, and writing it all."""

    def __init__(self, folder, out: Path, model: Embedder, about: dict, settings: dict, manifest: dict | None, anew):
        self.folder, self.out, self.model, self.about, self.settings = folder, out, model, about, settings
        self.manifest = manifest
        self.earlier = Index(out) if manifest and not anew else None
        self.before = manifest["files"] if self.earlier else {}
        self.built = Built()
        self.files: dict[str, dict] = {}  # as in the manifest
        self.passages: dict[str, list[Passage]] = {}  # of files to embed

    def run(self, approximate: bool | None, approximate_from: int, say: Callable[[str], None]) -> Built:
        built = self.built
        for file in progress(list_files(self.folder, leave_out=self.out), desc="read", unit=" files"):
            self.look_at(file)
        built.gone = sum(source not in self.files for source in self.before)
        built.passages = sum(file["rows"] for file in self.files.values())
        if not built.passages:
            raise no_text(self.folder)
        built.approximate = built.passages >= approximate_from if approximate is None else approximate
        say(self.plan())
        bm25_library()  # missing: said now and not after an hour of embedding
        if built.approximate:
            usearch_graph()
        touched = built.new or built.changed or built.gone or (self.earlier and not self.earlier.has_words)
        if self.earlier and not touched and built.approximate == self.earlier.approximate:
            self.switch(self.manifest["generation"])  # times may have changed where contents did not
            return built
        start = time.perf_counter()
        vectors = self.embed()
        built.seconds = time.perf_counter() - start
        self.write(vectors)
        return built

    def look_at(self, file: TextFile) -> None:
        """Compare a file with what the index holds of it, and cut it into passages where it differs."""
        built, before = self.built, self.before.get(file.source)
        try:
            data = file.path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
        except OSError:
            data = digest = None
        entry = dict(size=file.size, mtime_ns=file.mtime_ns, sha256=digest)
        if before and before["sha256"] == digest:
            entry |= {key: before[key] for key in ("rows", "skipped")}
            built.kept += 1
        else:
            text = None if data is None else decode(data)
            found, long_lines = ([], 0) if text is None else self.cut(text, file.source)
            built.long_lines += long_lines
            self.passages[file.source] = found
            reason = "not readable" if data is None else "not UTF-8" if text is None else "empty"
            entry |= dict(rows=len(found), skipped=None if found else reason)
            built.changed += before is not None
            built.new += before is None
        if entry["skipped"]:
            built.skipped[entry["skipped"]] = built.skipped.get(entry["skipped"], 0) + 1
        self.files[file.source] = entry

    def cut(self, text: str, source: str) -> tuple[list[Passage], int]:
        limit = self.settings["max_tokens"] - tokens_around(self.model)
        return cut_text(text, source, self.model.tokenizer, limit, self.settings["overlap"])

    def plan(self) -> str:
        built = self.built
        parts = [f"files: {built.new:,} new, {built.changed:,} changed, {built.gone:,} gone, {built.kept:,} kept"]
        if built.skipped:
            parts.append("without text: " + ", ".join(f"{n:,} {why}" for why, n in sorted(built.skipped.items())))
        parts.append(f"{built.passages:,} passages of at most {self.settings['max_tokens']} tokens")
        if built.long_lines:
            parts.append(f"lines too long for one, cut inside: {built.long_lines:,}")
        return "; ".join(parts)

    def embed(self) -> Tensor:
        """(rows to embed, D), files in order."""
        texts = [passage.text for source in sorted(self.passages) for passage in self.passages[source]]
        dtype = default_dtype(self.model.device)[0] if self.model.device.type == "cuda" else None
        vectors = torch.empty(len(texts), self.model.dimension)
        with progress(total=len(texts), desc="embed", unit=" passages") as bar:
            for start in range(0, len(texts), EMBEDDED_AT_ONCE):
                part = texts[start : start + EMBEDDED_AT_ONCE]
                vectors[start : start + len(part)] = self.model.encode(part, kind="document", dtype=dtype)
                self.built.shortened += self.model.cut
                bar.update(len(part))
        if not vectors.isfinite().all():
            raise InputError("the model makes vectors that are not numbers; its weights are broken")
        self.built.embedded = len(texts)
        return vectors

    def write(self, embedded: Tensor) -> None:
        """A new generation: rows of files that stayed are copied, the others are new."""
        number = int(self.manifest["generation"].removeprefix(GENERATION)) + 1 if self.manifest else 1
        generation = f"{GENERATION}{number:06d}"
        folder = self.out / generation
        vectors = torch.empty(self.built.passages, self.model.dimension)
        offsets, texts, row, used = [0], [], 0, 0
        old_rows = first_rows(self.before)
        try:
            folder.mkdir()
            with open(folder / PASSAGES, "wb") as file:
                for source, entry in sorted(self.files.items()):
                    rows = entry["rows"]
                    if source in self.passages:
                        lines = [_line(passage) for passage in self.passages[source]]
                        texts += [passage.text for passage in self.passages[source]]
                        vectors[row : row + rows] = embedded[used : used + rows]
                        used += rows
                    else:
                        first = old_rows[source]
                        lines = list(self.earlier.lines(range(first, first + rows)))
                        texts += [json.loads(line)["text"] for line in lines]
                        vectors[row : row + rows] = self.earlier.vectors[first : first + rows]
                    for line in lines:
                        file.write(line)
                        offsets.append(offsets[-1] + len(line))
                    row += rows
            save_file({"vectors": vectors, "offsets": torch.tensor(offsets)}, folder / VECTORS)
            if self.built.approximate:
                write_graph(vectors, folder / GRAPH)
            write_words(texts, folder / WORDS)
            for path in folder.rglob("*"):
                if path.is_file():
                    _flush(path)
        except (OSError, SafetensorError, RuntimeError) as error:  # RuntimeError is usearch's
            shutil.rmtree(folder, ignore_errors=True)
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot write the index to {self.out}: {reason}; free some space") from None
        self.switch(generation)

    def switch(self, generation: str) -> None:
        """From here on the index is this generation."""
        manifest = dict(format=FORMAT, version=VERSION, generation=generation, model=self.about,
                        settings=self.settings, folder=str(self.folder), root=str(_absolute(self.folder)),
                        passages=self.built.passages, approximate=self.built.approximate, words=True,
                        files=dict(sorted(self.files.items())))  # fmt: skip
        write_text_atomic(self.out / MANIFEST, json.dumps(manifest) + "\n")
        _clean(self.out, generation)


def first_rows(files: dict[str, dict]) -> dict[str, int]:
    """Each file's first row; rows lie in the order of the files' names."""
    rows, row = {}, 0
    for source, entry in sorted(files.items()):
        rows[source] = row
        row += entry["rows"]
    return rows


def _line(passage: Passage) -> bytes:
    return json.dumps(asdict(passage), ensure_ascii=False).encode() + b"\n"


def _flush(path: Path) -> None:
    """Wait until a file is on the disk: the manifest must not get there before what it names."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def write_words(texts: Sequence[str], folder: Path) -> None:
    """BM25's index of all passages. Each word's weight depends on all of them, so it is always made anew."""
    with progress(total=len(texts), desc="words", unit=" passages") as bar:

        def counted(text: str) -> list[str]:
            bar.update()
            return code_words(text)

        Bm25(texts, words=counted).save(folder)


# ---- approximate search ----------------------------------------------------------------------------------------------


def usearch_graph() -> type:
    try:
        from usearch.index import Index as Graph
    except ImportError:
        raise InputError("an approximate index needs usearch: pip install usearch, or give --exact") from None
    return Graph


def write_graph(vectors: Tensor, path: Path) -> None:
    """A graph of near neighbours (HNSW, arXiv 1603.09320), its own copy of the vectors in float16.

    What it finds is scored again with the vectors themselves, so a score does not depend on the way to it.
    """
    graph = usearch_graph()(ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=NEIGHBOURS,
                            expansion_add=ADDING)  # fmt: skip
    with progress(total=len(vectors), desc="graph", unit=" passages") as bar:
        for start in range(0, len(vectors), 16_384):
            part = vectors[start : start + 16_384]
            graph.add(torch.arange(start, start + len(part)).numpy(), part.numpy())
            bar.update(len(part))
    graph.save(str(path))


# ---- searching -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hit:
    passage: Passage
    score: float


@dataclass(frozen=True)
class Changes:
    """How many of the folder's files differ from the index, by name, size and time."""

    new: int
    changed: int
    gone: int

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone)


class Index:
    """An index opened for questions: vectors and graph are mapped from the disk, passages are read when they are found.

    Raises `InputError` where `folder` holds no index, or a broken one, and where `model` is not the one it was built
    with. Without `model` it takes vectors and, with `words`, questions.
    """

    def __init__(self, folder: str | Path, model: Embedder | None = None):
        self.folder, self.model = Path(folder), None
        self.manifest = self._open()
        self.approximate: bool = self.manifest["approximate"]
        self.has_words: bool = self.manifest.get("words", False)  # no index had them once
        self.seconds = dict(embedding=0.0, searching=0.0)  # of the last search
        if model is not None:
            self.use(model, self.manifest["model"]["name"])

    def use(self, model: Embedder, name: str) -> None:
        """Embed questions with `model`, which comes from `name`."""
        mend = "ask without --model, or build it again with --model and --anew"
        check_model(self.manifest, fingerprint(model), name, self.folder, mend)
        self.model = model

    def _open(self) -> dict:
        for _ in range(3):  # a build that ends just now replaces what the manifest named
            manifest = read_manifest(self.folder)
            if manifest is None:
                raise InputError(f"there is no index in {self.folder}; make one with `search build FOLDER --out INDEX`")
            try:
                self._open_generation(self.folder / manifest["generation"], manifest)
                return manifest
            except (OSError, SafetensorError, ValueError, RuntimeError) as error:
                if isinstance(error, InputError):
                    raise
                problem = str(error).splitlines()[0]
        raise InputError(f"the index {self.folder} is broken ({problem}); build it again with --anew")

    def _open_generation(self, generation: Path, manifest: dict) -> None:
        self.passages_file = open(generation / PASSAGES, "rb")
        with safe_open(generation / VECTORS, framework="pt") as file:
            self.vectors, self.offsets = file.get_tensor("vectors"), file.get_tensor("offsets").tolist()
        rows = {manifest["passages"], len(self.vectors), len(self.offsets) - 1}
        if len(rows) > 1 or os.fstat(self.passages_file.fileno()).st_size != self.offsets[-1]:
            raise ValueError("its parts do not belong together")
        self.graph = None
        if manifest["approximate"]:
            with contextlib.suppress(InputError):  # without usearch what is exact works all the same
                self.graph = usearch_graph().restore(str(generation / GRAPH), view=True)

    def __len__(self) -> int:
        return len(self.vectors)

    # ---- passages

    def lines(self, rows: Sequence[int]) -> Iterator[bytes]:
        for row in rows:
            self.passages_file.seek(self.offsets[row])
            yield self.passages_file.read(self.offsets[row + 1] - self.offsets[row])

    def passages(self, rows: Sequence[int] | None = None) -> list[Passage]:
        """Those of some rows, or all."""
        return [Passage(**json.loads(line)) for line in self.lines(range(len(self)) if rows is None else rows)]

    # ---- questions

    def search(
        self, question: str, k: int = 5, *, exact: bool = False, hybrid: bool = False, words: bool = False
    ) -> list[Hit]:
        """The k best passages, best first, or all where there are fewer. `exact` does without the graph.

        With `hybrid` the ranks by vectors and by words (BM25) are fused; the score is then the fused one. With `words`
        BM25 alone answers, no model is needed, and a passage that shares no word with the question is no hit. How long
        it took is in `.seconds`, how many questions the model had to cut (0 or 1) in `.model.cut`.
        """
        if not question.strip():
            raise InputError("the question is empty; ask something")
        start = time.perf_counter()
        vector = None if words else self.model.encode([question], kind="query")
        embedded = time.perf_counter()
        if words:
            found = self.by_words(question, k)
        elif hybrid:
            by_vectors = self.nearest(vector, max(k, FUSED), exact=exact)[1][0].tolist()
            found = fuse([by_vectors, [row for row, _ in self.by_words(question, max(k, FUSED))]], k)
        else:
            scores, rows = self.nearest(vector, k, exact=exact)
            found = list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
        hits = [Hit(passage, score) for passage, (_, score) in
                zip(self.passages([row for row, _ in found]), found, strict=True)]  # fmt: skip
        self.seconds = dict(embedding=embedded - start, searching=time.perf_counter() - embedded)
        return hits

    def nearest(self, questions: Tensor, k: int, *, exact: bool = False) -> tuple[Tensor, Tensor]:
        """(Q, D) -> (scores, rows), each (Q, k): the largest dot products, best first."""
        if k < 1:
            raise InputError(f"at least one passage must be asked for, not {k}")
        k = min(k, len(self))
        if exact or not self.approximate:
            return exact_top_k(questions, self.vectors, k)
        if self.graph is None:
            usearch_graph()  # says what is missing
        candidates = min(2 * k, len(self))
        self.graph.expansion_search = max(SEARCHING, 2 * candidates)
        scores, rows = [], []
        for question in questions:
            found = torch.from_numpy(self.graph.search(question.numpy(), candidates).keys.astype("int64"))
            if len(found) < k:  # a part of the graph that no path leads to
                return exact_top_k(questions, self.vectors, k)
            best = (self.vectors[found] @ question).topk(k)
            scores.append(best.values)
            rows.append(found[best.indices])
        return torch.stack(scores), torch.stack(rows)

    def by_words(self, question: str, k: int) -> list[tuple[int, float]]:
        """(row, score) of the k best by BM25, best first, without those that share no word with the question."""
        scores, rows = self.words.top_k([question], k)
        return [(row, score) for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True) if score > 0]

    @cached_property
    def words(self) -> Bm25:
        """BM25's index of the passages, opened when it is first asked for."""
        if not self.has_words:
            raise InputError(
                f"{self.folder} was built before indexes held words; "
                f"`search build {self.manifest['folder']} --out {self.folder}` adds them, and embeds nothing"
            )
        try:
            words = Bm25.load(self.folder / self.manifest["generation"] / WORDS)
            if words.size != len(self):
                raise ValueError("they are of other passages")
            return words
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = str(error).splitlines()[0]
            raise InputError(f"the words of {self.folder} do not open ({problem}); ask again if it was built just now, "
                             "else build it again with --anew") from None  # fmt: skip

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's. Questions that words alone answer need no more of it."""
        if self.model:
            return self.model.tokenizer
        return load_tokenizer(find_folder(model_name(self.manifest, self.folder)))

    # ---- the folder

    def changes(self) -> Changes | None:
        """What has changed in the folder since, judged without reading the files; None where it is gone."""
        files = self.manifest["files"]
        try:
            now = {file.source: file for file in list_files(self.manifest["root"], leave_out=self.folder)}
        except InputError:
            return None
        changed = sum((now[source].size, now[source].mtime_ns) != (entry["size"], entry["mtime_ns"])
                      for source, entry in files.items() if source in now)  # fmt: skip
        return Changes(len(now.keys() - files.keys()), changed, len(files.keys() - now.keys()))


def fuse(rankings: Sequence[Sequence[int]], k: int) -> list[tuple[int, float]]:
    """Reciprocal rank fusion (Cormack, Clarke and Buettcher 2009): each ranking gives 1 / (60 + rank) -> k best."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            scores[row] = scores.get(row, 0.0) + 1 / (RRF + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]
