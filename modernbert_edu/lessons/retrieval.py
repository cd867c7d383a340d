"""What 12_retrieval measures, and its figures.

    data        make_data, pretrain_both, begin    pairs split by package, a tokenizer, two short MLM pretrainings
    problem     measure_cosines                    the angles between vectors before and after contrastive training
    training    train_all, train_late              one vector a text, from each start and seed; one vector a token
    tasks       judge_words, judge_prose,          what BM25 and the trained models find
                judge_modules, judge_hybrid
    cost        measure_cache, measure_search      gradient caching's memory; exact and approximate search
    RAG         build_index                        a small index
    reranking   order_task, fit_reranker,          which line sets a name: a cross-encoder over BM25's candidates
                judge_reranked
    in words    score_rows, verdicts               tables, and what can be said of the differences

The longer comparison, against the number of training pairs, is measure/retrieval_curve.py; `budget_lines` reads it.

Letters: Q questions, N texts, D size of a vector.
"""

from __future__ import annotations

import math
import random
import re
import shutil
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..beginning import new_model
from ..classroom.scale import RetrievalScale
from ..data.tokenizer import Tokenizer
from ..intervals import bootstrap_interval
from ..measure import plots
from ..measure import retrieval as shared
from ..measure import retrieval_curve as longer
from ..measure.memory import bytes_saved_for_backward, peak_memory
from ..measure.retrieval import LibraryData, RetrievalTask, metrics, rank
from ..measure.speed import time_interleaved
from ..model import MaskedLM
from ..retriever import Embedder, Retriever, TokenEmbedder
from ..runtime import progress
from ..tasks.contrastive import (
    ContrastiveSettings,
    cached_backward,
    embed,
    info_nce,
    plain_backward,
    score_matrix,
    train_retriever,
)
from ..tasks.index import Index, build, fuse, usearch_graph, write_graph
from ..tasks.library import Pair
from ..tasks.ranking import exact_top_k
from ..tasks.rerank import Reranker, RerankSettings, train_reranker
from .shared import side_of_zero, with_interval

MODELS = ("BERT", "ModernBERT")
MLM, RANDOM, RETRIEVER = "MLM", "random", "retriever"
START = RANDOM  # of the rows that are compared: after so short an MLM pretraining vectors are worse, not better
BM25, LATE, HYBRID, RERANKED = "BM25", "late interaction", "ModernBERT + BM25", "reranked"
CHANCE = "lines with the name, in any order"
CUT, CHUNKS, WHOLE = "beginning", "best chunk", "whole"
AT_ONCE, CACHED = "all at once", "cached"
TASKS = {"code": "code: docstring -> function", "prose": "prose: first sentence or heading -> the rest",
         "modules": "modules: what it says of itself -> the file"}  # fmt: skip
Trained = dict[tuple[str, str, int], Embedder]  # by model, start and seed


# ---- data and models -------------------------------------------------------------------------------------------------


def make_data(sizes: RetrievalScale) -> tuple[LibraryData, Tokenizer]:
    """Pairs and tasks that share no package, and a tokenizer learnt on the pairs to train on."""
    data = shared.library_data(
        per_package=sizes.functions_per_package, modules_per_package=sizes.modules_per_package, queries=sizes.questions,
        held_out_share=sizes.held_out_share, installed=sizes.installed, seed=sizes.seed,
        module_characters=sizes.module_characters,
    )  # fmt: skip
    tokenizer = shared.learn_tokenizer(data, sizes.vocab_size, sizes.tokenizer_characters, sizes.seed)
    long = first_of(data.tasks["modules"], sizes.modules)
    long = replace(long, documents=[clip(text, tokenizer, sizes.long_length) for text in long.documents])
    return replace(data, tasks={**data.tasks, "modules": long}), tokenizer


def first_of(task: RetrievalTask, count: int) -> RetrievalTask:
    """The first texts of a task whose text i answers question i, with their questions."""
    return replace(task, queries=task.queries[:count], documents=task.documents[:count], relevant=task.relevant[:count])


def clip(text: str, tokenizer: Tokenizer, tokens: int) -> str:
    """The beginning of a text, of at most so many tokens with [CLS] and [SEP]."""
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    return text if len(encoding) <= tokens - 2 else text[: encoding.offsets[tokens - 3][1]]


def lengths_in_words(task: RetrievalTask, tokenizer: Tokenizer) -> str:
    lengths = sorted(len(ids) for ids in tokenizer.encode_batch(task.documents))
    middle = lengths[len(lengths) // 2]
    return f"{len(lengths)} texts of {lengths[0]:,} to {lengths[-1]:,} tokens, median {middle:,};"


def preset_of(name: str, sizes: RetrievalScale) -> str:
    return {"BERT": sizes.bert_preset, "ModernBERT": sizes.modernbert_preset}[name]


def untrained(name: str, tokenizer: Tokenizer, sizes: RetrievalScale, seed: int) -> MaskedLM:
    """Random weights; BERT and ModernBERT have equally many parameters, within 1 %."""
    return new_model(preset_of(name, sizes), tokenizer, seed, like=sizes.bert_preset)


def pretrain_both(
    data: LibraryData, tokenizer: Tokenizer, sizes: RetrievalScale, device
) -> tuple[dict[str, MaskedLM], list[dict]]:
    """One short masked-LM pretraining of each model on the texts of the training pairs: -> (models, records)."""
    models, records = {}, []
    with progress(total=len(MODELS) * sizes.steps, desc="pretraining", unit="step") as bar:
        for name in MODELS:
            models[name] = untrained(name, tokenizer, sizes, sizes.seed)
            run = shared.pretrain_on(
                models[name], data, tokenizer, length=sizes.sequence_length, held_out=sizes.held_out_sequences,
                steps=sizes.steps, batch_size=sizes.batch_size, learning_rate=sizes.pretraining_rate,
                mask_rate=sizes.mask_rate, seed=sizes.seed, device=device, dtype=_dtype(sizes), label=name, bar=bar,
            )  # fmt: skip
            records.append(dict(what="pretrained_loss", value=run.held_out_loss, unit="nats", model=name,
                                tokens=run.tokens, seconds=run.seconds, seed=sizes.seed))  # fmt: skip
    return models, records


def begin(name: str, start: str, pretrained: dict[str, MaskedLM], tokenizer: Tokenizer, sizes, seed: int) -> Embedder:
    """An embedder with a copy of the pretrained weights, or with random ones of this seed."""
    model = pretrained[name] if start == MLM else untrained(name, tokenizer, sizes, seed)
    return Embedder.from_pretrained(model, tokenizer)


def _dtype(sizes: RetrievalScale) -> torch.dtype:
    return getattr(torch, sizes.dtype)


@contextmanager
def reading(model: Retriever, tokens: int) -> Iterator[Retriever]:
    """The model with a shorter longest length."""
    longest, model.max_length = model.max_length, min(tokens, model.max_length)
    try:
        yield model
    finally:
        model.max_length = longest


# ---- the angles between vectors --------------------------------------------------------------------------------------

BINS = 24  # of a histogram from the smallest cosine to the largest


@torch.no_grad()
def measure_cosines(model: Embedder, name: str, state: str, task: RetrievalTask, sizes: RetrievalScale) -> list[dict]:
    """Cosines of each question with its own text and with all others, and what the ranking by them is worth."""
    with reading(model, sizes.document_length):
        queries = model.encode(task.queries, "query", dtype=_dtype(sizes))
        documents = model.encode(task.documents, dtype=_dtype(sizes))
    cosines = queries @ documents.T
    own = torch.eye(len(queries), dtype=torch.bool)
    facts = dict(unit="cosine", model=name, state=state, task=task.name, seed=sizes.seed)
    records, low, high = [], cosines.min().item(), cosines.max().item()
    for pairs, chosen in (("own", cosines[own]), ("other", cosines[~own])):
        counts = torch.histc(chosen, BINS, low, high)
        records.append(dict(facts, what="cosine", pairs_of=pairs, value=chosen.mean().item(), n=len(chosen),
                            spread=chosen.std().item(), low=low, high=high, histogram=counts.tolist()))  # fmt: skip
    found = metrics(exact_top_k(queries, documents, shared.DEPTH)[1], task)
    return [*records, dict(facts, what="mrr_by_cosine", value=found["mrr@10"], unit="share")]


def cosine_rows(records: Sequence[dict]) -> list[tuple]:
    rows = []
    for record in records:
        if record["what"] == "mrr_by_cosine":
            key = record["model"], record["state"]
            own, other = (r for r in records if r["what"] == "cosine" and (r["model"], r["state"]) == key)
            gap = (own["value"] - other["value"]) / other["spread"]
            rows.append((*key, f"{own['value']:.3f}", f"{other['value']:.3f} ± {other['spread']:.3f}", f"{gap:.1f}",
                         f"{record['value']:.3f}"))  # fmt: skip
    return rows


COSINE_COLUMNS = ["model", "weights", "cosine with its own text", "with others (± std)", "gap / std", "MRR@10"]


# ---- training --------------------------------------------------------------------------------------------------------


def settings_for(name: str, seed: int, sizes: RetrievalScale, **changes) -> ContrastiveSettings:
    given = dict(
        rate=sizes.rate_of(name), steps=sizes.contrastive_steps, batch_size=sizes.contrastive_batch,
        temperature=sizes.temperature, query_length=sizes.query_length, document_length=sizes.document_length,
        seed=seed,
    )  # fmt: skip
    return ContrastiveSettings(**{**given, **changes})


def train_one(model: Retriever, name: str, start: str, settings, data: LibraryData, sizes, device) -> list[dict]:
    """One contrastive training: records of its losses and of what it finds in held-out code, on the way and at the end.

    The last record of mrr@10 holds the rank of the right text for each question.
    """
    task, last = data.tasks["code"], {}

    def evaluate(model: Retriever) -> dict[str, float]:
        with reading(model, sizes.document_length):
            ranking = rank(model, task, dtype=_dtype(sizes))
        last.update(ranks=ranks_of(ranking, task))
        return metrics(ranking, task)

    every = max(1, settings.steps // sizes.evaluations)
    label = name if start == "-" else f"{name}, {start}"
    run = train_retriever(model, data.train, settings, device=device, dtype=_dtype(sizes), label=label,
                          evaluate=evaluate, eval_every=every)  # fmt: skip
    records = [{**r, "model": name, "start": start, "task": "code", "way": "-"} for r in run.history]
    final = [r for r in records if r["what"] == "mrr@10"][-1]
    final.update(last)
    return records


def train_all(
    pretrained: dict[str, MaskedLM], data: LibraryData, tokenizer: Tokenizer, sizes: RetrievalScale, device
) -> tuple[list[dict], Trained]:
    """Each model from each start and seed, on the same pairs in the same order for the same seed.

    The starts that are compared have all seeds, the others the first: they take time and answer a smaller question.
    """
    records, trained = [], {}
    for name, start in sizes.runs:
        for seed in sizes.seeds if start == START else sizes.seeds[:1]:
            model = begin(name, start, pretrained, tokenizer, sizes, seed)
            records += train_one(model, name, start, settings_for(name, seed, sizes), data, sizes, device)
            trained[name, start, seed] = model
    return records, trained


def train_late(
    data: LibraryData, tokenizer: Tokenizer, sizes: RetrievalScale, device
) -> tuple[list[dict], TokenEmbedder]:
    """One vector a token, from the first seed's weights, with its pairs in the same order."""
    seed = sizes.seeds[0]
    lm = untrained("ModernBERT", tokenizer, sizes, seed)
    model = TokenEmbedder.from_pretrained(lm, tokenizer, dimension=sizes.late_dimension)
    settings = settings_for("ModernBERT", seed, sizes)
    return train_one(model, LATE, START, settings, data, sizes, device), model


# ---- what they find --------------------------------------------------------------------------------------------------


def ranks_of(ranking: Tensor, task: RetrievalTask) -> list[int]:
    """For each question the rank of the first right text, 0 where none is in the ranking."""
    return [
        next((place for place, text in enumerate(row, start=1) if text in right), 0)
        for row, right in zip(ranking.tolist(), task.relevant, strict=True)
    ]


def as_records(ranking: Tensor, task: RetrievalTask, **facts) -> list[dict]:
    """One record a metric; the one of mrr@10 holds the ranks."""
    records = [dict(what=what, value=value, unit="share", task=task.name, **{"way": "-", "start": "-", **facts})
               for what, value in metrics(ranking, task).items()]  # fmt: skip
    records[0]["ranks"] = ranks_of(ranking, task)
    return records


def judge_words(data: LibraryData, tokenizer: Tokenizer, sizes: RetrievalScale) -> list[dict]:
    """BM25 on all tasks: it reads all of each text, and code and prose also only as far as the models read them."""
    records = []
    for name, task in data.tasks.items():
        way = WHOLE if name == "modules" else "-"
        records += as_records(shared.rank_by_words(task), task, model=BM25, way=way, seed=sizes.seed)
        if name != "modules":
            read = [beginning(text, tokenizer, sizes.document_length - 2) for text in task.documents]
            ranking = shared.rank_by_words(replace(task, documents=read))
            records += as_records(ranking, task, model=BM25, way=CUT, seed=sizes.seed)
    return records


def beginning(text: str, tokenizer: Tokenizer, tokens: int) -> str:
    """As much of a text as its first tokens cover."""
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    return text if len(encoding) <= tokens else text[: encoding.offsets[tokens][0]]


def judge_prose(trained: Trained, data: LibraryData, sizes: RetrievalScale) -> list[dict]:
    records = []
    for (name, start, seed), model in trained.items():
        with reading(model, sizes.document_length):
            ranking = rank(model, data.tasks["prose"], dtype=_dtype(sizes))
        records += as_records(ranking, data.tasks["prose"], model=name, start=start, seed=seed)
    return records


def judge_modules(trained: Trained, data: LibraryData, sizes: RetrievalScale) -> list[dict]:
    """Whole modules three ways: their beginning, the best of their chunks, all at once where the model takes it."""
    task, records, dtype = data.tasks["modules"], [], _dtype(sizes)
    for (name, start, seed), model in trained.items():
        if start != START:
            continue
        facts = dict(model=name, start=start, seed=seed)
        with reading(model, sizes.chunk_length):
            records += as_records(rank(model, task, dtype=dtype), task, way=CUT, **facts)
            chunks = shared.rank_by_chunks(model, task, sizes.chunk_length - 2, dtype=dtype)
            records += as_records(chunks, task, way=CHUNKS, **facts)
        if model.max_length >= sizes.long_length:
            with reading(model, sizes.long_length):
                records += as_records(rank(model, task, dtype=dtype), task, way=WHOLE, **facts)
    return records


def judge_hybrid(trained: Trained, data: LibraryData, sizes: RetrievalScale) -> list[dict]:
    """Code by two rankings fused: the model's and BM25's."""
    task, records = data.tasks["code"], []
    words = shared.rank_by_words(task)
    for (name, start, seed), model in trained.items():
        if (name, start) != ("ModernBERT", START):
            continue
        with reading(model, sizes.document_length):
            vectors = rank(model, task, dtype=_dtype(sizes))
        both = [[text for text, _ in fuse([a, b], words.shape[1])]
                for a, b in zip(vectors.tolist(), words.tolist(), strict=True)]  # fmt: skip
        records += as_records(torch.tensor(both), task, model=HYBRID, start=start, seed=seed)
    return records


def budget_lines(records: Sequence[dict]) -> list[str]:
    """Of the recorded longer trainings: who passes BM25, after how many pairs, and how far from it each run ends."""
    run = next(r for r in records if r["model"] in MODELS)
    seen = max(r["pairs"] for r in records if r["model"] in MODELS)
    lines = [f"recorded on {run['device']}: {seen:,} pairs in a run, of {run['train_pairs']:,} different ones"]
    for task in longer.TASKS:
        lines.append(longer.describe(records, task))
        for name in MODELS:
            ends = [points[-1][1] - longer.words(records, task) for points in longer.curve(records, name, task)]
            if ends:
                lines.append(f"    {name} at the end, from BM25: {', '.join(f'{end:+.3f}' for end in ends)}")
    return lines


# ---- cost ------------------------------------------------------------------------------------------------------------


def measure_cache(model: Embedder, data: LibraryData, sizes: RetrievalScale, device) -> list[dict]:
    """Memory and seconds of one step's gradients against the batch size, all at once and through the cache.

    On CUDA the allocator's peak; elsewhere the bytes that autograd keeps at once: of a cached step those of its largest
    chunk, or of the loss.
    """
    records, dtype = [], _dtype(sizes)
    pairs = sorted(data.train, key=lambda pair: -len(pair.document))  # long texts, so that every batch is full
    model.to(device).train()

    def loss_of(q: Tensor, d: Tensor) -> Tensor:
        return info_nce(score_matrix(q, d), sizes.temperature)

    calls, sides = {}, {}
    for batch in sizes.cache_batches:
        queries = model.token_ids([p.query for p in pairs[:batch]], "query", sizes.query_length)
        documents = model.token_ids([p.document for p in pairs[:batch]], "document", sizes.document_length)
        sides[batch] = both = queries, documents
        calls[AT_ONCE, batch] = lambda s=both: plain_backward(model, s, loss_of, None, device, dtype)
        calls[CACHED, batch] = lambda s=both: cached_backward(model, s, loss_of, sizes.cache_chunk, device, dtype)
    budget = sizes.timing_budget * len(sizes.cache_batches)
    timings = time_interleaved(calls, device=device, repeats=sizes.timing_repeats, warmup=1, budget_seconds=budget)
    for (name, batch), call in calls.items():
        if device.type == "cuda":
            found, how = peak_memory(call, device).added, "peak allocated above what was allocated before"
        else:
            found = _kept(model, sides[batch], loss_of, sizes.cache_chunk if name == CACHED else None, dtype)
            how = "tensors kept for the backward pass at one time, without parameters"
        facts = dict(model=name, batch_size=batch, seed=sizes.seed)
        records.append(dict(facts, what="step_memory", value=found, unit="bytes", how=how))
        records.append(dict(facts, what="step_seconds", value=timings[name, batch].median, unit="s",
                            spread=timings[name, batch].spread, n=timings[name, batch].n))  # fmt: skip
    model.zero_grad(set_to_none=True)
    return records


def _kept(model: Embedder, sides, loss_of, chunk: int | None, dtype) -> int:
    """The most bytes that autograd keeps at one time."""
    known = [*model.parameters(), *model.buffers()]

    def kept(forward, exclude=known) -> int:
        return bytes_saved_for_backward(forward, exclude=exclude)

    if chunk is None:
        return kept(lambda: loss_of(*(embed(model, ids, model.device, dtype) for ids in sides)))
    vectors = [torch.randn(len(ids), model.dimension, device=model.device, requires_grad=True) for ids in sides]
    chunks = [ids[i : i + chunk] for ids in sides for i in range(0, len(ids), chunk)]
    of_chunks = [kept(lambda ids=ids: embed(model, ids, model.device, dtype)) for ids in chunks]
    of_loss = kept(lambda: loss_of(*vectors), exclude=vectors)
    return sum(vector.nbytes for vector in vectors) + max(*of_chunks, of_loss)


def measure_search(vectors: Tensor, sizes: RetrievalScale) -> list[dict]:
    """Seconds of an exact search for 10 of ever more vectors, and of an approximate one with what it finds.

    The vectors are those of real texts with noise of their own, so that near and far differ as they do among texts.
    """
    generator = torch.Generator().manual_seed(sizes.seed)

    def many(count: int) -> Tensor:
        chosen = vectors[torch.randint(len(vectors), (count,), generator=generator)]
        noise = torch.randn(chosen.shape, generator=generator) * 0.5 / vectors.shape[1] ** 0.5
        return torch.nn.functional.normalize(chosen + noise, dim=-1)

    queries, calls = many(20), {}
    for count in sizes.corpus_sizes:
        texts = many(count)
        calls["exact", count] = lambda d=texts: exact_top_k(queries[:1], d, 10)
    documents = many(sizes.graph_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.usearch"
        write_graph(documents, path)
        graph = usearch_graph().restore(str(path), view=False)
    calls["graph", sizes.graph_size] = lambda: graph.search(queries[0].numpy(), 10)
    budget = sizes.timing_budget * len(calls)
    timings = time_interleaved(calls, device="cpu", repeats=sizes.timing_repeats, budget_seconds=budget)
    facts = dict(dimension=vectors.shape[1], seed=sizes.seed)
    records = [dict(facts, what="search_seconds", value=timing.median, unit="s", spread=timing.spread, n=timing.n,
                    model=name, texts=count) for (name, count), timing in timings.items()]  # fmt: skip
    exact = exact_top_k(queries, documents, 10)[1].tolist()
    found = [set(graph.search(query.numpy(), 10).keys.tolist()) for query in queries]
    share = sum(len(a & set(b)) for a, b in zip(found, exact, strict=True)) / sum(map(len, exact))
    return [*records, dict(facts, what="graph_recall@10", value=share, unit="share", model="graph",
                           texts=sizes.graph_size)]  # fmt: skip


def storage_rows(tokens: float, dimension: int, late_dimension: int) -> list[tuple]:
    """Bytes of a text of so many tokens, as one vector and as one vector a token."""
    rows = []
    for name, numbers in ((f"one vector of {dimension}", dimension),
                          (f"{tokens:,.0f} vectors of {late_dimension}", tokens * late_dimension)):  # fmt: skip
        sizes = [int(numbers * width) for width in (4, 2)]
        rows.append((name, *sizes, f"{sizes[0] * 100_000 / 2**30:.2f}"))
    return rows


STORAGE_COLUMNS = ["a text is", "bytes, float32", "bytes, float16", "GiB for 100,000 texts, float32"]


# ---- RAG -------------------------------------------------------------------------------------------------------------


def build_index(model: Embedder, folder: str | Path, sizes: RetrievalScale) -> Index:
    """A few modules of the standard library, copied to `folder`, as an index there."""
    source, library = Path(sysconfig.get_path("stdlib")), Path(folder) / "library"
    library.mkdir()
    for name in sizes.rag_files:
        shutil.copy(source / name, library / name)
    build(library, Path(folder) / "index", model, "lesson 12", max_tokens=sizes.passage_length, approximate=False)
    return Index(Path(folder) / "index", model)


# ---- a task of order, for the reranker -------------------------------------------------------------------------------

PARTS = re.compile(r"\w+|[^\w\s]")  # names, numbers and signs


def assignments(texts: Sequence[str], longest: int) -> list[str]:
    """The lines `name = ...` of at most so many names and signs, each once.

    A space stands before every part, so that a name is the same tokens wherever it stands: only its place tells
    whether a line sets it or reads it.
    """
    found = {}
    for text in texts:
        for parts in map(PARTS.findall, text.splitlines()):
            if 4 <= len(parts) <= longest and parts[0].isidentifier() and parts[1] == "=" != parts[2]:
                found["".join(f" {part}" for part in parts)] = True
    return list(found)


def roles(lines: Sequence[str]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """For each name the numbers of the lines that set it, and of those that only read it."""
    sets, reads = defaultdict(list), defaultdict(list)
    for number, line in enumerate(lines):
        name, _, *rest = line.split()
        sets[name].append(number)
        for other in dict.fromkeys(rest):
            if other.isidentifier() and other != name:
                reads[other].append(number)
    return dict(sets), dict(reads)


def order_task(data: LibraryData, sizes: RetrievalScale) -> RetrievalTask:
    """Which lines set a name? Lines of held-out packages that stand in no training text as they are.

    Asked are names that no fewer lines read than set, so that a bag of words alone is often wrong.
    """
    known = set(training_lines(data, sizes))
    texts = data.tasks["code"].documents + data.tasks["modules"].documents
    lines = [line for line in assignments(texts, sizes.line_parts) if line not in known]
    sets, reads = roles(lines)
    names = [name for name in sets if len(reads.get(name, ())) >= len(sets[name])][: sizes.rerank_questions]
    packages = data.tasks["code"].packages | data.tasks["modules"].packages
    return RetrievalTask(name="rerank", queries=[f" {name}" for name in names], documents=lines,
                         relevant=[set(sets[name]) for name in names], packages=packages)  # fmt: skip


def lines_with(name: str, task: RetrievalTask, most: int = 4) -> list[int]:
    """The numbers of some lines that hold a name: those that set it, then those that read it."""
    sets, reads = roles(task.documents)
    half = most // 2
    return sets[name][:half] + reads[name][: most - half]


def training_lines(data: LibraryData, sizes: RetrievalScale) -> list[str]:
    return assignments([pair.document for pair in data.train], sizes.line_parts)


def fit_reranker(
    first: Embedder, data: LibraryData, task: RetrievalTask, sizes: RetrievalScale, device
) -> tuple[Reranker, list[dict]]:
    """A cross-encoder that begins with the first stage's encoder; its wrong texts read the name that is asked for."""
    lines = training_lines(data, sizes)
    sets, reads = roles(lines)
    asked = [(name, number) for name in sets if name in reads for number in sets[name]]
    pairs = [Pair(f" {name}", lines[number], "training", name) for name, number in asked]

    def wrong_lines(i: int, rng: random.Random) -> list[str]:
        name = pairs[i].source
        found = rng.sample(reads[name], min(settings.negatives, len(reads[name])))
        while len(found) < settings.negatives:  # read by too few lines: others fill up
            number = rng.randrange(len(lines))
            if number not in found and number not in sets[name]:
                found.append(number)
        return [lines[number] for number in found]

    def evaluate(reranker: Reranker) -> dict[str, float]:
        return {"mrr@10": metrics(rerank(reranker, task, shared.rank_by_words(task), sizes), task)["mrr@10"]}

    settings = RerankSettings(rate=sizes.rerank_rate, steps=sizes.rerank_steps, batch_size=sizes.rerank_batch,
                              max_length=sizes.rerank_length, seed=sizes.seed)  # fmt: skip
    run = train_reranker(first.encoder, first.tokenizer, pairs, settings, negatives=wrong_lines, device=device,
                         dtype=_dtype(sizes), label=RERANKED, evaluate=evaluate)  # fmt: skip
    losses = [r["value"] for r in run.history if r["what"] == "train_loss"]
    tenth = losses[-max(1, len(losses) // 10) :]
    before, after = (r["value"] for r in run.history if r["what"] == "mrr@10")
    record = dict(what="rerank_loss", value=sum(tenth) / len(tenth), unit="nats", first=losses[0], before=before,
                  after=after, model=RERANKED, task="rerank", pairs=run.examples, names=len(sets.keys() & reads),
                  seconds=run.seconds, seed=sizes.seed)  # fmt: skip
    return run.reranker, [record]


def learnt(record: dict) -> str:
    """What a reranker's training did, in a line."""
    loss = f"{record['value']:.2f} nats, that of four equal scores {math.log(4):.2f}"
    places = f"before training {record['before']:.3f}, after it {record['after']:.3f}"
    return f"mean loss of the last tenth of the steps: {loss}; MRR@10 of the reranked order {places}"


def rerank(reranker: Reranker, task: RetrievalTask, ranking: Tensor, sizes: RetrievalScale) -> Tensor:
    """A first stage's ranking (Q, K) with its best candidates in the reranker's order."""
    best, rest = ranking[:, : sizes.candidates], ranking[:, sizes.candidates :]
    return torch.cat([reranker.rerank_indices(task.queries, task.documents, best)[1], rest], dim=1)


DRAWS = 20  # random orders whose mean is called chance


def judge_reranked(reranker: Reranker, first: Embedder, task: RetrievalTask, sizes: RetrievalScale) -> list[dict]:
    """The task of order by words, by vectors, by words with the best candidates reranked, and by chance."""
    words, facts = shared.rank_by_words(task), dict(seed=sizes.seed)
    vectors = rank(first, task, dtype=_dtype(sizes))
    again = rerank(reranker, task, words, sizes)
    orders = any_orders(task, DRAWS)
    return [*as_records(words, task, model=BM25, **facts),
            *as_records(vectors, task, model="ModernBERT", start=START, **facts),
            *as_records(again, task, model=RERANKED, start=RETRIEVER, **facts),
            *(r for draw, order in enumerate(orders)
              for r in as_records(order, task, model=CHANCE, seed=draw))]  # fmt: skip


def any_orders(task: RetrievalTask, draws: int) -> list[Tensor]:
    """(Q, k) positions, drawn anew each time: first the lines that hold the question's name, then the others."""
    sets, reads = roles(task.documents)
    named = torch.zeros(len(task.queries), len(task.documents))
    for row, query in zip(named, task.queries, strict=True):
        row[[*sets[query.strip()], *reads[query.strip()]]] = 1
    generator, k = torch.Generator().manual_seed(0), min(shared.DEPTH, len(task.documents))
    return [(named + torch.rand(named.shape, generator=generator)).topk(k).indices for _ in range(draws)]


def sentence_transformer(folder: str | Path):
    """The folder as sentence-transformers opens it, on the CPU; None where that is not installed."""
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError:
        return None
    logging.disable_progress_bar()  # it would stand in the stored lesson
    return SentenceTransformer(str(folder), device="cpu")


# ---- tables and words ------------------------------------------------------------------------------------------------

SCORE_COLUMNS = ["model", "start", "reads", "MRR@10 [95 %]", "nDCG@10", "recall@10", "recall@100"]
Row = tuple[str, str, str]  # model, start, way


def finals(records: Sequence[dict], task: str) -> dict[Row, list[dict]]:
    """Each row of a task's table -> its records of mrr@10 with ranks, one a seed."""
    found: dict[Row, list[dict]] = {}
    for record in records:
        if record["what"] == "mrr@10" and record.get("ranks") and record["task"] == task:
            found.setdefault((record["model"], record["start"], record["way"]), []).append(record)
    return found


def reciprocals(records: Sequence[dict], k: int = 10) -> Tensor:
    """(Q,) reciprocal ranks, each the mean over the seeds."""
    ranks = torch.tensor([record["ranks"] for record in records], dtype=torch.float64)
    return torch.where((ranks > 0) & (ranks <= k), 1 / ranks.clamp(min=1), 0.0).mean(dim=0)


def score_rows(records: Sequence[dict], task: str) -> list[tuple]:
    """One row for each model, start and way of reading: means over the seeds, an interval over the questions."""
    rows = []
    for row, mine in finals(records, task).items():
        values = reciprocals(mine)
        low, high = bootstrap_interval(values.tolist())
        cells = [f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"]
        for what in ("ndcg@10", "recall@10", "recall@100"):
            cells.append(f"{_final(records, task, row, what):.3f}")
        rows.append((*row, *cells))
    return rows


def _final(records: Sequence[dict], task: str, row: Row, what: str) -> float:
    """The mean over the seeds of a metric at the end of training."""
    mine = [r for r in records if r["what"] == what and r.get("task") == task
            and (r["model"], r["start"], r["way"]) == row]  # fmt: skip
    last = {r["seed"]: r["value"] for r in sorted(mine, key=lambda r: r.get("step", 0))}
    return sum(last.values()) / len(last)


def difference(records: Sequence[dict], task: str, a: Row, b: Row) -> tuple[float, float, float] | None:
    """Mean difference in MRR@10 of two rows on the same questions, with its 95 % interval; None where one is missing.

    Only the seeds that both have count, where both have more than one.
    """
    found = finals(records, task)
    if a not in found or b not in found:
        return None
    first, second = found[a], found[b]
    common = {r["seed"] for r in first} & {r["seed"] for r in second}
    if not {BM25, CHANCE} & {a[0], b[0]}:  # these have no seeds of a training
        first, second = ([r for r in rows if r["seed"] in common] for rows in (first, second))
    values = reciprocals(first) - reciprocals(second)
    return values.mean().item(), *bootstrap_interval(values.tolist())


COMPARISONS: dict[str, list[tuple[str, Row, Row]]] = {
    "code": [
        ("ModernBERT against BERT", ("ModernBERT", START, "-"), ("BERT", START, "-")),
        ("ModernBERT against BM25", ("ModernBERT", START, "-"), (BM25, "-", "-")),
        ("BERT against BM25", ("BERT", START, "-"), (BM25, "-", "-")),
        ("ModernBERT, MLM start against random start", ("ModernBERT", MLM, "-"), ("ModernBERT", RANDOM, "-")),
        ("BERT, MLM start against random start", ("BERT", MLM, "-"), ("BERT", RANDOM, "-")),
        ("late interaction against one vector", (LATE, START, "-"), ("ModernBERT", START, "-")),
        ("late interaction against BM25", (LATE, START, "-"), (BM25, "-", "-")),
        ("ModernBERT and BM25 fused against BM25", (HYBRID, START, "-"), (BM25, "-", "-")),
        ("ModernBERT and BM25 fused against ModernBERT", (HYBRID, START, "-"), ("ModernBERT", START, "-")),
        ("ModernBERT against BM25 on as many tokens", ("ModernBERT", START, "-"), (BM25, "-", CUT)),
    ],
    "prose": [
        ("ModernBERT against BERT", ("ModernBERT", START, "-"), ("BERT", START, "-")),
        ("ModernBERT against BM25", ("ModernBERT", START, "-"), (BM25, "-", "-")),
        ("ModernBERT against BM25 on as many tokens", ("ModernBERT", START, "-"), (BM25, "-", CUT)),
        ("BERT against BM25", ("BERT", START, "-"), (BM25, "-", "-")),
        ("ModernBERT, MLM start against random start", ("ModernBERT", MLM, "-"), ("ModernBERT", RANDOM, "-")),
    ],
    "modules": [
        ("ModernBERT: whole against beginning", ("ModernBERT", START, WHOLE), ("ModernBERT", START, CUT)),
        ("ModernBERT: whole against best chunk", ("ModernBERT", START, WHOLE), ("ModernBERT", START, CHUNKS)),
        ("BERT: best chunk against beginning", ("BERT", START, CHUNKS), ("BERT", START, CUT)),
        ("ModernBERT whole against BERT, best chunk", ("ModernBERT", START, WHOLE), ("BERT", START, CHUNKS)),
        ("ModernBERT whole against BERT, beginning", ("ModernBERT", START, WHOLE), ("BERT", START, CUT)),
        ("ModernBERT whole against BM25", ("ModernBERT", START, WHOLE), (BM25, "-", WHOLE)),
    ],
    "rerank": [
        ("reranked against BM25, its first stage", (RERANKED, RETRIEVER, "-"), (BM25, "-", "-")),
        ("reranked against one vector", (RERANKED, RETRIEVER, "-"), ("ModernBERT", START, "-")),
        ("reranked against lines with the name in any order", (RERANKED, RETRIEVER, "-"), (CHANCE, "-", "-")),
    ],
}  # fmt: skip


def verdicts(records: Sequence[dict], task: str) -> list[str]:
    """Lines that the intervals decide."""
    lines = []
    for words, a, b in COMPARISONS[task]:
        found = difference(records, task, a, b)
        if found is not None:
            mean, low, high = found
            lines.append(f"{words}: {with_interval(mean, low, high)} MRR@10, {side_of_zero(low, high)}")
    return lines


def cache_rows(records: Sequence[dict]) -> list[tuple]:
    found = {(r["what"], r["model"], r["batch_size"]): r["value"] for r in records if "batch_size" in r}
    rows = []
    for batch in sorted({key[2] for key in found}):
        memory = [found["step_memory", name, batch] / plots.MIB for name in (AT_ONCE, CACHED)]
        seconds = [found["step_seconds", name, batch] for name in (AT_ONCE, CACHED)]
        rows.append((batch, *(f"{x:,.1f}" for x in memory), f"{seconds[1] / seconds[0]:.2f}"))
    return rows


CACHE_COLUMNS = ["pairs in a batch", "MiB, all at once", "MiB, cached", "seconds, cached / all at once"]


def search_rows(records: Sequence[dict]) -> list[tuple]:
    recall = {r["texts"]: r["value"] for r in records if r["what"] == "graph_recall@10"}
    return [(r["model"], r["texts"], f"{1000 * r['value']:.3f}",
             f"{recall[r['texts']]:.2f}" if r["model"] == "graph" else "1.00 by definition")
            for r in records if r["what"] == "search_seconds"]  # fmt: skip


SEARCH_COLUMNS = ["search", "texts", "milliseconds a question", "share of the exact ten found"]


# ---- figures ---------------------------------------------------------------------------------------------------------

LOOKS = {
    ("BERT", START): plots.STYLES["BERT"],
    ("ModernBERT", START): plots.STYLES["ModernBERT"],
    ("BERT", MLM): dict(color="#e8b866", linestyle=(0, (1, 1)), marker="D"),
    ("ModernBERT", MLM): plots.MORE_STYLES[2],
    (LATE, START): plots.MORE_STYLES[0],
}


@plots.style()
def plot_cosines(records: Sequence[dict]):
    """How near a question lies to its own text and to others: a panel for each model and its weights."""
    chosen = [r for r in records if r["what"] == "cosine"]
    models, states = (list(dict.fromkeys(r[key] for r in chosen)) for key in ("model", "state"))
    size = 4.0 * len(states), 2.5 * len(models) + 0.5
    figure, axes = plots.panels(*size, len(states), chosen, rows=len(models))
    for place, ax in enumerate(axes):
        model, state = models[place // len(states)], states[place % len(states)]
        mine = {r["pairs_of"]: r for r in chosen if (r["model"], r["state"]) == (model, state)}
        if not mine:
            ax.set_axis_off()
            continue
        low, high = mine["own"]["low"], mine["own"]["high"]
        edges = [low + i * (high - low) / BINS for i in range(BINS + 1)]
        shares = {name: [count / r["n"] for count in r["histogram"]] for name, r in mine.items()}
        ax.stairs(shares["other"], edges, fill=True, color="#bbbbbb", label="with other texts")
        ax.stairs(shares["own"], edges, color="black", linewidth=1.8, label="with its own text")
        ax.set_title(f"{model}, {state}")
        ax.ticklabel_format(axis="x", useOffset=False)  # cosines as they are, also where all are near 1
        ax.locator_params(axis="x", nbins=4 if high - low > 0.01 else 2)
        ax.set_ylabel("share of pairs")
        ax.set_ylim(bottom=0)
        ax.set_xlabel("cosine of a question")
    axes[0].legend(loc="upper left")
    return figure


@plots.style()
def plot_training(records: Sequence[dict]):
    """MRR@10 on held-out code against training pairs and seconds: a line a run, BM25's score across."""
    from matplotlib.ticker import EngFormatter

    chosen = [r for r in records if r["what"] == "mrr@10" and r.get("task") == "code"]
    figure, axes = plots.panels(12, 4.6, 2, chosen)
    for ax, x, label in ((axes[0], "pairs", "training pairs seen"), (axes[1], "seconds", "seconds of training")):
        for row, look in LOOKS.items():
            for number, seed in enumerate(sorted({r["seed"] for r in chosen})):
                mine = [r for r in chosen if (r["model"], r["start"], r["seed"]) == (*row, seed) and "step" in r]
                if mine:
                    name = ", ".join((row[0], f"from {'MLM' if row[1] == MLM else 'random'}")) if number == 0 else None
                    ax.plot([r[x] for r in mine], [r["value"] for r in mine], label=name,
                            markeredgecolor="white", alpha=0.9, **look)  # fmt: skip
        line = [r["value"] for r in chosen if r["model"] == BM25]
        if line:
            ax.axhline(line[0], color="black", linestyle=(0, (2, 2)), linewidth=1.2, label="BM25, no training")
        ax.set(xlabel=label, ylabel="MRR@10, held-out code")
        ax.set_ylim(0, 1.35 * ax.get_ylim()[1])  # room for the legend
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes[0].legend()
    axes[0].set_title("A line for each seed")
    axes[1].set_title("The same in time; pretraining and evaluations not counted")
    return figure


@plots.style()
def plot_scores(records: Sequence[dict]):
    """MRR@10 at the end, with intervals over the questions: a panel for each task."""
    chosen = [r for r in records if r["what"] == "mrr@10" and r.get("ranks") and r.get("task") in TASKS]
    tasks = [task for task in TASKS if finals(chosen, task)]
    figure, axes = plots.panels(5.2 * len(tasks), 4.4, len(tasks), chosen)
    for ax, task in zip(axes, tasks, strict=True):
        rows = finals(chosen, task)
        for place, (row, mine) in enumerate(rows.items()):
            values = reciprocals(mine)
            low, high = bootstrap_interval(values.tolist())
            look = LOOKS.get((row[0], row[1]), dict(color="black", marker="D"))
            mean = values.mean().item()
            error = [[mean - low], [high - mean]]
            ax.errorbar(mean, place, xerr=error, color=look["color"], marker=look["marker"], markersize=7, capsize=4,
                        linestyle="none", markeredgecolor="white")  # fmt: skip
            for record in mine if len(mine) > 1 else []:
                one = reciprocals([record]).mean().item()
                ax.plot(one, place - 0.25, marker="|", color=look["color"], markersize=9)
        names = [", ".join(part for part in row if part != "-") for row in rows]
        ax.set_yticks(range(len(rows)), names)
        ax.set_ylim(len(rows) - 0.4, -0.7)
        ax.set_xlim(left=0)
        ax.set_xlabel("MRR@10")
        ax.set_title(TASKS[task])
    return figure


@plots.style()
def plot_cost(records: Sequence[dict]):
    """Memory of a training step by batch size, its time, and the time of a search by the number of texts."""
    from matplotlib.ticker import EngFormatter, NullLocator

    chosen = [r for r in records if r["what"] in ("step_memory", "step_seconds", "search_seconds")]
    figure, axes = plots.panels(13.5, 4.4, 3, chosen)
    looks = dict(zip((AT_ONCE, CACHED, "exact", "graph"), plots.MORE_STYLES, strict=False))
    panels = [("step_memory", plots.MIB, "memory of a step (MiB)"), ("step_seconds", 1, "time of a step (s)")]
    for ax, (what, unit, label) in zip(axes[:2], panels, strict=True):
        for name in (AT_ONCE, CACHED):
            mine = [r for r in chosen if r["what"] == what and r["model"] == name]
            ax.plot([r["batch_size"] for r in mine], [r["value"] / unit for r in mine], label=name,
                    markersize=6, markeredgecolor="white", **looks[name])  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted({r["batch_size"] for r in chosen if "batch_size" in r}))
        ax.xaxis.set_major_formatter(plots.plain_number)
        ax.set(xlabel="pairs in a batch", ylabel=label)
        ax.set_ylim(bottom=0)
        ax.legend()
    axes[0].set_title("Gradient caching: memory")
    axes[1].set_title("... and what it costs in time")
    for name in ("exact", "graph"):
        mine = [r for r in chosen if r["what"] == "search_seconds" and r["model"] == name]
        axes[2].plot([r["texts"] for r in mine], [1000 * r["value"] for r in mine], label=name,
                     markersize=7, markeredgecolor="white", **looks[name])  # fmt: skip
    axes[2].set(xlabel="texts in the corpus", ylabel="time of a search (ms)", xscale="log", yscale="log")
    axes[2].set_xticks(sorted({r["texts"] for r in chosen if "texts" in r}))
    axes[2].xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes[2].xaxis.set_minor_locator(NullLocator())
    plots.ticks_within_decades(axes[2])
    axes[2].set_title("Ten best of N texts, one question")
    axes[2].legend()
    return figure


# Four questions against four texts; the right one stands on the diagonal.
TOY_SCORES = ((0.8, 0.3, 0.1, 0.2), (0.2, 0.6, 0.5, 0.1), (0.1, 0.4, 0.7, 0.0), (0.3, 0.2, 0.1, 0.4))


@plots.style()
def picture_softmax(temperature: float):
    """Four questions' scores, and what the softmax makes of each row at a temperature."""
    scores = torch.tensor(TOY_SCORES)
    shares = (scores / temperature).softmax(dim=1)
    loss = info_nce(scores, temperature).item()
    figure, axes = plots.panels(10.5, 4.2, 2)
    for number, (ax, matrix) in enumerate(zip(axes, (scores, shares), strict=True)):
        image = ax.imshow(matrix.numpy(), cmap="Greys", vmin=0, vmax=1)
        for row in range(4):
            for column in range(4):
                value = matrix[row, column].item()
                weight = "bold" if row == column else "normal"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontweight=weight,
                        color="white" if value > 0.55 else "black")  # fmt: skip
        ax.set_xticks(range(4), [f"text {i}" for i in range(4)])
        ax.set_yticks(range(4), [f"question {i}" for i in range(4)])
        words = "scores: cosines of questions and texts\nthe right text is on the diagonal"
        if number:
            words = f"softmax of each row at temperature {temperature:g}\nmean of -ln of the diagonal: {loss:.3f} nats"
        ax.set_title(words)
        plots.frame_image(ax)
        figure.colorbar(image, ax=ax, shrink=0.8, label="share of the row" if number else "cosine")
    return figure


@plots.style()
def picture_max_sim(query: Tensor, document: Tensor):
    """Every question token's match with every text token; the best of each row, which are added up, has a frame."""
    from matplotlib.patches import Rectangle

    matches = query @ document.T
    figure, (ax,) = plots.panels(5.4, 2.9, 1)
    image = ax.imshow(matches.numpy(), cmap="Greys", vmin=0, vmax=1)
    for row, line in enumerate(matches.tolist()):
        for column, value in enumerate(line):
            color = "white" if value > 0.55 else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
        best = max(range(len(line)), key=line.__getitem__)
        frame = Rectangle((best - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor="#7a4b6c", linewidth=3)
        ax.add_patch(frame)
    ax.set_xticks(range(document.shape[0]), [f"text token {i}" for i in range(document.shape[0])])
    ax.set_yticks(range(query.shape[0]), [f"question token {i}" for i in range(query.shape[0])])
    ax.set_title(f"framed: best of each row; their sum is {matches.amax(dim=1).sum():.2f}")
    plots.frame_image(ax)
    figure.colorbar(image, ax=ax, shrink=0.8, label="dot product")
    return figure


FIGURES = {
    "12_retrieval_cosines": plot_cosines,
    "12_retrieval_training": plot_training,
    "12_retrieval_scores": plot_scores,
    "12_retrieval_cost": plot_cost,
}
