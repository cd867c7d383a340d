"""What 11_finetuning measures, and its figures.

    tasks        make_tasks, make_text, make_facts   three tasks made of the library; the text that pretraining may see
    models       pretrain_both, begin                BERT and ModernBERT trained on that text, or left random
    baselines    measure_baselines                   the most frequent class, bags of words, shared words: whole, cut
    rates        measure_rates                       packages: each model, start and learning rate, from several seeds
    pairs        measure_pairs, measure_pooling      docstrings; the mean against [CLS]
    facts        measure_facts                       beginnings, windows and whole texts, by the place of the fact
    cost         measure_cost                        time and memory of a training step against length
    in words     score_rows, verdicts, ...           tables, and what can be said of the differences

Letters: D hidden, N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from ..classifier import POOLINGS, SequenceClassifier, pool
from ..classroom.scale import FinetuningScale
from ..config import EncoderConfig
from ..data.corpus import load_corpus
from ..data.prepared import TextData, prepare
from ..data.tokenizer import Tokenizer
from ..intervals import bootstrap_interval
from ..measure import plots
from ..measure.memory import Memory, training_memory
from ..measure.speed import time_interleaved, training_call
from ..model import MaskedLM
from ..runtime import progress
from ..tasks.finetune import Encoded, FineTuned, Settings, batch, encode, finetune, shorten
from ..tasks.library import library_files
from ..tasks.library_tasks import (
    NAMES,
    SENTENCE,
    FactTask,
    LibraryTask,
    docstring_task,
    fact_task,
    outside,
    package_task,
    source_of,
)
from ..tasks.windows import one_a_text, starts
from ..training.pretrain import autocast, train_mlm
from ..unpadding import Layout
from .shared import side_of_zero

MODELS = ("BERT", "ModernBERT")
PRETRAINED, RANDOM = "pretrained", "random"
STARTS = (PRETRAINED, RANDOM)
MAIN, OTHER = "mean", "cls"  # poolings: a model with so little pretraining learns sooner from the mean
MAJORITY, BAG, SHARED = "most frequent class", "bag of words", "shared words"
CUT = ", cut"  # added to a baseline's name: it reads no more of a text than the encoders do


# ---- tasks and text --------------------------------------------------------------------------------------------------


def make_tasks(sizes: FinetuningScale) -> tuple[LibraryTask, LibraryTask]:
    """(packages, docstrings) from the standard library."""
    files = library_files()
    return (
        package_task(files, sizes.packages, sizes.passage_lines, sizes.passage_counts, sizes.seed),
        docstring_task(files, sizes.functions_per_package, sizes.pair_counts, sizes.seed),
    )


def make_text(tasks: Sequence[LibraryTask], sizes: FinetuningScale) -> TextData:
    """What is left of the library when all files that a task holds out are taken away, and a tokenizer learnt on it."""
    corpus = load_corpus("python", seed=sizes.seed, max_characters=sizes.corpus_characters)
    return prepare(sizes, outside(corpus, frozenset().union(*(task.held_files for task in tasks))))


def make_facts(tasks: Sequence[LibraryTask], tokenizer: Tokenizer, sizes: FinetuningScale) -> FactTask:
    """Facts planted into files that no task holds out, for training, and into held-out ones, for testing."""
    held = frozenset().union(*(task.held_files for task in tasks))
    sides: tuple[list[Path], list[Path]] = ([], [])
    for _, path in library_files():
        sides[source_of(path) in held].append(path)
    lengths = sizes.fact_shortest, sizes.long_length
    return fact_task(*sides, tokenizer, lengths, sizes.fact_counts, sizes.seed, sizes.fact_files)


# ---- models ----------------------------------------------------------------------------------------------------------


def configs(sizes: FinetuningScale, tokenizer: Tokenizer) -> dict[str, EncoderConfig]:
    """BERT and ModernBERT with equally many parameters, within 0.5 %."""
    facts = dict(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    bert = EncoderConfig.preset(sizes.bert_preset, **facts)
    return {"BERT": bert, "ModernBERT": EncoderConfig.preset(sizes.modernbert_preset, **facts).matched_to(bert)}


def pretrain_both(data: TextData, sizes: FinetuningScale, device) -> tuple[dict[str, MaskedLM], list[dict]]:
    """One pretraining of each model, on the same sequences with the same masks: -> (models, records)."""
    models, records = {}, []
    with progress(total=len(MODELS) * sizes.steps, desc="pretraining", unit="step") as bar:
        for name, config in configs(sizes, data.tokenizer).items():
            torch.manual_seed(sizes.seed)
            models[name] = MaskedLM(config)
            run = train_mlm(
                models[name], data.train, data.held_out, data.tokenizer, steps=sizes.steps, batch_size=sizes.batch_size,
                learning_rate=sizes.pretraining_rate, mask_rate=sizes.mask_rate, seed=sizes.seed, device=device,
                dtype=getattr(torch, sizes.dtype), label=name, bar=bar,
            )  # fmt: skip
            records.append(dict(what="pretrained_loss", value=run.held_out_loss, unit="nats", model=name,
                                tokens=run.tokens, seconds=run.seconds, seed=sizes.seed))  # fmt: skip
    return models, records


def begin(start: str, pretrained: MaskedLM, seed: int) -> MaskedLM:
    """The pretrained model itself, or one of the same shape with random weights of this seed."""
    if start == PRETRAINED:
        return pretrained
    torch.manual_seed(seed)
    return MaskedLM(pretrained.config)


# ---- one fine-tuning -------------------------------------------------------------------------------------------------


@torch.no_grad()
def right_answers(model: SequenceClassifier, encoded: Encoded, pad_id: int, sizes: FinetuningScale) -> list[bool]:
    """For each text whether the model's class is the right one. As many texts at once as have `eval_tokens` tokens."""
    device, logits = next(model.parameters()).device, []
    order = sorted(range(len(encoded)), key=lambda i: len(encoded.input_ids[i]))
    rows = max(1, sizes.eval_tokens // max(map(len, encoded.input_ids)))
    model.eval()
    for start in range(0, len(order), rows):
        given = batch(encoded, order[start : start + rows], "classes", pad_id, device)
        del given["labels"]
        with autocast(device, getattr(torch, sizes.dtype)):
            logits.append(model(**given).logits.float().cpu())
    logits = torch.cat(logits)[torch.tensor(order).argsort()]
    labels = torch.tensor(encoded.answers)
    if encoded.owners is not None:  # windows: their logits are averaged
        logits, labels = one_a_text(logits, labels, torch.tensor(encoded.owners))
    return (logits.argmax(dim=-1) == labels).tolist()


def run_one(
    name: str, start: str, pretrained: MaskedLM, tokenizer: Tokenizer, task: LibraryTask | FactTask,
    settings: Settings, sizes: FinetuningScale, device,
) -> tuple[dict, FineTuned]:  # fmt: skip
    """One fine-tuning, its weights chosen on `dev`: -> (a record of what it does on `test`, the run)."""
    model = begin(start, pretrained, settings.seed)
    dtype = getattr(torch, sizes.dtype)
    run = finetune(model, tokenizer, task.task, task.train, task.dev, settings, device=device, dtype=dtype,
                   label=f"{name}, {start}")  # fmt: skip
    length = settings.max_length or model.config.max_position_embeddings
    test = encode(task.test, task.task, run.model.labels, tokenizer, length, settings.long, settings.stride)
    right = right_answers(run.model, test, tokenizer.pad_id, sizes)
    memory = _step_memory(run.model, tokenizer, task, settings, length, dtype)
    record = dict(
        what="test_accuracy", value=sum(right) / len(right), unit="share", model=name, start=start, task=task.task.name,
        pooling=settings.pooling, rate=settings.rate, max_length=length, seed=settings.seed, n=len(right),
        dev=run.metrics["accuracy"], seconds=run.seconds, memory=memory.bytes, memory_how=memory.how,
        right=_as_text(right),
    )  # fmt: skip
    return record, run


def _step_memory(model, tokenizer, task, settings: Settings, length: int, dtype) -> Memory:
    """What a training step needs for the first batch of training rows, windows or texts."""
    part = task.train.take(range(min(settings.batch_size, len(task.train))))
    encoded = encode(part, task.task, model.labels, tokenizer, length, settings.long, settings.stride)
    rows, device = range(min(settings.batch_size, len(encoded))), next(model.parameters()).device
    given = batch(encoded, rows, "classes", tokenizer.pad_id, device)
    with autocast(device, dtype):
        return training_memory(model, given["input_ids"], given["attention_mask"], given["labels"])


def _as_text(right: Sequence[bool]) -> str:
    """One digit a text: so the records keep which texts were right, and differences can be taken text by text."""
    return "".join(str(int(one)) for one in right)


def _settings(sizes: FinetuningScale, task: str, **changes) -> Settings:
    given = dict(weight_decay=sizes.weight_decay, batch_size=sizes.finetuning_batch, evaluations=1, pooling=MAIN)
    given["max_length"] = read_length(task, sizes)
    given["epochs"] = {"package": sizes.passage_epochs, "docstring": sizes.pair_epochs, "fact": 1}[task]
    return Settings(**{**given, **changes})


def read_length(task: str, sizes: FinetuningScale) -> int:
    """Tokens, special ones included, that an encoder reads of a text of this task, unless it reads all or windows."""
    return {"package": sizes.passage_length, "docstring": sizes.pair_length, "fact": sizes.short_length}[task]


# ---- baselines -------------------------------------------------------------------------------------------------------


def measure_baselines(task: LibraryTask | FactTask, tokenizer: Tokenizer, sizes: FinetuningScale) -> list[dict]:
    """What needs no network: records like those of a fine-tuning, with "start" naming nothing.

    Each is trained and tested twice: on whole texts, and (with `CUT` in its name) on the first tokens of each, as many
    as an encoder reads of this task.
    """
    train, test = task.train, task.test
    most = max(sorted(set(train.answers)), key=train.answers.count)
    said = {MAJORITY: [most] * len(test)}
    whole = bags(train.texts, train.answers, test.texts)
    length = read_length(task.task.name, sizes)
    cut = bags(first_tokens(train.texts, tokenizer, length), train.answers, first_tokens(test.texts, tokenizer, length))
    for name in whole:
        said |= {name: whole[name], name + CUT: cut[name]}
    records = []
    for name, answers in said.items():
        right = [a == b for a, b in zip(answers, test.answers, strict=True)]
        records.append(dict(what="test_accuracy", value=sum(right) / len(right), unit="share", model=name, start="-",
                            task=task.task.name, pooling="-", n=len(right), seed=sizes.seed,
                            right=_as_text(right)))  # fmt: skip
    return records


def bags(train: Sequence[tuple], answers: Sequence[str], test: Sequence[tuple]) -> dict[str, Sequence[str]]:
    """{baseline: what it says of each test text}, learnt from the training texts, each a tuple of one or two.

    The bag of words is a logistic regression on tf-idf over words, names and the two joined texts of a pair. For pairs
    there is one more: a logistic regression on a single number, the cosine of the two texts' tf-idf vectors.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    joined = [[" ".join(text) for text in texts] for texts in (train, test)]
    words = TfidfVectorizer(token_pattern=WORD, sublinear_tf=True)
    classifier = LogisticRegression(max_iter=1000, C=10.0)
    said = {BAG: classifier.fit(words.fit_transform(joined[0]), answers).predict(words.transform(joined[1]))}
    if len(train[0]) == 2:
        single = LogisticRegression().fit(_cosines(words, train), answers)
        said[SHARED] = single.predict(_cosines(words, test))
    return said


def first_tokens(texts: Sequence[tuple], tokenizer: Tokenizer, length: int) -> list[tuple]:
    """The same texts or pairs, each cut as `encode` cuts it for an encoder that reads `length` tokens."""
    cut = []
    for text in texts:
        ids = tokenizer.encode_batch(text, add_special_tokens=False)
        kept = shorten(ids, length - 1 - len(ids))  # [CLS], and a [SEP] behind each
        cut.append(tuple(tokenizer.decode(one, skip_special_tokens=False) for one in kept))
    return cut


# Letters only, so an identifier is taken apart at its underscores: split_by_file is three words.
WORD = r"[a-z]+"


def _cosines(words, texts: Sequence[tuple[str, str]]):
    """(N, 1): tf-idf vectors have length one, so the product is the cosine."""
    left, right = (words.transform([pair[k] for pair in texts]) for k in (0, 1))
    return np.asarray(left.multiply(right).sum(axis=1)).reshape(-1, 1)


# ---- the two short tasks ---------------------------------------------------------------------------------------------


def measure_rates(
    models: dict[str, MaskedLM], tokenizer: Tokenizer, task: LibraryTask, sizes: FinetuningScale, device
) -> list[dict]:
    """Packages: each model from its pretrained and from random weights: every learning rate with the first seed, the
    other seeds at the rate that was best."""
    records: list[dict] = []

    def run(name: str, start: str, rate: float, seed: int) -> None:
        settings = _settings(sizes, "package", rate=rate, seed=seed)
        records.append(run_one(name, start, models[name], tokenizer, task, settings, sizes, device)[0])

    for name in models:
        for start in STARTS:
            for rate in sizes.rates:
                run(name, start, rate, sizes.seeds[0])
            for seed in sizes.seeds[1:]:
                run(name, start, best_rate(records, name, start), seed)
    return records


def best_rate(records: Sequence[dict], model: str, start: str) -> float:
    """The learning rate with the highest accuracy on `dev`, with the first seed; the test part has no say."""
    mine = _tests(records, task="package", model=model, start=start, pooling=MAIN)
    first = min(r["seed"] for r in mine)
    found = {r["rate"]: r["dev"] for r in mine if r["seed"] == first}
    return max(sorted(found), key=found.__getitem__)


def measure_pooling(
    records: Sequence[dict], models: dict[str, MaskedLM], tokenizer: Tokenizer, task: LibraryTask,
    sizes: FinetuningScale, device,
) -> list[dict]:  # fmt: skip
    """Packages once more, pooled at [CLS], at the rate that was best for the mean."""
    found = []
    for name, model in models.items():
        for seed in sizes.pooling_seeds:
            rate = best_rate(records, name, PRETRAINED)
            settings = _settings(sizes, "package", rate=rate, seed=seed, pooling=OTHER)
            found.append(run_one(name, PRETRAINED, model, tokenizer, task, settings, sizes, device)[0])
    return found


def measure_pairs(
    records: Sequence[dict], models: dict[str, MaskedLM], tokenizer: Tokenizer, task: LibraryTask,
    sizes: FinetuningScale, device,
) -> list[dict]:  # fmt: skip
    """Docstrings: each model and start, each seed, at the learning rate that was best for packages."""
    found = []
    for name, model in models.items():
        for start in sizes.pair_starts:
            for seed in sizes.pair_seeds:
                rate = best_rate(records, name, start)
                settings = _settings(sizes, "docstring", rate=rate, seed=seed)
                found.append(run_one(name, start, model, tokenizer, task, settings, sizes, device)[0])
    return found


# ---- the long task ---------------------------------------------------------------------------------------------------


def measure_facts(
    models: dict[str, MaskedLM], tokenizer: Tokenizer, task: FactTask, sizes: FinetuningScale, device
) -> list[dict]:
    """Facts: four ways to read the same texts, in the same order: records by run, and by the place of the fact.

    Both models read the beginning, as many tokens as `short_length`; ModernBERT reads it all, in windows of that length
    or at once. The field "reader" names the way.
    """
    short, long = sizes.short_length, sizes.long_length
    runs = [
        (f"BERT, first {short:,}", "BERT", short, "cut"),
        (f"ModernBERT, first {short:,}", "ModernBERT", short, "cut"),
        (f"ModernBERT, windows of {short:,}", "ModernBERT", short, "windows"),
        (f"ModernBERT, all {long:,}", "ModernBERT", long, "cut"),
    ]
    records = []
    for reader, name, length, way in runs:
        for seed in sizes.fact_seeds:
            settings = _settings(sizes, "fact", rate=sizes.fact_rate_of(name), batch_size=sizes.fact_batch,
                                 max_length=length, long=way, stride=sizes.window_stride, seed=seed)  # fmt: skip
            record, _ = run_one(name, PRETRAINED, models[name], tokenizer, task, settings, sizes, device)
            records.append(dict(record, reader=reader))
    return records + by_place(records, task.places, sizes)


def by_place(records: Sequence[dict], places: Sequence[int], sizes: FinetuningScale) -> list[dict]:
    """The share of right answers by the place of the fact, in bins of equal width, over all seeds of a run."""
    width, found = sizes.long_length / sizes.place_bins, []
    for (reader, pooling), mine in fact_runs(records).items():
        for number in range(sizes.place_bins):
            inside = [i for i, place in enumerate(places) if number * width <= place < (number + 1) * width]
            right = [r["right"][i] == "1" for r in mine for i in inside]
            if right:
                found.append(dict(what="fact_accuracy", value=sum(right) / len(right), unit="share", reader=reader,
                                  model=mine[0]["model"], pooling=pooling, max_length=mine[0]["max_length"],
                                  place=(number + 0.5) * width, n=len(right), length=sizes.long_length,
                                  short=sizes.short_length))  # fmt: skip
    return found


def within(records: Sequence[dict], places: Sequence[int], short: int) -> dict[bool, float]:
    """{whether the fact stands within the first `short` tokens: the share of right answers of these records}."""
    shares = {}
    for inside in (True, False):
        right = [r["right"][i] == "1" for r in records for i, place in enumerate(places) if (place < short) == inside]
        shares[inside] = sum(right) / len(right) if right else float("nan")
    return shares


def whole_in_a_window(task: FactTask, tokenizer: Tokenizer, sizes: FinetuningScale) -> list[bool]:
    """For each test text whether the whole fact stands in one window at least, and is not cut in all of them."""
    room, found = sizes.short_length - 2, []
    for (text,) in task.test.texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        begin, end = (len(tokenizer.encode(text[:at], add_special_tokens=False)) for at in fact_characters(text))
        windows = starts(len(ids), room, sizes.window_stride)
        found.append(any(at <= begin and end <= at + room for at in windows))
    return found


def fact_characters(text: str) -> tuple[int, int]:
    """(first, last + 1): where the line of the fact stands in a text, in characters, its line end not counted."""
    begin = text.index(SENTENCE.partition("{")[0])
    return begin, text.index("\n", begin)


# ---- cost ------------------------------------------------------------------------------------------------------------


def measure_cost(tokenizer: Tokenizer, sizes: FinetuningScale, device) -> list[dict]:
    """Seconds and memory of one training step, forward and backward, on one text of each length, both in turns.

    BERT's table of positions gets the rows that the longest text needs: looking one up costs the same in any table.
    """
    longest, dtype = max(sizes.cost_lengths), getattr(torch, sizes.dtype)
    generator, records = torch.Generator().manual_seed(sizes.seed), []
    found = {name: config.replace(max_position_embeddings=longest) for name, config in
             configs(sizes, tokenizer).items()}  # fmt: skip
    models = {name: SequenceClassifier(config, ["no", "yes"]).to(device) for name, config in found.items()}
    for length in progress(sizes.cost_lengths, desc="lengths"):
        ids = torch.randint(5, tokenizer.vocab_size, (1, length), generator=generator).to(device)
        labels = torch.zeros(1, dtype=torch.long, device=device)
        with autocast(device, dtype):
            times = time_interleaved(
                {name: training_call(model, ids, None, labels) for name, model in models.items()}, device=device,
                repeats=sizes.timing_repeats, warmup=1, budget_seconds=sizes.timing_budget,
            )  # fmt: skip
            kept = {name: training_memory(model, ids, None, labels) for name, model in models.items()}
        for name in models:
            facts = dict(model=name, length=length, seed=sizes.seed)
            records += [
                dict(what="step_seconds", value=times[name].median, spread=times[name].spread, n=times[name].n,
                     unit="s") | facts,
                dict(what="step_bytes", value=kept[name].bytes, unit="bytes", how=kept[name].how) | facts,
            ]  # fmt: skip
    return records


# ---- in words --------------------------------------------------------------------------------------------------------

SCORE_COLUMNS = (
    "model",
    "start",
    "pooling",
    "learning rate",
    "right on test",
    "by seed",
    "training (s)",
    "a step (MiB)",
)
FACT_COLUMNS = ("reader", "pooling", "learning rate", "right on test", "fact among the first tokens",
                "fact behind them", "training (s)", "a step (MiB)")  # fmt: skip
COST_COLUMNS = ("tokens", "BERT, ms", "ModernBERT, ms", "ratio of times", "BERT, MiB", "ModernBERT, MiB",
                "ratio of memory")  # fmt: skip


def _tests(records: Sequence[dict], **wanted) -> list[dict]:
    return [r for r in records if r["what"] == "test_accuracy" and all(r.get(k) == v for k, v in wanted.items())]


def chosen(records: Sequence[dict], task: str, model: str, start: str = "-", pooling: str = "-") -> list[dict]:
    """The runs, one a seed, that a table or a verdict speaks of: at the rate that is best on `dev` for packages."""
    mine = _tests(records, task=task, model=model, start=start, pooling=pooling)
    if task == "package" and start != "-":
        rate = best_rate(records, model, start)
        mine = [r for r in mine if r["rate"] == rate]
    return mine


def runs_of(records: Sequence[dict], task: str) -> list[tuple[str, str, str]]:
    """(model, start, pooling) of every run of a task, baselines first."""
    found = dict.fromkeys((r["model"], r["start"], r["pooling"]) for r in _tests(records, task=task))
    return sorted(found, key=lambda run: run[1] != "-")


def score_rows(records: Sequence[dict], task: str) -> list[tuple]:
    """One row for each baseline, and for each model, start and pooling of a task."""
    rows = []
    for run in runs_of(records, task):
        mine = chosen(records, task, *run)
        values = [r["value"] for r in mine]
        if run[1] == "-":
            rows.append((*run, "-", f"{values[0]:.1%}", "-", "-", "-"))
            continue
        seeds = ", ".join(f"{value:.1%}" for value in values)
        rows.append((*run, f"{mine[0]['rate']:g}", f"{fmean(values):.1%}", seeds,
                     f"{fmean(r['seconds'] for r in mine):.1f}", f"{mine[0]['memory'] / plots.MIB:,.1f}"))  # fmt: skip
    return rows


def difference(mine: Sequence[dict], theirs: Sequence[dict]) -> tuple[float, float, float]:
    """(mean, low, high) of the share of right answers, `mine` minus `theirs`: 95 % bootstrap over the test texts.

    Each text counts with its mean over the seeds, and both sides are compared on the same texts.
    """
    shares = [[fmean(r["right"][i] == "1" for r in side) for i in range(len(side[0]["right"]))]
              for side in (mine, theirs)]  # fmt: skip
    gaps = [a - b for a, b in zip(*shares, strict=True)]
    return (fmean(gaps), *bootstrap_interval(gaps))


def verdict(mine: Sequence[dict], theirs: Sequence[dict]) -> str:
    """The difference in points, its interval, and "more" or "fewer" where the whole interval is on one side of 0."""
    mean, low, high = difference(mine, theirs)
    words = side_of_zero(low, high, above="more right", below="fewer right")
    return f"{100 * mean:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], {words}"


def comparisons(task: str) -> list[tuple[str, tuple, tuple]]:
    """What is compared in a task: (words, run, run)."""
    best = SHARED if task == "docstring" else BAG
    found = []
    for name in MODELS:
        mine = (name, PRETRAINED, MAIN)
        found.append((f"{name}, pretrained against random", mine, (name, RANDOM, MAIN)))
        found += [(f"{name}, pretrained, against {one}", mine, (one,)) for one in (best, best + CUT)]
        found.append((f"{name}, pretrained, against guessing", mine, (MAJORITY,)))
        if task == "package":
            found.append((f"{name}, pretrained, mean against [CLS]", mine, (name, PRETRAINED, OTHER)))
    return [*found, ("ModernBERT against BERT, pretrained", *((name, PRETRAINED, MAIN) for name in MODELS[::-1]))]


def verdicts(records: Sequence[dict], task: str) -> list[str]:
    """Lines that the intervals decide."""
    lines = []
    for words, run, other in comparisons(task):
        mine, theirs = _same_seeds(chosen(records, task, *run), chosen(records, task, *other))
        if mine and theirs:
            lines.append(f"{words}: {verdict(mine, theirs)}")
    return lines


def _same_seeds(mine: list[dict], theirs: list[dict]) -> tuple[list[dict], list[dict]]:
    """Where one side ran with fewer seeds, both without the seeds that only one has. A baseline depends on no seed."""
    if any(r["start"] == "-" for r in theirs):
        return mine, theirs
    shared = {r["seed"] for r in mine} & {r["seed"] for r in theirs}
    return tuple([r for r in side if r["seed"] in shared] for side in (mine, theirs))


def fact_runs(records: Sequence[dict]) -> dict[tuple[str, str], list[dict]]:
    """{(reader, pooling): its records by seed} of the long task, without baselines."""
    found: dict[tuple[str, str], list[dict]] = {}
    for r in _tests(records, task="fact"):
        if r["start"] != "-":
            found.setdefault((r["reader"], r["pooling"]), []).append(r)
    return found


def fact_rows(records: Sequence[dict], places: Sequence[int], short: int) -> list[tuple]:
    """One row for each baseline and run of the long task: all texts, and apart by where the fact stands."""
    rows = []
    baselines = {(r["model"], "-"): [r] for r in _tests(records, task="fact", start="-")}
    for (reader, pooling), mine in (baselines | fact_runs(records)).items():
        shares = within(mine, places, short)
        rate, *cost = ("-", "-", "-") if pooling == "-" else (
            f"{mine[0]['rate']:g}", f"{fmean(r['seconds'] for r in mine):.0f}",
            f"{mine[0]['memory'] / plots.MIB:,.0f}")  # fmt: skip
        rows.append((reader, pooling, rate, f"{fmean(r['value'] for r in mine):.0%}", f"{shares[True]:.0%}",
                     f"{shares[False]:.0%}", *cost))  # fmt: skip
    return rows


def fact_verdicts(records: Sequence[dict]) -> list[str]:
    """All tokens against the first ones and against windows, and windows against the first ones."""
    runs = fact_runs(records)
    names = list(dict.fromkeys(reader for reader, _ in runs))
    first, windows, whole = (next(name for name in names if f"ModernBERT, {word}" in name)
                             for word in ("first", "windows", "all"))  # fmt: skip
    pairs = [(whole, first), (whole, windows), (windows, first)]
    return [f"{a} against {b}: {verdict(runs[a, MAIN], runs[b, MAIN])}" for a, b in pairs]


def cost_rows(records: Sequence[dict]) -> list[tuple]:
    """One row for each length: time and memory of a training step, and ModernBERT's divided by BERT's."""
    value = {(r["what"], r["model"], r["length"]): r["value"] for r in records if r["what"].startswith("step_")}
    rows = []
    for n in sorted({length for *_, length in value}):
        seconds = [value["step_seconds", name, n] for name in MODELS]
        memory = [value["step_bytes", name, n] for name in MODELS]
        rows.append((f"{n:,}", *(f"{1000 * s:,.0f}" for s in seconds), f"{seconds[1] / seconds[0]:.2f}",
                     *(f"{m / plots.MIB:,.1f}" for m in memory), f"{memory[1] / memory[0]:.2f}"))  # fmt: skip
    return rows


# ---- figures ---------------------------------------------------------------------------------------------------------

# Not the models' own looks, as a panel shows one model twice. Dark against light, for a grey printer.
START_LOOKS = {PRETRAINED: plots.MORE_STYLES[1], RANDOM: plots.MORE_STYLES[2]}


def _level(ax, value: float, words: str, linestyle, named: bool, va: str = "center") -> None:
    """A line across, named to the right of the axes where it is `named`."""
    ax.axhline(value, color="black", linewidth=0.9, linestyle=linestyle)
    if named:
        ax.annotate(words, (1.01, value), xycoords=("axes fraction", "data"), fontsize=8, va=va)


@plots.style()
def plot_rates(records: Sequence[dict]):
    """Packages: test accuracy against the learning rate, a point a seed and a line through their means."""
    sweep = [r for r in _tests(records, task="package", pooling=MAIN) if r["start"] != "-"]
    figure, axes = plots.panels(11, 4.4, len(MODELS), sweep, sharey=True)
    for ax, name in zip(axes, MODELS, strict=True):
        for start, size in zip(STARTS, (9, 5), strict=True):  # a point under another is still seen
            mine = [r for r in sweep if (r["model"], r["start"]) == (name, start)]
            rates, look = sorted({r["rate"] for r in mine}), START_LOOKS[start]
            means = [100 * fmean(r["value"] for r in mine if r["rate"] == rate) for rate in rates]
            ax.plot(rates, means, color=look["color"], linestyle=look["linestyle"])
            ax.plot([r["rate"] for r in mine], [100 * r["value"] for r in mine], linestyle="", color=look["color"],
                    marker=look["marker"], markersize=size, markeredgecolor="white")  # fmt: skip
            ax.plot([], [], **look, label=f"{start} start")
        levels = {r["model"]: 100 * r["value"] for r in _tests(records, task="package", start="-")}
        dashes = {BAG: (0, (6, 2)), BAG + CUT: (0, (6, 2, 1, 2)), MAJORITY: (0, (1, 2))}
        highest = max(levels, key=levels.__getitem__)  # the two bags may be near: their names keep apart
        for words, value in levels.items():
            side = "bottom" if words == highest else "top"
            _level(ax, value, words, dashes[words], named=ax is axes[-1], va=side)
        ax.set_xscale("log")
        ax.minorticks_off()
        ax.set_xticks(sorted({r["rate"] for r in sweep}), [f"{rate:g}" for rate in sorted({r["rate"] for r in sweep})])
        ax.margins(x=0.12)
        ax.set(xlabel="learning rate, log scale", title=name)
        ax.legend(loc="best")
    axes[0].set(ylabel="right on test passages (%)", ylim=(0, 100))
    return figure


# By the word in a reader's name.
FACT_LOOKS = {
    "BERT, first": plots.STYLES["BERT"],
    "ModernBERT, first": plots.MORE_STYLES[1],
    "ModernBERT, windows": plots.MORE_STYLES[0],
    "ModernBERT, all": plots.STYLES["ModernBERT"],
}


@plots.style()
def plot_places(records: Sequence[dict]):
    """Facts: the share that is right by the place of the fact, for every way to read.

    The lines are moved apart sideways a little, as many have the same value.
    """
    found = [r for r in records if r["what"] == "fact_accuracy"]
    long, short = found[0]["length"], found[0]["short"]
    figure, (ax,) = plots.panels(8.6, 4.8, 1, found)
    readers = list(dict.fromkeys(r["reader"] for r in found))
    for turn, reader in enumerate(readers):
        mine = [r for r in found if r["reader"] == reader]
        look = next(look for words, look in FACT_LOOKS.items() if reader.startswith(words))
        shift = (turn - (len(readers) - 1) / 2) * long / 120
        ax.plot([r["place"] + shift for r in mine], [100 * r["value"] for r in mine], markersize=6,
                markeredgecolor="white", label=f"{reader} tokens", **look)  # fmt: skip
    ax.axvline(short, color=plots.FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.annotate(f"{short:,} tokens end here", (short, 108), fontsize=8, color=plots.FAINT, va="center",
                annotation_clip=False)  # fmt: skip
    _level(ax, 100 / len(NAMES), "guessing", (0, (1, 2)), named=True)
    ax.set(xlabel="tokens before the fact (middle of the bin)", xlim=(0, long), ylim=(-3, 104))
    ax.set_ylabel("right on test texts (%)")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@plots.style()
def plot_cost(records: Sequence[dict]):
    """Time and memory of a training step against the length of one text, both axes logarithmic."""
    chosen_records = [r for r in records if r["what"].startswith("step_")]
    figure, axes = plots.panels(11, 4.2, 2, chosen_records)
    panels = [("step_seconds", 1000, "time of a training step (ms), log scale"),
              ("step_bytes", 1 / plots.MIB, "memory of a training step (MiB), log scale")]  # fmt: skip
    for ax, (what, scale, label) in zip(axes, panels, strict=True):
        for name in MODELS:
            mine = sorted((r for r in records if r["what"] == what and r["model"] == name), key=lambda r: r["length"])
            spreads = [scale * (r.get("spread") or 0) / 2 for r in mine]
            style = plots.STYLES[name] | plots.EDGE
            ax.errorbar([r["length"] for r in mine], [scale * r["value"] for r in mine], yerr=spreads, label=name,
                        **style)  # fmt: skip
        lengths = sorted({r["length"] for r in chosen_records})
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(lengths, [f"{n:,}" for n in lengths])
        ax.minorticks_off()
        plots.ticks_within_decades(ax)
        ax.set(xlabel="tokens of the text, log scale", ylabel=label)
        ax.legend()
    return figure


@plots.style()
def picture_pooling(lengths: Sequence[int]):
    """How much each token of a flat batch counts in each text's vector, (N, T): [CLS] above, the mean below."""
    size = 0.55 * sum(lengths) + 2.4, 0.42 * len(lengths) * 2 + 1.9
    figure, axes = plots.panels(*size, 1, rows=2, sharex=True)
    for ax, pooling in zip(axes, POOLINGS, strict=True):
        weights = pooling_weights(lengths, pooling)
        ax.imshow(weights.numpy(), cmap="Greys", vmin=0, vmax=1.4, aspect="auto")
        for row, line in enumerate(weights.tolist()):
            for column, weight in enumerate(line):
                if weight:
                    ink = "white" if weight > 0.7 else "black"
                    ax.text(column, row, f"{weight:.2g}", ha="center", va="center", fontsize=9, color=ink)
        ax.set_yticks(range(len(lengths)), [f"text {i}" for i in range(len(lengths))])
        ax.set_title("the first token, [CLS]" if pooling == "cls" else "the mean over the text's own tokens")
        plots.frame_image(ax)
    ax.set_xticks(range(sum(lengths)))
    ax.set_xlabel("token on the flat axis")
    return figure


def pooling_weights(lengths: Sequence[int], pooling: str) -> torch.Tensor:
    """(N, T): the weights with which `classifier.pool` adds up the tokens, read off its output for the unit vectors."""
    return pool(torch.eye(sum(lengths)), pooling, layout=Layout.from_lengths(lengths))


FIGURES = {
    "11_finetuning_rates": plot_rates,
    "11_finetuning_places": plot_places,
    "11_finetuning_cost": plot_cost,
}
