"""Retrieval as it is measured: rankings by vectors, by words and by chunks; the curve, its verdict and its figure."""

import json
from dataclasses import replace

import pytest
import torch
from matplotlib.figure import Figure
from tiny_retriever import TEXTS, tiny_embedder

from modernbert_edu import InputError, TokenEmbedder, load_retriever
from modernbert_edu.__main__ import main
from modernbert_edu.beginning import new_model
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.errors import Paused
from modernbert_edu.measure import retrieval, retrieval_curve
from modernbert_edu.retriever import max_sim
from modernbert_edu.runtime import describe_device, write_jsonl
from modernbert_edu.tasks import default_model

TASK = retrieval.RetrievalTask(
    ["cat on the mat", "read bytes of a path"], TEXTS, [{0}, {2}], "toy", frozenset({"toy"})
)  # fmt: skip


def test_rankings_are_sorted_scores():
    model = tiny_embedder()
    scores = model.encode(TASK.queries, "query") @ model.encode(TASK.documents).T
    assert torch.equal(retrieval.rank(model, TASK), scores.argsort(dim=1, descending=True))
    late = TokenEmbedder(model.encoder, model.tokenizer, dimension=8)
    scores = torch.stack([max_sim(q, late.encode(TASK.documents)) for q in late.encode(TASK.queries, "query")])
    assert torch.equal(retrieval.rank(late, TASK), scores.argsort(dim=1, descending=True))
    assert retrieval.rank_by_words(TASK)[:, 0].tolist() == [0, 2]
    assert retrieval.judge_by_words(TASK)["mrr@10"] == 1.0


def test_a_text_in_chunks_scores_as_its_best_chunk():
    model = tiny_embedder()
    long = replace(
        TASK, documents=["\n".join([*TEXTS[:3]] * 3), "\n".join(TEXTS[3:] * 4), TEXTS[0]], relevant=[{2}, {0}]
    )
    ranking = retrieval.rank_by_chunks(model, long, 16)
    queries = model.encode(long.queries, "query")
    best = []
    for document in long.documents:
        parts = retrieval.cut_text(document, "document.py", model.tokenizer, 16)[0]
        best.append((queries @ model.encode([part.text for part in parts]).T).amax(dim=1))
    assert torch.equal(ranking, torch.stack(best, dim=1).argsort(dim=1, descending=True, stable=True))
    assert len(retrieval.cut_text(long.documents[0], "document.py", model.tokenizer, 16)[0]) > 2


def test_judging_names_tasks_and_leaves_the_length_alone():
    model = tiny_embedder(length=64)
    data = retrieval.LibraryData([], {"toy": TASK})
    found = retrieval.judging(data, ["toy"], max_length=8)(model)
    assert set(found) == {f"toy {name}" for name in ("mrr@10", "ndcg@10", "recall@10", "recall@100", "accuracy@1")}
    assert model.max_length == 64


def test_models_of_a_comparison_have_equally_many_parameters():
    tokenizer = tiny_embedder().tokenizer
    bert = new_model("bert-tiny", tokenizer, 0, like="bert-tiny")
    modern = new_model("modernbert-tiny", tokenizer, 0, like="bert-tiny")
    assert modern.config.num_parameters() == pytest.approx(bert.config.num_parameters(), rel=0.01)


# ---- the curve -------------------------------------------------------------------------------------------------------


def records(bm25=0.5, ends=(0.6, 0.7)):
    made = []
    for task in retrieval_curve.TASKS:
        made.append(dict(what="mrr@10", value=bm25, model="BM25", task=task, queries=100))
        for model in retrieval_curve.MODELS:
            for seed, end in enumerate(ends):
                made += [dict(what="mrr@10", value=value, model=model, task=task, run=f"{model}{seed}", seed=seed,
                              pairs=pairs, seconds=pairs / 10, device="a laptop", torch="2.13")
                         for pairs, value in ((0, 0.1), (1000, end))]  # fmt: skip
    return made


def test_where_a_curve_passes_bm25():
    assert retrieval_curve.passed([(0, 0.1), (100, 0.3), (200, 0.7)], 0.5) == pytest.approx(150)
    assert retrieval_curve.passed([(0, 0.1), (100, 0.3)], 0.5) is None
    assert retrieval_curve.passed([(0, 0.6), (100, 0.8)], 0.5) == 0


def test_the_verdict_follows_the_numbers():
    said = retrieval_curve.describe(records())
    assert "BM25 has mrr@10 0.500" in said
    assert f"passes it after {(0.4 / 0.5 + 0.4 / 0.6) / 2 * 1000:,.0f} pairs and ends at 0.650" in said
    assert "ends at 0.475 (1 of 2 runs pass it)" in retrieval_curve.describe(records(0.5, (0.45, 0.5)))


def test_the_figure_has_a_line_a_run_and_a_level_one():
    figure = retrieval_curve.plot_curve(records())
    assert isinstance(figure, Figure) and [len(ax.lines) for ax in figure.axes] == [5, 5]
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)
    with pytest.raises(InputError, match="search compare"):
        retrieval_curve.plot_curve([r for r in records() if r["model"] == "BM25"])


@pytest.fixture(scope="module")
def small():
    return replace(SCALES["quick"].search, per_package=2, queries=20, steps=2, evaluations=1, seeds=(0,))


def test_a_comparison_keeps_its_runs_and_its_records(tmp_path, monkeypatch, small, capsys):
    """From the shell: measured once, found again, each model's file with BM25's values in it."""
    monkeypatch.setitem(SCALES, "quick", replace(SCALES["quick"], search=small))
    words = ["search", "compare", "--scale", "quick", "--device", "cpu", "--out", str(tmp_path)]
    assert main([*words, "--only", "BERT"]) == 0
    assert main([*words, "--json", str(tmp_path / "all.jsonl")]) == 0
    said = capsys.readouterr().out
    assert said.count("BERT, seed 0: mrr@10 code") == 2  # BERT's once, ModernBERT's once
    assert (tmp_path / "retrieval.png").exists()
    for model in retrieval_curve.MODELS:
        (path,) = tmp_path.glob(f"measurements/*/{retrieval_curve.file_of(model, 0, 'quick')}")
        kept = [json.loads(line) for line in path.read_text().splitlines()]
        assert {r["model"] for r in kept} == {model, "BM25"} and all(r["torch"] and r["device"] for r in kept)
        assert {r["step"] for r in kept if r["model"] == model} == {0, 2}
    assert len(retrieval_curve.curve(retrieval_curve.kept(tmp_path), "ModernBERT", "code")) == 1
    assert said.count(f"{describe_device(torch.device('cpu'))}, quick scale: Docstring to function: BM25") == 2
    kept = retrieval_curve.kept(tmp_path)
    assert len({r["questions"] for r in kept}) == 1 and {r["torch"] for r in kept} == {torch.__version__}


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_minutes_are_above_0(minutes, capsys):
    assert main(["search", "compare", "--scale", "quick", "--minutes", minutes]) == 2
    assert "--minutes must be above 0" in capsys.readouterr().err


@pytest.fixture(scope="module")
def curve_of(small):
    sizes, cpu = replace(small, steps=4, evaluations=2), torch.device("cpu")
    data = retrieval_curve.load_data(sizes)

    def run(out, **options):
        return retrieval_curve.run_curve(data, sizes, cpu, out, ["BERT"], [0], **options)

    return run


def timeless(records):
    return [{k: v for k, v in r.items() if k not in ("seconds", "date")} for r in records]


def test_a_paused_curve_goes_on(tmp_path, curve_of):
    with pytest.raises(Paused, match="BERT paused after step 2 of 4"):
        curve_of(tmp_path / "paused", deadline=0.0)
    assert not (tmp_path / "paused/retrieval.jsonl").exists()
    assert [path for path in (tmp_path / "paused").iterdir() if path.is_dir()]
    # Measuring anew is not beginning anew: else what pauses would never come to its end.
    resumed = curve_of(tmp_path / "paused", anew=True)
    assert not [path for path in (tmp_path / "paused").iterdir() if path.is_dir()]
    assert timeless(resumed) == timeless(curve_of(tmp_path / "whole"))


def test_a_finished_curve_is_found_unless_half_anew_or_of_another_torch(tmp_path, curve_of, monkeypatch):
    trained, real = [], retrieval_curve.train_retriever
    monkeypatch.setattr(
        retrieval_curve, "train_retriever", lambda *a, **k: (trained.append(k["label"]), real(*a, **k))[1]
    )
    path = tmp_path / "retrieval.jsonl"
    first = curve_of(tmp_path)
    assert timeless(curve_of(tmp_path)) == timeless(first) and len(trained) == 1
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:-1]))
    again = curve_of(tmp_path)
    assert len(trained) == 2 and timeless(again) == timeless(first)
    assert len(path.read_text().splitlines()) == len(rows)  # the half is no longer there
    curve_of(tmp_path, anew=True)
    assert len(trained) == 3 and len(path.read_text().splitlines()) == len(rows)
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    other = curve_of(tmp_path)
    assert len(trained) == 4 and {r["torch"] for r in other} == {"9.9.0"}
    assert {r["run"] for r in other if "run" in r}.isdisjoint(r.get("run") for r in first)


def keep(folder, model, seed, bm25, date, **facts):
    rows = [r | dict(date=date) | facts for r in records(bm25)
            if r["model"] == "BM25" or (r["model"], r["seed"]) == (model, seed)]  # fmt: skip
    write_jsonl(folder / "measurements/a" / retrieval_curve.file_of(model, seed, "laptop"), rows)


def kept_runs(folder):
    return {(r["model"], r["seed"]) for r in retrieval_curve.kept(folder) if r["model"] != "BM25"}


def test_what_is_kept_together_was_asked_the_same_with_the_same_torch(tmp_path):
    keep(tmp_path, "ModernBERT", 0, 0.5, "2026-01-01")  # of before the digest was kept
    keep(tmp_path, "BERT", 0, 0.5, "2026-01-02")
    assert kept_runs(tmp_path) == {("ModernBERT", 0), ("BERT", 0)}
    keep(tmp_path, "BERT", 1, 0.5, "2026-01-03", questions="q")
    assert kept_runs(tmp_path) == {("ModernBERT", 0), ("BERT", 0), ("BERT", 1)}
    keep(tmp_path, "ModernBERT", 1, 0.5, "2026-01-04", questions="other")  # by chance BM25 is as good on them
    assert kept_runs(tmp_path) == {("ModernBERT", 0), ("BERT", 0), ("ModernBERT", 1)}
    keep(tmp_path, "ModernBERT", 1, 0.6, "2026-01-05", questions="other")
    assert kept_runs(tmp_path) == {("ModernBERT", 1)}
    keep(tmp_path, "BERT", 0, 0.6, "2026-01-06", questions="other", torch="9.9.0")
    assert kept_runs(tmp_path) == {("BERT", 0)}


# ---- the model for whoever names none --------------------------------------------------------------------------------


def test_the_default_model_is_trained_once_and_kept_whole(tmp_path, monkeypatch, small, capsys):
    monkeypatch.setenv("MODERNBERT_EDU_CACHE", str(tmp_path / "cache"))
    scale = replace(SCALES["quick"], search=replace(small, default_steps=2))
    trained = []
    real = default_model.train_default

    def stopped(*given):
        trained.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(default_model, "train_default", stopped)
    with pytest.raises(KeyboardInterrupt):
        default_model.default_model(scale, torch.device("cpu"))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]

    monkeypatch.setattr(default_model, "train_default", lambda *given: trained.append(given) or real(*given))
    folder = default_model.default_model(scale, torch.device("cpu"))
    assert default_model.default_model(scale, torch.device("cpu")) == folder and len(trained) == 2
    assert "a small one is trained here once" in capsys.readouterr().out
    assert load_retriever(folder).dimension == 128
    other = replace(scale, search=replace(scale.search, temperature=0.2))
    assert default_model.default_model(other, torch.device("cpu")) != folder


def test_the_cache_is_the_users_own_folder_unless_told(monkeypatch):
    monkeypatch.delenv("MODERNBERT_EDU_CACHE", raising=False)
    assert default_model.cache_folder().name == "modernbert_edu" and default_model.cache_folder().is_absolute()
