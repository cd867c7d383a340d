"""What `search train` does: a table of questions and the texts that answer them -> a model for searching, judged.

    embedder   a vector a text             for `search build`
    late       a vector a token            late interaction
    reranker   query and text together     for `search ask --rerank`

Each is judged beside BM25 on held-out questions, which are searched for among all texts of the table.

Letters: Q questions, N different texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import find_folder, load
from ..errors import InputError
from ..intervals import bootstrap_interval
from ..retriever import Embedder, Retriever, TokenEmbedder
from ..retriever_folder import load_retriever, save_retriever
from ..runtime import default_dtype, prepare_output_folder, provenance, seed_everything, write_text_atomic
from .contrastive import ContrastiveSettings, train_retriever
from .finetune import check_model
from .forms import Task
from .launch import HELD_OUT
from .library import Pair
from .rag import CANDIDATES
from .ranking import Bm25, reciprocal_ranks
from .rerank import Reranker, RerankSettings, mine_negatives, train_reranker
from .table import read_file
from .trial import Trial, metrics, rank, rank_by_words

KINDS = ("embedder", "late", "reranker")
POOL = 16  # wrong texts mined for each question, of which a step draws some
SMALL = 512  # hidden size below which a model learns with the rate of the course's own


# ---- the pairs -------------------------------------------------------------------------------------------------------


def read_pairs(path: str | Path, columns: Sequence[str] = ("query", "document")) -> list[Pair]:
    """The rows of a table, each different pair once. Raises `InputError` where a column is missing or a cell empty."""
    if len(columns) != 2 or columns[0] == columns[1]:
        raise InputError(f"name two columns, the question's and the text's, not {' '.join(columns)}")
    rows = read_file(path, Task("pairs", tuple(columns), label=columns[1])).texts
    return [Pair(query, document, "", Path(path).name) for query, document in dict.fromkeys(rows)]


def split_pairs(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, held out): about `share` of the pairs held out, so that no question and no text lies on both sides.

    Pairs that share one go together, and so do those that hang together over others. Raises `InputError` where all do.
    """
    groups = connected(pairs)
    np.random.default_rng(seed).shuffle(groups)
    wanted, held = max(1, round(share * len(pairs))), []
    for group in groups[:-1]:
        if len(held) + len(group) <= wanted:
            held += group
    if not held:
        held = min(groups, key=len)
    if len(groups) < 2:
        raise InputError("no pairs can be held out, for all hang together by equal texts; give a file with --held-out")
    chosen = set(held)
    return [p for i, p in enumerate(pairs) if i not in chosen], [pairs[i] for i in sorted(held)]


def connected(pairs: Sequence[Pair]) -> list[list[int]]:
    """The numbers of pairs that share a question or a text, directly or over others, as one list each (union-find)."""
    parent = list(range(len(pairs)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, pair in enumerate(pairs):
        for text in (("query", pair.query), ("document", pair.document)):
            parent[root(i)] = root(first.setdefault(text, i))
    groups: dict[int, list[int]] = {}
    for i in range(len(pairs)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def _parts(data, held_out, columns: Sequence[str], seed: int) -> tuple[list[Pair], list[Pair]]:
    pairs = read_pairs(data, columns)
    if held_out is None:
        return split_pairs(pairs, HELD_OUT, seed)
    tested = read_pairs(held_out, columns)
    known = {pair.query for pair in pairs}
    again = sum(pair.query in known for pair in tested)
    if again:
        raise InputError(f"{again:,} held-out rows have a question that is in the training part; leave them out of one")
    return pairs, tested


# ---- judging ---------------------------------------------------------------------------------------------------------


def trial_of(train: Sequence[Pair], tested: Sequence[Pair]) -> Trial:
    """The questions of the held-out pairs, searched for among all texts of both parts."""
    documents = list(dict.fromkeys(pair.document for pair in [*tested, *train]))
    # Equal scores go to the lower number: in the order of the parts, the right texts would win every tie.
    np.random.default_rng(0).shuffle(documents)
    number = {document: i for i, document in enumerate(documents)}
    relevant: dict[str, set[int]] = {}
    for pair in tested:
        relevant.setdefault(pair.query, set()).add(number[pair.document])
    return Trial(list(relevant), documents, list(relevant.values()))


def judge(ranking: Tensor, trial: Trial) -> dict[str, float]:
    """The metrics of a ranking (Q, min(100, N)), and the 95 % interval of the first over questions."""
    low, high = bootstrap_interval(reciprocal_ranks(ranking, trial.relevant))
    return metrics(ranking, trial) | {"mrr@10 low": low, "mrr@10 high": high}


def rerank(reranker: Reranker, trial: Trial, first: Tensor) -> Tensor:
    """A first stage's ranking with its best in a new order; what was not read stays below."""
    best = reranker.rerank_indices(trial.queries, trial.documents, first[:, :CANDIDATES])[1]
    return torch.cat([best, first[:, CANDIDATES:]], dim=1)


# ---- training --------------------------------------------------------------------------------------------------------


def run_train(
    name: str, data: str | Path, out: str | Path, *, kind: str = "embedder", held_out=None,
    columns: Sequence[str] | None = None, rate: float | None = None, epochs: float | None = None,
    batch_size: int | None = None, max_length: int | None = None, negatives: int | None = None, seed: int | None = None,
    device: torch.device,
) -> list[dict]:  # fmt: skip
    """Train, judge and save -> the records. Raises `InputError` for bad input of any kind."""
    if kind not in KINDS:
        raise InputError(f"a model for searching is one of {', '.join(KINDS)}, not {kind!r}")
    if epochs is not None and not epochs > 0:
        raise InputError(f"--epochs must be above 0, not {epochs:g}")
    if negatives is not None and kind != "reranker":
        raise InputError("--negatives are a reranker's; the others take all other texts of the batch")
    columns, seed = columns or ("query", "document"), seed or 0
    train, tested = _parts(data, held_out, columns, seed)
    trial = trial_of(train, tested)
    first = rank_by_words(trial)
    rankings = {"BM25": judge(first, trial)}  # before training: a package that is missing is told at once
    out, dtype = prepare_output_folder(out), default_dtype(device)[0] if device.type == "cuda" else torch.float32
    given = dict(rate=rate, epochs=3 if epochs is None else epochs, batch_size=batch_size, max_length=max_length,
                 seed=seed, negatives=negatives)  # fmt: skip
    print(f"{len(train):,} pairs to train on, {len(tested):,} held out: {len(trial.queries):,} questions, "
          f"{len(trial.documents):,} texts to find theirs among", flush=True)  # fmt: skip
    work = _train_reranker if kind == "reranker" else _train_retriever
    settings, seconds, found = work(name, kind, train, trial, first, given, out, device, dtype)
    rankings |= found
    print(table(rankings))
    facts = provenance(device, kind=kind, model=str(name), pairs=len(train), held_out=len(tested), **vars(settings))
    records = [
        {**facts, "ranking": ranking, "what": what, "value": value, "unit": "share", "seconds": seconds}
        for ranking, found in rankings.items()
        for what, value in found.items()
    ]
    write_text_atomic(out / "results.json", json.dumps(records, indent=1) + "\n")
    print(f"kept: {out}")
    return records


def _train_retriever(name, kind, train, trial: Trial, first, given, out, device, dtype):
    model = open_retriever(name, kind, given["max_length"], given["seed"]).to(device)
    batch_size = min(64, len(train)) if given["batch_size"] is None else given["batch_size"]
    settings = ContrastiveSettings(
        rate=_rate(given, model), steps=_steps(given, train, batch_size), batch_size=batch_size,
        document_length=model.max_length, seed=given["seed"],
    )  # fmt: skip
    print(describe(settings), flush=True)
    before = judge(rank(model, trial, dtype=dtype, bar=True), trial)
    run = train_retriever(model, train, settings, device=device, dtype=dtype, label=kind)
    ranking = rank(model, trial, dtype=dtype, bar=True)
    print(f"trained in {run.seconds:.0f} s, {run.pairs_per_second:,.0f} pairs/s; "
          f"{model.cut:,} of {len(trial.documents):,} texts cut to {model.max_length:,} tokens")  # fmt: skip
    save_retriever(model, out)
    return settings, run.seconds, {"untrained": before, kind: judge(ranking, trial)}


def _train_reranker(name, kind, train, trial: Trial, first, given, out, device, dtype):
    pretrained, tokenizer = load(name)
    check_model(pretrained, tokenizer, name)
    batch_size = min(8, len(train)) if given["batch_size"] is None else given["batch_size"]
    longest = min(512, pretrained.config.max_position_embeddings)
    length = longest if given["max_length"] is None else given["max_length"]
    settings = RerankSettings(
        rate=_rate(given, pretrained), steps=_steps(given, train, batch_size), batch_size=batch_size,
        max_length=length, seed=given["seed"], negatives=3 if given["negatives"] is None else given["negatives"],
    )  # fmt: skip
    print(describe(settings), flush=True)
    documents = list(dict.fromkeys(pair.document for pair in train))
    found = Bm25(documents).top_k([pair.query for pair in train], CANDIDATES)[1]
    pool = max(settings.negatives, min(POOL, len(documents) // 2))
    wrong = mine_negatives(train, found, pool, documents, settings.seed)
    run = train_reranker(pretrained, tokenizer, train, settings, negatives=wrong, device=device, dtype=dtype)
    print(f"trained in {run.seconds:.0f} s, {run.examples / run.seconds:,.0f} pairs/s; "
          f"{run.cut:,} of {run.examples:,} pairs cut to {length:,} tokens")  # fmt: skip
    run.reranker.save(out)
    found = judge(rerank(run.reranker, trial, first), trial)
    return settings, run.seconds, {f"BM25, best {CANDIDATES} reranked": found}


def open_retriever(name: str, kind: str, max_length: int | None, seed: int) -> Retriever:
    """A retriever of this kind as it was trained so far, or a new one around a pretrained model's encoder.

    Texts are cut at `max_length` tokens; the default is the retriever's own, and 256 for a new one.
    """
    made, folder = Embedder if kind == "embedder" else TokenEmbedder, find_folder(name)
    if (folder / "modules.json").exists():
        retriever = load_retriever(folder, max_length=max_length)
        if isinstance(retriever, made):
            return retriever
    model, tokenizer = load(folder)
    check_model(model, tokenizer, name)
    longest = min(256, model.config.max_position_embeddings, tokenizer.max_length or 256)
    seed_everything(seed)  # late interaction's linear layer begins at random
    return made.from_pretrained(model, tokenizer, max_length=longest if max_length is None else max_length)


def _rate(given: dict, model) -> float:
    return (1e-3 if model.config.hidden_size < SMALL else 5e-5) if given["rate"] is None else given["rate"]


def _steps(given: dict, train: Sequence[Pair], batch_size: int) -> int:
    if batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, not {batch_size}")
    return math.ceil(given["epochs"] * len(train) / batch_size)


def describe(settings: ContrastiveSettings | RerankSettings) -> str:
    wrong = f", {settings.negatives} wrong texts each" if isinstance(settings, RerankSettings) else ""
    return f"learning rate {settings.rate:g}, {settings.steps:,} steps of {settings.batch_size} questions{wrong}"


def table(rankings: dict[str, dict[str, float]]) -> str:
    """One line a ranking; of the first metric the 95 % interval over the questions."""
    names = [name for name in next(iter(rankings.values())) if " " not in name]
    width = max(map(len, rankings))
    lines = [" " * width + f"  {names[0]:<20}" + "".join(f"{name:>12}" for name in names[1:])]
    for ranking, found in rankings.items():
        interval = f"{found[names[0]]:.3f} ({found[names[0] + ' low']:.3f}-{found[names[0] + ' high']:.3f})"
        lines.append(f"{ranking:<{width}}  {interval:<20}" + "".join(f"{found[name]:>12.3f}" for name in names[1:]))
    return "\n".join(lines)
