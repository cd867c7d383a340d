"""What 12_retrieval measures: counted by hand where it can be, and its figures drawn."""

import dataclasses
import math

import pytest
import torch

from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.lessons import retrieval as lesson
from modernbert_edu.measure import retrieval as shared
from modernbert_edu.measure.plots import png_bytes
from modernbert_edu.runtime import provenance
from modernbert_edu.tasks.ranking import Bm25

SIZES = dataclasses.replace(
    SCALES["quick"].retrieval,
    vocab_size=320, tokenizer_characters=20_000, sequence_length=32, held_out_sequences=2, batch_size=2, steps=2,
    functions_per_package=None, modules_per_package=None, module_characters=200, held_out_share=0.3, questions=8,
    modules=4, seeds=(0, 1), contrastive_steps=2, contrastive_batch=4, query_length=12, document_length=24,
    evaluations=2, late_dimension=8, chunk_length=64, long_length=544, cache_chunk=2, cache_batches=(4, 8),
    corpus_sizes=(50, 200), graph_size=50, timing_repeats=3, rag_files=("bisect.py",), passage_length=64, candidates=4,
    rerank_steps=2, rerank_batch=4, rerank_questions=3, line_parts=8, budget=200,
)  # fmt: skip
CPU = torch.device("cpu")
VERBS, NOUNS = ["open", "close", "count", "sort", "merge", "split"], ["file", "line", "word", "list", "tree", "number"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """(package, file) of twelve packages whose functions and modules say what they do."""
    folder, files = tmp_path_factory.mktemp("library"), []
    for p in range(12):
        lines = [f'"""The module of package {p}: it can {VERBS[p % 6]} and merge every {NOUNS[p // 2]} there is."""']
        for f in range(4):
            verb, noun = VERBS[(p + f) % 6], NOUNS[(p * f + 1) % 6]
            lines += [f"def {verb}_{noun}_{p}(given):",
                      f'    """{verb.title()} the {noun} number {f} of package {p}. Raises an error where '
                      f'there is no {noun}, and gives {p} of them back in order."""',
                      f"    result_{p} = given[{f}:] + [{p * f}]", f"    item = given[{p}]",
                      f"    given = item({p})", *[f"    print({p}, {i})" for i in range(120)],
                      f"    return result_{p}", ""]  # fmt: skip
        path = folder / f"package{p}.py"
        path.write_text("\n".join(lines))
        files.append((f"package{p}", path))
    return files


@pytest.fixture(scope="module")
def data(library):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "library_files", lambda: library)
        return lesson.make_data(SIZES)


@pytest.fixture(scope="module")
def pretrained(data):
    return lesson.pretrain_both(*data, SIZES, CPU)


@pytest.fixture(scope="module")
def trained(data, pretrained):
    return lesson.train_all(pretrained[0], *data, SIZES, CPU)


@pytest.fixture(scope="module")
def late(data):
    return lesson.train_late(*data, SIZES, CPU)


# ---- data and models -------------------------------------------------------------------------------------------------


def test_what_is_trained_on_and_what_is_asked_share_no_package_and_no_text(data):
    found, tokenizer = data
    for task in found.tasks.values():
        assert task.packages and not task.packages & found.train_packages
        assert not set(task.documents) & {pair.document for pair in found.train}
        assert not set(task.queries) & {pair.query for pair in found.train}
        assert task.relevant == [{i} for i in range(len(task.queries))]
    modules = found.tasks["modules"]
    assert len(modules.queries) == len(modules.documents) == min(SIZES.modules, len(modules.queries)) > 1
    lengths = [len(tokenizer.encode(text)) for text in modules.documents]
    assert max(lengths) == SIZES.long_length  # they are longer, and cut


def test_a_clipped_text_is_a_beginning_of_so_many_tokens(data):
    tokenizer, text = data[1], data[0].tasks["modules"].documents[0]
    clipped = lesson.clip(text, tokenizer, 40)
    assert text.startswith(clipped) and len(tokenizer.encode(clipped)) == 40
    assert lesson.clip("a short one", tokenizer, 40) == "a short one"


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_each_scale_can_be_run(scale):
    sizes = scale.retrieval
    assert len(sizes.rates) == len(lesson.MODELS) and sizes.rate_of("BERT") <= sizes.rate_of("ModernBERT")
    assert {("BERT", lesson.START), ("ModernBERT", lesson.START)} <= set(sizes.runs)  # what the lesson compares
    assert sizes.document_length <= 512 < sizes.long_length and sizes.chunk_length <= 512
    assert sizes.timing_repeats >= 3 and sizes.contrastive_steps >= sizes.evaluations
    assert sizes.graph_size in range(min(sizes.corpus_sizes), max(sizes.corpus_sizes) + 1)


def test_models_have_equally_many_parameters_and_random_starts_depend_on_the_seed(data):
    models = {name: lesson.untrained(name, data[1], SIZES, 0) for name in lesson.MODELS}
    counts = [model.config.num_parameters() for model in models.values()]
    assert abs(counts[0] - counts[1]) <= 0.01 * counts[0]
    starts = [
        lesson.begin("ModernBERT", lesson.RANDOM, models, data[1], SIZES, seed).state_dict() for seed in (0, 0, 1)
    ]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert any(not torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


def test_a_shorter_length_is_taken_back(data):
    model = lesson.begin("ModernBERT", lesson.RANDOM, {}, data[1], SIZES, 0)
    longest = model.max_length
    with pytest.raises(KeyError), lesson.reading(model, 16):
        assert model.max_length == 16
        raise KeyError
    assert model.max_length == longest
    with lesson.reading(model, 10**6):
        assert model.max_length == longest


# ---- angles ----------------------------------------------------------------------------------------------------------


def test_cosines_are_those_of_the_vectors(data):
    task = data[0].tasks["code"]
    model = lesson.begin("ModernBERT", lesson.RANDOM, {}, data[1], SIZES, 0)
    own, other, mrr = lesson.measure_cosines(model, "ModernBERT", "random", task, SIZES)
    with lesson.reading(model, SIZES.document_length):
        cosines = model.encode(task.queries, "query") @ model.encode(task.documents).T
    n = len(task.queries)
    assert own["value"] == pytest.approx(cosines.diagonal().mean().item(), abs=1e-5) and own["n"] == n
    assert other["value"] == pytest.approx(((cosines.sum() - cosines.trace()) / (n * n - n)).item(), abs=1e-5)
    assert sum(own["histogram"]) == n and sum(other["histogram"]) == other["n"] == n * n - n
    ranks = (cosines >= cosines.diagonal()[:, None]).sum(dim=1)
    expected = torch.where(ranks <= 10, 1 / ranks, 0.0).mean().item()
    assert mrr["value"] == pytest.approx(expected, abs=1e-5)
    row = lesson.cosine_rows([own, other, mrr])[0]
    assert row[0] == "ModernBERT" and row[-1] == f"{expected:.3f}" and len(row) == len(lesson.COSINE_COLUMNS)


# ---- training and judging --------------------------------------------------------------------------------------------


def test_every_run_is_judged_before_on_the_way_and_at_the_end(trained):
    records, models = trained
    compared = {(*run, seed) for run in SIZES.runs if run[1] == lesson.START for seed in SIZES.seeds}
    assert set(models) == compared | {(*run, SIZES.seeds[0]) for run in SIZES.runs}
    for name, start, seed in models:
        curve = [
            r for r in records if r["what"] == "mrr@10" and (r["model"], r["start"], r["seed"]) == (name, start, seed)
        ]
        assert [r["step"] for r in curve] == [0, 1, 2]
        assert [r["pairs"] for r in curve] == [0, SIZES.contrastive_batch, 2 * SIZES.contrastive_batch]
        assert [bool(r.get("ranks")) for r in curve] == [False, False, True]
        reciprocal = [1 / rank if 0 < rank <= 10 else 0.0 for rank in curve[-1]["ranks"]]
        assert curve[-1]["value"] == pytest.approx(sum(reciprocal) / len(reciprocal), abs=1e-6)
        assert lesson.reciprocals([curve[-1]]).tolist() == pytest.approx(reciprocal)


def test_runs_of_one_seed_see_the_same_pairs_and_pretrained_weights_stay(data, pretrained, trained):
    fresh = lesson.pretrain_both(*data, SIZES, CPU)[0]
    for name in lesson.MODELS:
        before, after = fresh[name].state_dict(), pretrained[0][name].state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
    settings = [lesson.settings_for("BERT", 1, SIZES), lesson.settings_for("ModernBERT", 1, SIZES)]
    assert dataclasses.replace(settings[0], rate=1e-3) == dataclasses.replace(settings[1], rate=1e-3)


def test_bm25_is_judged_on_all_tasks(data):
    records = lesson.judge_words(*data, SIZES)
    for name, task in data[0].tasks.items():
        mine = {r["what"]: r for r in records if r["task"] == name and r["way"] != lesson.CUT}
        best = Bm25(task.documents).top_k(task.queries, 1)[1][:, 0].tolist()
        hits = [place == number for number, place in enumerate(best)]
        assert mine["accuracy@1"]["value"] == pytest.approx(sum(hits) / len(hits))
        assert [rank == 1 for rank in mine["mrr@10"]["ranks"]] == hits
    assert {r["task"] for r in records if r["way"] == lesson.CUT} == {"code", "prose"}


def test_a_beginning_is_what_the_first_tokens_cover(data):
    text = max(data[0].tasks["code"].documents, key=len)
    ids = data[1].encode(text, add_special_tokens=False)
    cut = lesson.beginning(text, data[1], 10)
    assert len(ids) > 10 and text.startswith(cut) and data[1].encode(cut, add_special_tokens=False) == ids[:10]
    assert lesson.beginning(text, data[1], len(ids)) == text


def test_modules_are_read_whole_only_where_the_model_takes_them(data, trained):
    records = lesson.judge_modules(trained[1], data[0], SIZES)
    ways = {(r["model"], r["way"]) for r in records}
    assert ways == {(name, way) for name in lesson.MODELS for way in (lesson.CUT, lesson.CHUNKS)} | {
        ("ModernBERT", lesson.WHOLE)
    }
    assert {r["start"] for r in records} == {lesson.START}


def test_a_fused_ranking_holds_every_text_once(data, trained):
    records = lesson.judge_hybrid(trained[1], data[0], SIZES)
    assert {r["seed"] for r in records} == set(SIZES.seeds) and {r["model"] for r in records} == {lesson.HYBRID}
    texts = len(data[0].tasks["code"].documents)
    for r in records:
        if r["what"] == "mrr@10":
            assert len(r["ranks"]) == texts and all(1 <= rank <= texts for rank in r["ranks"])


def test_late_interaction_has_a_vector_a_token(data, late):
    records, model = late
    assert {r["model"] for r in records} == {lesson.LATE}
    vectors = model.encode(["a b c"])[0]
    assert vectors.shape == (len(data[1].encode("a b c")), SIZES.late_dimension)


def test_short_assignments_are_found_and_spaced():
    text = "x = y[0]\n    path=root\nx == y or z\nx = a, b, c, d\nprint(x)\nif x:\n    n = len(x)"
    assert lesson.assignments([text, "x =  y [0]"], 7) == [" x = y [ 0 ]", " n = len ( x )"]
    sets, reads = lesson.roles([" path = root / path", " root = path . parent", " n = 1 + 2"])
    assert sets == {"path": [0], "root": [1], "n": [2]}
    assert reads == {"root": [0], "path": [1], "parent": [1]}


def test_the_task_of_order_asks_for_lines_that_set_a_name_and_stand_in_no_training_text(data):
    task = lesson.order_task(data[0], SIZES)
    assert 0 < len(task.queries) <= SIZES.rerank_questions
    assert not set(task.documents) & set(lesson.training_lines(data[0], SIZES))
    assert not task.packages & data[0].train_packages
    for query, right in zip(task.queries, task.relevant, strict=True):
        assert right == {i for i, line in enumerate(task.documents) if line.startswith(f"{query} =")}
        reading = [i for i, line in enumerate(task.documents) if query.strip() in line.split()[2:] and i not in right]
        assert len(reading) >= len(right) > 0
        shown = lesson.lines_with(query.strip(), task, most=2)
        assert shown[0] in right and shown[1] in reading


def test_a_reranker_reorders_only_the_candidates(data, trained):
    first, task = trained[1]["ModernBERT", lesson.START, 0], lesson.order_task(data[0], SIZES)
    reranker, (record,) = lesson.fit_reranker(first, data[0], task, SIZES, CPU)
    assert record["pairs"] == SIZES.rerank_steps * SIZES.rerank_batch * 4 and math.isfinite(record["value"])
    records = lesson.judge_reranked(reranker, first, task, SIZES)
    found = {r["model"]: r for r in records if r["what"] == "mrr@10"}
    assert set(found) == {lesson.BM25, "ModernBERT", lesson.RERANKED, lesson.CHANCE}
    assert record["after"] == pytest.approx(found[lesson.RERANKED]["value"])
    assert f"{record['before']:.3f}, after it {record['after']:.3f}" in lesson.learnt(record)
    words = shared.rank_by_words(task)
    again = lesson.rerank(reranker, task, words, SIZES)
    best = SIZES.candidates
    assert again[:, :best].sort().values.equal(words[:, :best].sort().values)
    assert again[:, best:].equal(words[:, best:])
    assert len(lesson.score_rows(records, "rerank")) == 4 and len(lesson.verdicts(records, "rerank")) == 3


def test_chance_puts_the_lines_with_the_name_first_and_nothing_else():
    lines = ["path = root", "root = path", "size = 3", "path = None", "other = size"]
    task = shared.RetrievalTask([" path", " size"], lines, [{0, 3}, {2}], "rerank", frozenset())
    orders = torch.stack(lesson.any_orders(task, 40))
    assert {tuple(sorted(row.tolist())) for row in orders[:, 0, :3]} == {(0, 1, 3)}
    assert {tuple(sorted(row.tolist())) for row in orders[:, 1, :2]} == {(2, 4)}
    assert set(orders[:, 0, 0].tolist()) == {0, 1, 3} and set(orders[:, 1, 0].tolist()) == {2, 4}


def test_a_recorded_training_says_who_passes_bm25_and_by_how_much_each_run_ends_above_it():
    records = []
    for task in lesson.longer.TASKS:
        facts = dict(what="mrr@10", task=task)
        records.append(dict(facts, model="BM25", value=0.5))
        for run, ends in (("a", 0.6), ("b", 0.52)):
            for pairs, value in ((0, 0.0), (100, 0.4), (200, ends)):
                records.append(dict(facts, model="ModernBERT", run=run, pairs=pairs, value=value, train_pairs=150,
                                    device="a machine"))  # fmt: skip
    lines = lesson.budget_lines(records)
    assert lines[0] == "recorded on a machine: 200 pairs in a run, of 150 different ones"
    assert "ModernBERT passes it after 167 pairs and ends at 0.560" in lines[1]  # 100 + 50 and 100 + 83.3, their mean
    assert lines[2] == "    ModernBERT at the end, from BM25: +0.100, +0.020" and len(lines) == 5


def test_the_index_holds_the_named_files(data, trained, tmp_path, capsys):
    index = lesson.build_index(trained[1]["ModernBERT", lesson.START, 0], tmp_path, SIZES)
    assert {passage.source for passage in index.passages()} == {"bisect.py"}
    assert str(tmp_path) not in capsys.readouterr().out
    assert "bisect.py" in index.search("insert into a sorted list", 1)[0].passage.where


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_the_cache_keeps_a_chunk_and_not_the_batch(data):
    model = lesson.begin("ModernBERT", lesson.RANDOM, {}, data[1], SIZES, 0)
    records = lesson.measure_cache(model, data[0], SIZES, CPU)
    kept = {(r["model"], r["batch_size"]): r["value"] for r in records if r["what"] == "step_memory"}
    assert kept["all at once", 8] > 1.5 * kept["all at once", 4]
    assert kept["cached", 8] < 1.1 * kept["cached", 4] and kept["cached", 8] < kept["all at once", 8]
    assert [row[0] for row in lesson.cache_rows(records)] == [4, 8]


def test_exact_and_approximate_search_are_timed_and_compared():
    vectors = torch.nn.functional.normalize(torch.randn(30, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    records = lesson.measure_search(vectors, SIZES)
    assert [r["texts"] for r in records if r["what"] == "search_seconds"] == [50, 200, 50]
    assert 0.9 <= next(r["value"] for r in records if r["what"] == "graph_recall@10") <= 1
    assert len(lesson.search_rows(records)) == 3


def test_storage_is_counted_by_hand():
    one, many = lesson.storage_rows(10, 8, 4)
    assert one == ("one vector of 8", 32, 16, "0.00") and many == ("10 vectors of 4", 160, 80, "0.01")


# ---- in words --------------------------------------------------------------------------------------------------------


def final(model, ranks, start="random", way="-", task="code", seed=0, value=None):
    reciprocal = sum(1 / r if 0 < r <= 10 else 0 for r in ranks) / len(ranks)
    facts = dict(model=model, start=start, way=way, task=task, seed=seed)
    return [dict(facts, what="mrr@10", ranks=ranks, value=reciprocal)] + [
        dict(facts, what=what, value=0.5) for what in ("ndcg@10", "recall@10", "recall@100")
    ]


def test_differences_are_taken_question_by_question_over_common_seeds():
    records = final("ModernBERT", [1] * 20) + final("ModernBERT", [2] * 20, seed=1) + final("BERT", [2] * 20)
    records += final(lesson.BM25, [1, 2] * 10, start="-")
    a, b, c = ("ModernBERT", "random", "-"), ("BERT", "random", "-"), (lesson.BM25, "-", "-")
    assert lesson.difference(records, "code", a, b) == pytest.approx((0.5, 0.5, 0.5))  # seed 0 alone
    mean, low, high = lesson.difference(records, "code", a, c)
    assert mean == pytest.approx(0.0) and low < 0 < high
    assert lesson.difference(records, "code", a, ("ModernBERT", "MLM", "-")) is None
    lines = lesson.verdicts(records, "code")
    assert lines[0] == "ModernBERT against BERT: +0.500 [+0.500, +0.500] MRR@10, higher"
    assert lines[1].endswith("no difference can be told") and lines[2].endswith("lower") and len(lines) == 3
    rows = lesson.score_rows(records, "code")
    assert [row[0] for row in rows] == ["ModernBERT", "BERT", "BM25"]
    assert rows[0][3:] == ("0.750 [0.750, 0.750]", "0.500", "0.500", "0.500")


def test_a_rank_beyond_ten_is_worth_nothing():
    assert lesson.reciprocals(final("BERT", [0, 11, 10, 4])[:1]).tolist() == pytest.approx([0, 0, 0.1, 0.25])


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_every_figure_is_drawn_from_records(data, pretrained, trained, late):
    found, tokenizer = data
    records = pretrained[1] + trained[0] + late[0] + lesson.judge_words(found, tokenizer, SIZES)
    records += lesson.judge_prose(trained[1], found, SIZES) + lesson.judge_modules(trained[1], found, SIZES)
    model = trained[1]["ModernBERT", lesson.START, 0]
    for state in ("random", "MLM"):
        records += lesson.measure_cosines(model, "ModernBERT", state, found.tasks["code"], SIZES)
    records += lesson.measure_cosines(model, "BERT", "MLM", found.tasks["code"], SIZES)
    records += lesson.measure_cache(model, found, SIZES, CPU)
    records += lesson.measure_search(model.encode(found.tasks["prose"].documents), SIZES)
    facts = provenance(CPU, dtype=SIZES.dtype)
    for plot in lesson.FIGURES.values():
        assert png_bytes(plot([facts | record for record in records])).startswith(b"\x89PNG")
    assert len(lesson.score_rows(records, "prose")) == 2 + len(SIZES.runs)  # BM25 twice
    for task in lesson.TASKS:
        assert lesson.verdicts(records, task)


def test_the_pictures_show_the_numbers_of_the_lesson():
    figure = lesson.picture_softmax(0.1)
    shares = (torch.tensor(lesson.TOY_SCORES) / 0.1).softmax(dim=1).diagonal()
    assert f"{-shares.log().mean():.3f} nats" in figure.axes[1].get_title()
    picture = lesson.picture_max_sim(torch.eye(2), torch.tensor([[0.6, 0.8], [0.8, 0.6], [0.0, 1.0]]))
    assert "sum is 1.80" in picture.axes[0].get_title()
    assert png_bytes(figure).startswith(b"\x89PNG") and png_bytes(picture).startswith(b"\x89PNG")
