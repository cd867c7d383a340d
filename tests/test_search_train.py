"""`search train`: pairs are read and checked, none of the held-out part is trained on, each kind of model is trained,
judged beside BM25 and saved."""

import json
import random

import pytest
import torch
from tiny_retriever import TEXTS, tiny_embedder

from modernbert_edu import EncoderConfig, MaskedLM, save
from modernbert_edu.__main__ import main
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.errors import InputError
from modernbert_edu.retriever import Embedder, TokenEmbedder
from modernbert_edu.retriever_folder import load_retriever, save_retriever
from modernbert_edu.tasks.library import Pair
from modernbert_edu.tasks.rerank import Reranker
from modernbert_edu.tasks.search_train import (
    connected,
    judge,
    open_retriever,
    read_pairs,
    rerank,
    split_pairs,
    trial_of,
)
from modernbert_edu.tasks.trial import Trial, rank_by_words

pytest.importorskip("bm25s")
pytest.importorskip("sentence_transformers")

# A question and the text that answers it have no word in common, so that words alone find nothing.
ASKED = "apple banana cherry grape lemon mango orange peach plum melon".split()
ANSWERED = "hammer needle pencil ruler saw shovel stapler tape wrench drill".split()


def every_row():
    """Two fruits -> the two tools that belong to them, the other way round: all 45 pairs."""
    made = [(i, j) for i in range(len(ASKED)) for j in range(i)]
    random.Random(0).shuffle(made)
    return [dict(query=f"{ASKED[i]} {ASKED[j]}", document=f"{ANSWERED[j]} and {ANSWERED[i]}") for i, j in made]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    with pytest.warns(UserWarning, match="stay unused"):
        tokenizer = train_bpe([f"{row['query']} {row['document']}" for row in every_row()] * 3, 512)
    config = EncoderConfig.preset(
        "modernbert-tiny", vocab_size=512, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=48, attention_pattern="G", max_position_embeddings=64, init="normal", initializer_range=0.15,
    )  # fmt: skip
    torch.manual_seed(0)
    return save(MaskedLM(config), tokenizer, tmp_path_factory.mktemp("pretrained"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", every_row())


def train(capsys, model, data, out, *more, status=0):
    capsys.readouterr()
    command = ["search", "train", model, "--data", data, "--out", out, "--device", "cpu", *more]
    assert main([str(word) for word in command]) == status
    captured = capsys.readouterr()
    if status:
        assert captured.err.count("\n") == 1 and captured.err.startswith("modernbert-edu: ")
        return captured.err
    records = json.loads((out / "results.json").read_text())
    return captured.out, {(r["ranking"], r["what"]): r["value"] for r in records}, records


# ---- the pairs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_tables_of_every_kind_give_the_same_pairs(tmp_path, suffix):
    import pandas

    frame = pandas.DataFrame(dict(q=['a "b"', "NA", 'a "b"', "x"], d=["one", "two", "one", "two"]))
    path = tmp_path / f"t{suffix}"
    {".tsv": lambda: path.write_text("q\td\n" + "".join(f"{q}\t{d}\n" for q, d in frame.values)),
     ".csv": lambda: frame.to_csv(path, index=False), ".parquet": lambda: frame.to_parquet(path),
     ".jsonl": lambda: frame.to_json(path, orient="records", lines=True)}[suffix]()  # fmt: skip
    pairs = read_pairs(path, ("q", "d"))
    assert [(pair.query, pair.document) for pair in pairs] == [('a "b"', "one"), ("NA", "two"), ("x", "two")]


def test_pairs_that_hang_together_stay_together():
    pairs = [Pair(q, d, "", "") for q, d in ("aA", "bB", "cB", "cC", "dD", "aE", "fF")]
    assert sorted(map(sorted, connected(pairs))) == [[0, 5], [1, 2, 3], [4], [6]]
    for seed in range(20):
        train_part, held = split_pairs(pairs, 0.3, seed)
        assert sorted(map(repr, train_part + held)) == sorted(map(repr, pairs)) and train_part and held
        assert not {p.query for p in train_part} & {p.query for p in held}
        assert not {p.document for p in train_part} & {p.document for p in held}
    many = [Pair(f"q{i}", f"d{i // 2}", "", "") for i in range(1000)]
    assert 90 <= len(split_pairs(many, 0.1, 0)[1]) <= 100
    with pytest.raises(InputError, match="no pairs can be held out, for all hang together"):
        split_pairs([Pair(f"q{i}", "the same", "", "") for i in range(9)], 0.1, 0)


def test_a_question_may_have_several_answers():
    tested = [Pair("q", "A", "", ""), Pair("q", "B", "", ""), Pair("r", "B", "", "")]
    trial = trial_of([Pair("s", "C", "", ""), Pair("t", "C", "", "")], tested)
    a, b, c = (trial.documents.index(text) for text in "ABC")
    assert len(trial.documents) == 3 and trial.queries == ["q", "r"] and trial.relevant == [{a, b}, {b}]
    found = judge(torch.tensor([[c, b, a], [b, a, c]]), trial)
    assert found["mrr@10"] == pytest.approx((1 / 2 + 1) / 2) and found["accuracy@1"] == 0.5
    assert found["recall@100"] == 1 and found["mrr@10 low"] <= found["mrr@10"] <= found["mrr@10 high"]


def test_ties_do_not_favour_the_right_text():
    pairs = [Pair(f"q{i}", f"d{i}", "", "") for i in range(400)]
    trial = trial_of(pairs[40:], pairs[:40])
    assert judge(rank_by_words(trial), trial)["recall@10"] < 0.2  # no word in common: every text scores 0


# ---- training --------------------------------------------------------------------------------------------------------


def test_an_embedder_learns_what_words_do_not_say(pretrained, data, tmp_path, capsys):
    given = ("--rate", "5e-3", "--epochs", "60", "--batch-size", "20", "--json", tmp_path / "j")
    printed, found, records = train(capsys, pretrained, data, tmp_path / "out", *given)
    assert found["BM25", "mrr@10"] < 0.3 and found["untrained", "mrr@10"] < 0.6 < found["embedder", "mrr@10"]
    assert len((tmp_path / "j").read_text().splitlines()) == len(records) == 3 * 7
    assert records[0]["pairs"] == 41 and records[0]["held_out"] == 4 and records[0]["kind"] == "embedder"
    assert "41 pairs to train on, 4 held out: 4 questions, 45 texts" in printed and "0 of 45 texts cut" in printed
    table = printed[printed.index(" mrr@10") :]
    assert all(name in table for name in ("BM25", "untrained", "embedder", "ndcg@10", "recall@100", "accuracy@1"))
    model = load_retriever(tmp_path / "out")
    assert isinstance(model, Embedder) and model.max_length == 64
    # What was trained can be trained on, and another kind begins with its encoder.
    again = open_retriever(str(tmp_path / "out"), "embedder", None, 0)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(a.equal(b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    late = open_retriever(str(tmp_path / "out"), "late", 32, 0)
    assert isinstance(late, TokenEmbedder) and late.max_length == 32
    assert all(a.equal(b) for a, b in zip(late.encoder.parameters(), model.encoder.parameters(), strict=True))


def test_late_interaction_is_trained_and_judged(pretrained, data, tmp_path, capsys):
    given = ("--kind", "late", "--rate", "5e-3", "--epochs", "40", "--batch-size", "20")
    _, found, _ = train(capsys, pretrained, data, tmp_path / "out", *given)
    assert found["late", "mrr@10"] > max(0.5, found["BM25", "mrr@10"])
    assert isinstance(load_retriever(tmp_path / "out"), TokenEmbedder)


def test_a_reranker_is_trained_and_judged_over_bm25(pretrained, data, tmp_path, capsys):
    given = ("--kind", "reranker", "--rate", "3e-3", "--epochs", "4", "--batch-size", "8", "--negatives", "5")
    printed, found, records = train(capsys, pretrained, data, tmp_path / "out", *given)
    assert records[0]["negatives"] == 5 and "5 wrong texts each" in printed and "pairs cut to 64 tokens" in printed
    assert records[0]["steps"] == 21 and records[0]["seconds"] > 0
    # What is recorded is what the saved model does.
    reranker, trial = Reranker.load(tmp_path / "out"), trial_of(*split_pairs(read_pairs(data), 0.1, 0))
    again = judge(rerank(reranker, trial, rank_by_words(trial)), trial)
    assert reranker.max_length == 64
    for name, value in again.items():
        assert found["BM25, best 50 reranked", name] == pytest.approx(value)
    assert again != judge(rank_by_words(trial), trial)


def test_what_the_reranker_did_not_read_stays_below(monkeypatch):
    class Backwards:
        def rerank_indices(self, queries, texts, indices):
            return None, indices.flip(1)

    monkeypatch.setattr("modernbert_edu.tasks.search_train.CANDIDATES", 2)
    trial = Trial(["q"], list("abcd"), [{0}])
    assert rerank(Backwards(), trial, torch.tensor([[3, 1, 2, 0]])).tolist() == [[1, 3, 2, 0]]


def test_a_held_out_file_is_taken_as_it_is(pretrained, tmp_path, capsys):
    everything = every_row()
    data, held = write(tmp_path / "a.jsonl", everything[:40]), write(tmp_path / "b.jsonl", everything[40:])
    _, _, records = train(capsys, pretrained, data, tmp_path / "out", "--held-out", held, "--epochs", "0.5")
    assert records[0]["pairs"] == 40 and records[0]["held_out"] == 5 and records[0]["steps"] == 1
    again = write(tmp_path / "c.jsonl", everything[39:])
    error = train(capsys, pretrained, data, tmp_path / "out", "--held-out", again, status=2)
    assert "1 held-out rows have a question that is in the training part" in error


def test_columns_can_be_named(pretrained, tmp_path, capsys):
    data = write(tmp_path / "d.jsonl", [dict(asked=row["query"], text=row["document"]) for row in every_row()])
    error = train(capsys, pretrained, data, tmp_path / "out", status=2)
    assert "d.jsonl has no column 'query'; it has: asked, text (name yours with --columns)" in error
    train(capsys, pretrained, data, tmp_path / "out", "--columns", "asked", "text", "--epochs", "0.1")
    assert load_retriever(tmp_path / "out").max_length == 64


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        (lambda rows: [{**rows[0], "query": " "}, *rows], [], "row 1: column 'query' holds no text"),
        (lambda rows: [rows[0], {"query": "q", "document": None}], [], "row 2: column 'document' holds no text"),
        (lambda rows: [rows[0]] * 5, [], "no pairs can be held out"),
        (lambda rows: rows, ["--data", "nowhere.tsv"], "there is no file nowhere.tsv"),
        (lambda rows: rows, ["--columns", "query", "query"], "name two columns"),
        (lambda rows: rows, ["--rate", "0"], "learning rate must be above 0"),
        (lambda rows: rows, ["--epochs", "0"], "--epochs must be above 0"),
        (lambda rows: rows, ["--batch-size", "0"], "--batch-size must be at least 1"),
        (lambda rows: rows, ["--batch-size", "1"], "a batch of one pair has no negatives"),
        (lambda rows: rows, ["--max-length", "9999"], "max_length must lie between 3 and the model's 64"),
        (lambda rows: rows, ["--negatives", "2"], "--negatives are a reranker's"),
        (lambda rows: rows, ["--kind", "reranker", "--negatives", "99"], "too few different texts for 99"),
        (lambda rows: rows, ["--kind", "reranker", "--max-length", "2"], "leaves no room"),
        (lambda rows: rows, ["--kind", "colbert"], "invalid choice: 'colbert'"),
    ],
)
def test_bad_tables_and_settings_are_one_line(pretrained, tmp_path, capsys, change, more, words):
    data = write(tmp_path / "d.jsonl", change(every_row()))
    assert words in train(capsys, pretrained, data, tmp_path / "out", *more, status=2)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_models_that_cannot_be_trained_are_one_line(pretrained, data, tmp_path, capsys):
    assert "there is no folder no/model/here" in train(capsys, "no/model/here", data, tmp_path / "o", status=2)
    save(tiny_embedder().encoder, None, tmp_path / "bare")
    for kind in ("embedder", "reranker"):
        assert "has no tokenizer" in train(capsys, tmp_path / "bare", data, tmp_path / "o", "--kind", kind, status=2)


def test_the_trained_embedder_serves_search_build(data, tmp_path, capsys):
    save_retriever(tiny_embedder(), tmp_path / "tiny")
    train(capsys, tmp_path / "tiny", data, tmp_path / "out", "--epochs", "0.1")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(TEXTS[0])
    build = ["search", "build", tmp_path / "texts", "--out", tmp_path / "index", "--model", tmp_path / "out"]
    assert main([*map(str, build), "--device", "cpu"]) == 0
    assert "trained for no search" not in capsys.readouterr().out
