"""What 11_finetuning measures: its splits, and baselines and verdicts counted by hand; its figures drawn."""

import dataclasses

import pytest
import torch

from modernbert_edu.classifier import SequenceClassifier, pool
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.config import EncoderConfig
from modernbert_edu.lessons import finetuning as lesson
from modernbert_edu.measure.plots import png_bytes
from modernbert_edu.runtime import provenance
from modernbert_edu.tasks.finetune import Encoded, encode
from modernbert_edu.tasks.library_tasks import FACT, NAMES, FactTask, source_of
from modernbert_edu.tasks.table import Examples
from modernbert_edu.unpadding import Layout

SIZES = dataclasses.replace(
    SCALES["quick"].finetuning,
    vocab_size=512, tokenizer_characters=60_000, corpus_characters=300_000, steps=3, batch_size=4, sequence_length=32,
    held_out_sequences=4, packages=2, passage_counts=(4, 2, 3), passage_length=24, functions_per_package=2,
    pair_counts=(4, 2, 3), pair_length=24, rates=(1e-3, 2e-3), seeds=(0, 1), pair_seeds=(0,), pair_starts=lesson.STARTS,
    fact_counts=(8, 4, 8), short_length=144, long_length=256, fact_shortest=136, fact_batch=4, cost_lengths=(16, 32),
    eval_tokens=512,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tasks():
    return lesson.make_tasks(SIZES)


@pytest.fixture(scope="module")
def data(tasks):
    return lesson.make_text(tasks, SIZES)


@pytest.fixture(scope="module")
def measured(tasks, data):
    """(records of everything the lesson measures, the long task)."""
    facts = lesson.make_facts(tasks, data.tokenizer, SIZES)
    models, records = lesson.pretrain_both(data, SIZES, CPU)
    for task in (*tasks, facts):
        records += lesson.measure_baselines(task, data.tokenizer, SIZES)
    arguments = (models, data.tokenizer)
    records += lesson.measure_rates(*arguments, tasks[0], SIZES, CPU)
    records += lesson.measure_pooling(records, *arguments, tasks[0], SIZES, CPU)
    records += lesson.measure_pairs(records, *arguments, tasks[1], SIZES, CPU)
    records += lesson.measure_facts(*arguments, facts, SIZES, CPU)
    return records + lesson.measure_cost(data.tokenizer, SIZES, CPU), facts


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_each_scale_can_be_run(scale):
    sizes = scale.finetuning
    bert = EncoderConfig.preset(sizes.bert_preset, vocab_size=sizes.vocab_size)
    assert bert.matched_to(bert).num_parameters() == bert.num_parameters()
    assert max(sizes.passage_length, sizes.pair_length, sizes.short_length) <= bert.max_position_embeddings
    assert sizes.fact_shortest < sizes.short_length < sizes.long_length
    assert sizes.fact_counts[2] % len(NAMES) == 0 and sizes.fact_counts[2] >= sizes.place_bins
    assert set(sizes.pair_seeds) | set(sizes.pooling_seeds) <= set(sizes.seeds) and len(sizes.rates) >= 2
    assert {lesson.PRETRAINED} <= set(sizes.pair_starts) <= set(lesson.STARTS)
    assert 0 < sizes.fact_rate_of("BERT") <= sizes.fact_rate_of("ModernBERT")
    if scale.name == "gpu":
        assert (sizes.short_length, sizes.long_length) == (512, 8192)
        assert sizes.sequence_length >= sizes.short_length  # or BERT reads at positions that nothing trained


# ---- no leaks --------------------------------------------------------------------------------------------------------


def test_pretraining_sees_nothing_that_a_task_holds_out(tasks, data):
    held = tasks[0].held_files | tasks[1].held_files
    assert held and not set(data.corpus.train["source"]) & held


def test_facts_of_a_test_text_stand_in_files_that_are_held_out(tasks, data, measured):
    held = tasks[0].held_files | tasks[1].held_files
    texts = {source_of(path): path.read_text(encoding="utf-8", errors="ignore") for _, path in lesson.library_files()}
    sides = [[text for source, text in texts.items() if (source in held) == out] for out in (False, True)]
    _, facts = measured
    for part, own in ((facts.train, sides[0]), (facts.dev, sides[1]), (facts.test, sides[1])):
        for (text,) in part.texts:
            before = text[: text.index("# The maintainer of this file is")]
            assert any(before in whole for whole in own)


def test_models_have_equally_many_parameters(data):
    sizes = [config.num_parameters() for config in lesson.configs(SIZES, data.tokenizer).values()]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.005)


# ---- one fine-tuning -------------------------------------------------------------------------------------------------


def test_right_answers_come_in_the_order_of_the_texts(data):
    torch.manual_seed(0)
    model = SequenceClassifier(EncoderConfig.preset("modernbert-tiny", vocab_size=64), ["a", "b", "c"]).eval()
    texts = [torch.randint(5, 64, (length,)).tolist() for length in (9, 3, 20, 4, 12, 7, 30)]
    with torch.no_grad():
        said = [int(model(torch.tensor([ids])).logits.argmax()) for ids in texts]
    answers = [s if i % 2 else (s + 1) % 3 for i, s in enumerate(said)]
    encoded = Encoded(texts, [[0] * len(ids) for ids in texts], answers)
    for tokens in (1, 40, 10_000):
        sizes = dataclasses.replace(SIZES, eval_tokens=tokens)
        assert lesson.right_answers(model, encoded, 0, sizes) == [bool(i % 2) for i in range(len(texts))]


def test_windows_of_a_text_answer_together(data):
    torch.manual_seed(0)
    model = SequenceClassifier(EncoderConfig.preset("modernbert-tiny", vocab_size=64), ["a", "b", "c"]).eval()
    rows = [torch.randint(5, 64, (length,)).tolist() for length in (9, 12, 5, 8)]
    with torch.no_grad():
        logits = torch.cat([model(torch.tensor([ids])).logits for ids in rows])
    said = [int(logits[:3].mean(dim=0).argmax()), int(logits[3].argmax())]
    encoded = Encoded(rows, [[0] * len(ids) for ids in rows], [said[0]] * 3 + [said[1]], owners=[0, 0, 0, 1])
    assert lesson.right_answers(model, encoded, 0, SIZES) == [True, True]


def test_only_a_random_start_depends_on_the_seed(data):
    models = [lesson.MaskedLM(config) for config in lesson.configs(SIZES, data.tokenizer).values()]
    for model in models:
        assert lesson.begin(lesson.PRETRAINED, model, 1) is model
        a, b, c = (lesson.begin(lesson.RANDOM, model, seed).head.dense.weight for seed in (1, 1, 2))
        assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a, model.head.dense.weight)


# ---- baselines -------------------------------------------------------------------------------------------------------


def fact_task(texts, answers):
    half = len(texts) // 2
    parts = [Examples([(text,) for text in texts[s]], answers[s]) for s in (slice(half), slice(half, None))]
    return FactTask(FACT, parts[0], parts[1], parts[1], [0] * len(parts[1]), 10)


@pytest.mark.parametrize(("length", "cut"), [(SIZES.short_length, "1111"), (8, "1110")])
def test_baselines_do_what_they_say(data, length, cut):
    texts = [f"some text with several words before it says {word}" for word in ("red", "red", "red", "blue") * 2]
    sizes = dataclasses.replace(SIZES, short_length=length)
    records = lesson.measure_baselines(fact_task(texts, ["r", "r", "r", "b"] * 2), data.tokenizer, sizes)
    assert [(r["model"], r["right"]) for r in records] == [
        (lesson.MAJORITY, "1110"), (lesson.BAG, "1111"), (lesson.BAG + lesson.CUT, cut)]  # fmt: skip


def test_a_cut_text_is_what_an_encoder_reads(tasks, data):
    for task, length in ((tasks[0], 24), (tasks[1], 32)):
        cut = lesson.first_tokens(task.test.texts, data.tokenizer, length)
        encoded = encode(task.test, task.task, sorted(set(task.test.answers)), data.tokenizer, length)
        read = [data.tokenizer.decode(ids) for ids in encoded.input_ids]
        assert ["".join(text) for text in cut] == read and encoded.cut > 0
    assert lesson.first_tokens([("red",)], data.tokenizer, 24) == [("red",)]


def test_names_are_taken_apart_at_underscores_for_the_cosine():
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(token_pattern=lesson.WORD)
    words.fit(["split the file", "def split_file(): ...", "red blue"])
    near, far = lesson._cosines(words, [("split the file", "split_file"), ("red", "split_file")]).ravel().tolist()
    assert near > 0.5 and far == 0


def test_each_baseline_of_the_lesson_is_judged_on_all_test_texts(tasks, measured):
    records = [r for r in measured[0] if r.get("start") == "-"]
    named = {"package": [lesson.BAG], "docstring": [lesson.BAG, lesson.SHARED], "fact": [lesson.BAG]}
    assert [(r["task"], r["model"]) for r in records] == [
        (task, name)
        for task, names in named.items()
        for name in [lesson.MAJORITY, *(one + cut for one in names for cut in ("", lesson.CUT))]
    ]  # fmt: skip
    assert all(r["n"] == len(r["right"]) and r["value"] == r["right"].count("1") / r["n"] for r in records)
    assert next(r for r in records if r["model"] == lesson.MAJORITY)["value"] == 0.5  # two classes, balanced


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_every_run_is_there_once(measured):
    records, _ = measured
    runs = [r for r in records if r["what"] == "test_accuracy" and r["start"] != "-"]
    count = {task: sum(r["task"] == task for r in runs) for task in ("package", "docstring", "fact")}
    models, starts = len(lesson.MODELS), len(lesson.STARTS)
    trials = len(SIZES.rates) + len(SIZES.seeds) - 1
    assert count["package"] == models * starts * trials + models * len(SIZES.pooling_seeds)
    assert count["docstring"] == models * len(SIZES.pair_starts) * len(SIZES.pair_seeds)
    assert count["fact"] == 4 * len(SIZES.fact_seeds)
    keys = [(r["task"], r["model"], r["start"], r["pooling"], r["rate"], r["seed"], r.get("reader")) for r in runs]
    assert len(set(keys)) == len(keys)
    assert all(0 < r["seconds"] and r["max_length"] in (24, 144, 256) for r in runs)


def test_places_are_counted_in_bins_of_equal_width(measured):
    records, facts = measured
    found = [r for r in records if r["what"] == "fact_accuracy"]
    for reader, pooling in {(r["reader"], r["pooling"]) for r in found}:
        mine = [r for r in found if (r["reader"], r["pooling"]) == (reader, pooling)]
        assert sum(r["n"] for r in mine) == len(facts.places) * len(SIZES.fact_seeds)
    one = dict(what="test_accuracy", start="pretrained", task="fact", model="m", reader="m", pooling="cls",
               max_length=9)  # fmt: skip
    sizes = dataclasses.replace(SIZES, long_length=100, place_bins=2)
    by_place = lesson.by_place([one | dict(right="1100"), one | dict(right="1010")], [0, 49, 50, 99], sizes)
    assert [(r["place"], r["value"], r["n"]) for r in by_place] == [(25, 0.75, 4), (75, 0.25, 4)]


def test_windows_hold_a_fact_whole_only_where_they_overlap_enough(data, measured):
    _, facts = measured
    lines = {text[slice(*lesson.fact_characters(text))] for (text,) in facts.test.texts}
    longest = max(len(data.tokenizer.encode(line, add_special_tokens=False)) for line in lines)
    overlap = 1 - (longest + 8) / (SIZES.short_length - 2)
    for stride, enough in ((overlap, True), (1.0, False)):
        sizes = dataclasses.replace(SIZES, window_stride=stride)
        assert all(lesson.whole_in_a_window(facts, data.tokenizer, sizes)) is enough


def test_answers_within_the_short_length_are_told_from_those_behind_it():
    records = [dict(right="1100"), dict(right="1010")]
    assert lesson.within(records, [0, 9, 10, 50], 10) == {True: 0.75, False: 0.25}


# ---- in words --------------------------------------------------------------------------------------------------------


def run(right, rate=1e-3, dev=0.5, seed=0, model="BERT", start="pretrained", pooling="mean", task="package"):
    return dict(what="test_accuracy", value=right.count("1") / len(right), right=right, rate=rate, dev=dev, seed=seed,
                model=model, start=start, pooling=pooling, task=task, seconds=1.0, memory=2**20)  # fmt: skip


def test_the_rate_is_chosen_by_dev_and_never_by_test():
    records = [run("1111", 1e-3, dev=0.4), run("0000", 2e-3, dev=0.6), run("1111", 1e-3, 0.5, 1), run("0000", 2e-3, 0.4, 1)]  # fmt: skip # noqa: E501
    assert lesson.best_rate(records, "BERT", "pretrained") == 2e-3
    assert [r["right"] for r in lesson.chosen(records, "package", "BERT", "pretrained", "mean")] == ["0000", "0000"]


def test_a_difference_is_taken_text_by_text():
    mine, theirs = [run("1100"), run("1110")], [run("1000"), run("1000")]
    mean, low, high = lesson.difference(mine, theirs)
    assert mean == pytest.approx((0 + 1 + 0.5 + 0) / 4) and 0 <= low < mean < high
    assert lesson.difference(mine, mine) == (0, 0, 0)


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [("1" * 40, "0" * 20 + "1" * 20, "+50.0 points [+35.0, +65.0], more right"),
     ("0" * 20 + "1" * 20, "1" * 40, ", fewer right"), ("10" * 20, "01" * 20, "no difference can be told")],
)  # fmt: skip
def test_a_verdict_follows_its_interval(mine, theirs, words):
    assert words.split("[")[0] in lesson.verdict([run(mine)], [run(theirs)])
    assert lesson.verdict([run(mine)], [run(theirs)]).endswith(words.split("],")[-1])


def test_sides_with_unlike_seeds_are_compared_on_those_that_both_have():
    records = [run("1010", model=model, start=start) for model in lesson.MODELS for start in lesson.STARTS]
    records[0] = run("1111")
    records += [run("0000", seed=1), run("1110", pooling="cls")]
    records.append(dict(run("1111", model=lesson.BAG, start="-", pooling="-"), rate=None))
    lines = {line.partition(":")[0]: line for line in lesson.verdicts(records, "package")}
    assert "+25.0 points" in lines["BERT, pretrained, mean against [CLS]"]
    assert "-50.0 points" in lines["BERT, pretrained, against bag of words"]


def test_starts_that_pairs_were_not_trained_from_are_not_compared(measured):
    records = [r for r in measured[0] if (r.get("task"), r.get("start")) != ("docstring", lesson.RANDOM)]
    lines = lesson.verdicts(records, "docstring")
    assert len(lines) == 7 and not any("random" in line for line in lines)


def test_every_comparison_of_the_lesson_is_told(measured):
    records, facts = measured
    assert len(lesson.verdicts(records, "package")) == len(lesson.comparisons("package")) == 11
    assert len(lesson.verdicts(records, "docstring")) == len(lesson.comparisons("docstring")) == 9
    assert len(lesson.fact_verdicts(records)) == 3
    for task, columns in (("package", lesson.SCORE_COLUMNS), ("docstring", lesson.SCORE_COLUMNS)):
        rows = lesson.score_rows(records, task)
        assert all(len(row) == len(columns) for row in rows) and rows[0][0] == lesson.MAJORITY
    rows = lesson.fact_rows(records, facts.places, SIZES.short_length)
    assert len(rows) == 7 and all(len(row) == len(lesson.FACT_COLUMNS) for row in rows)
    assert [row[0] for row in lesson.cost_rows(records)] == ["16", "32"]


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_every_figure_is_drawn_from_records(measured):
    facts = provenance(CPU, dtype=SIZES.dtype)
    for plot in lesson.FIGURES.values():
        assert png_bytes(plot([facts | record for record in measured[0]])).startswith(b"\x89PNG")


def test_the_picture_of_pooling_shows_the_packages_own_weights():
    hidden = torch.randn(11, 6)
    for pooling in ("cls", "mean"):
        weights = lesson.pooling_weights([4, 2, 5], pooling)
        want = pool(hidden, pooling, layout=Layout.from_lengths([4, 2, 5]))
        torch.testing.assert_close(weights @ hidden, want)
    assert png_bytes(lesson.picture_pooling([4, 2, 5])).startswith(b"\x89PNG")
