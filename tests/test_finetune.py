"""Fine-tuning: every form of task is learnt, judged by its own metric, saved for others, and bad tables are refused."""

import json
import random

import numpy as np
import pytest
import torch
import transformers

from modernbert_edu import EncoderConfig, MaskedLM, load, save
from modernbert_edu.__main__ import main
from modernbert_edu.data.masking import IGNORED
from modernbert_edu.data.tokenizer import train_bpe, train_wordpiece
from modernbert_edu.errors import InputError
from modernbert_edu.tasks.finetune import Settings, encode, shorten
from modernbert_edu.tasks.forms import GLUE, METRICS, TASKS, find_task
from modernbert_edu.tasks.table import Examples, examples, label_names, read_file, split

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, init="normal",
             initializer_range=0.15, attention_pattern="G", max_position_embeddings=64)  # fmt: skip
GOOD, BAD = ["good", "fine", "lovely", "great"], ["bad", "poor", "awful", "dull"]
MEAN = ["--pooling", "mean", "--epochs", "8"]
QUICK = ["--rate", "3e-3", "--epochs", "4", "--batch-size", "8"]


def sentence(rng, words, filler=4):
    text = [rng.choice(["the", "film", "was", "a", "story", "of", "it"]) for _ in range(filler)]
    text.insert(rng.randrange(filler), rng.choice(words))
    return " ".join(text)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """An untrained model and a tokenizer that knows the words."""
    rng = random.Random(0)
    tokenizer = train_bpe([sentence(rng, GOOD + BAD) for _ in range(300)], vocab_size=384)
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("pretrained")
    save(MaskedLM(EncoderConfig.preset("modernbert-tiny", **SIZES, vocab_size=384)), tokenizer, out)
    return out


def table(path, rows):
    columns = list(rows[0])
    lines = ["\t".join(columns)] + ["\t".join(str(row[c]) for c in columns) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def sentiment(n=160, seed=1):
    rng = random.Random(seed)
    return [dict(sentence=sentence(rng, GOOD if i % 2 else BAD), label=i % 2) for i in range(n)]


def run(pretrained, out, task, data, *more):
    status = main(["finetune", str(pretrained), "--task", task, "--data", str(data), "--out", str(out), *QUICK, *more])
    return status, json.loads((out / "results.json").read_text()) if status == 0 else None


def test_single_sentences_from_a_file_of_glues_form(pretrained, tmp_path, capsys):
    data = table(tmp_path / "sst2.tsv", sentiment())
    status, records = run(pretrained, tmp_path / "out", "sst2", data, "--seeds", "2", "--json", str(tmp_path / "j"))
    assert status == 0 and len(records) == 2 and sum(r["kept"] for r in records) == 1
    assert max(r["value"] for r in records) >= 0.95  # a word decides
    assert "accuracy" in capsys.readouterr().out and len((tmp_path / "j").read_text().splitlines()) == 2
    ours, tokenizer = load(tmp_path / "out")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    ids = torch.tensor([tokenizer.encode("the film was lovely")])
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, theirs(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    assert ours.labels == ("0", "1") and ours(ids).logits.argmax() == 1


def test_pairs_and_a_number_in_the_users_own_units(pretrained, tmp_path):
    rng = random.Random(2)
    rows = []
    for _ in range(200):
        a, b = rng.choice(GOOD + BAD), rng.choice(GOOD + BAD)
        rows.append(dict(sentence1=a, sentence2=b, label=1000 + 50 * (a in GOOD) + 100 * (b in GOOD)))
    status, records = run(
        pretrained, tmp_path / "out", "stsb", table(tmp_path / "d.tsv", rows), "--pooling", "mean", "--epochs", "8"
    )
    found = {r["what"]: r["value"] for r in records}
    assert status == 0 and set(found) == {"spearman", "pearson"} and found["pearson"] > 0.9
    model, tokenizer = load(tmp_path / "out")
    text = [
        tokenizer.cls_id,
        *tokenizer.encode("good", False),
        tokenizer.sep_id,
        *tokenizer.encode("fine", False),
        tokenizer.sep_id,
    ]
    assert abs(float(model(torch.tensor([text])).logits) - 1150) < 40 and model.pooling == "mean"


def test_words_are_labelled_at_their_first_token(pretrained, tmp_path):
    rng = random.Random(3)
    rows = []
    for _ in range(120):
        words = sentence(rng, GOOD + BAD).split()
        rows.append(dict(words=words, labels=["P" if w in GOOD else "N" if w in BAD else "O" for w in words]))
    path = tmp_path / "ner.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, records = run(pretrained, tmp_path / "out", "words", path)
    assert status == 0 and {r["what"]: r["value"] for r in records}["macro_f1"] > 0.9
    there = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "out")
    assert set(there.config.id2label.values()) == {"N", "O", "P"}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_word_alignment_keeps_the_spaces(kind):
    texts = ["the filming was unbelievable indeed, dear friend"] * 30
    tokenizer = train_bpe(texts, 320) if kind == "bpe" else train_wordpiece(texts, 128)
    words = ["the", "filming", "was", "indeed", "unbelievable"]
    e = encode(Examples([words], [["a", "b", "a", "b", "c"]]), TASKS["words"], ("a", "b", "c"), tokenizer, 64)
    assert e.input_ids[0] == tokenizer.encode(" ".join(words))  # as running text would be cut
    labelled = [(i, a) for i, a in enumerate(e.answers[0]) if a != IGNORED]
    assert [a for _, a in labelled] == [0, 1, 0, 1, 2]
    spelled = [
        tokenizer.decode(e.input_ids[0][i:j]).strip()
        for (i, _), (j, _) in zip(labelled, [*labelled[1:], (-1, 0)], strict=True)
    ]
    assert spelled == words


def test_what_is_too_long_is_cut_and_counted(pretrained):
    tokenizer = load(pretrained)[1]
    part = Examples([("good " * 50, "bad"), ("good", "bad")], ["0", "1"])
    e = encode(part, GLUE["mrpc"], ("0", "1"), tokenizer, 20)
    assert e.cut == 1 and list(map(len, e.input_ids)) == [20, len(e.input_ids[1])]
    assert e.input_ids[0][-len(tokenizer.encode("bad", False)) - 1 : -1] == tokenizer.encode("bad", False)  # b is whole
    assert [len(t) for t in e.token_type_ids] == [len(i) for i in e.input_ids] and set(e.token_type_ids[0]) == {0, 1}


def test_shortening_cuts_the_longest_first():
    def plain(lengths, room):
        lengths = list(lengths)
        while sum(lengths) > room:
            lengths[lengths.index(max(lengths))] -= 1
        return lengths

    rng = random.Random(0)
    for _ in range(200):
        lengths = [rng.randint(0, 30) for _ in range(rng.choice([1, 2]))]
        room = rng.randint(1, 40)
        kept = [len(text) for text in shorten([[0] * n for n in lengths], room)]
        assert sorted(kept) == sorted(plain(lengths, room)) and all(k <= n for k, n in zip(kept, lengths, strict=True))


def test_metrics_equal_their_formulas():
    truth, said = np.array([0, 1, 1, 0, 1, 1]), np.array([0, 1, 0, 1, 1, 1])
    tp, fp, fn, tn = 3, 1, 1, 1
    assert METRICS["accuracy"](truth, said) == pytest.approx(4 / 6)
    assert METRICS["f1"](truth, said) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    want = (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert METRICS["matthews"](truth, said) == pytest.approx(want)
    a, b = np.array([1.0, 2, 3, 4]), np.array([1.0, 4, 9, 16])
    assert METRICS["spearman"](a, b) == pytest.approx(1) and METRICS["pearson"](a, b) == pytest.approx(
        np.corrcoef(a, b)[0, 1]
    )
    assert METRICS["pearson"](a, np.ones(4)) == 0.0


def test_glue_is_whole():
    assert set(GLUE) == {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"}
    assert GLUE["cola"].metrics[0] == "matthews" and GLUE["stsb"].form == "number"
    assert GLUE["mnli"].splits == ("train", "validation_matched")
    assert all(1e-5 <= task.rate <= 8e-5 for task in GLUE.values())  # inside the paper's sweep


def test_the_same_text_is_never_on_both_sides():
    rows = [("a",), ("b",), ("a",), ("c",), ("b",), ("d",)] * 5
    train, held = split(Examples(rows, list(range(30))), 0.2, seed=0)
    assert not set(train.texts) & set(held.texts) and len(train) + len(held) == 30


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_tables_of_every_kind_are_read_alike(tmp_path, suffix):
    import pandas

    frame = pandas.DataFrame(dict(sentence=['a "bare quote', "NA", "x, y"], label=["0", "1", "0"]))
    path = tmp_path / f"t{suffix}"
    if suffix == ".tsv":
        table(path, frame.to_dict("records"))
    else:
        {".csv": lambda: frame.to_csv(path, index=False), ".parquet": lambda: frame.to_parquet(path),
         ".jsonl": lambda: frame.to_json(path, orient="records", lines=True)}[suffix]()  # fmt: skip
    read = read_file(path, GLUE["sst2"])
    assert read.texts == [('a "bare quote',), ("NA",), ("x, y",)] and read.answers == ["0", "1", "0"]


def test_numbers_sort_as_numbers_and_names_as_names():
    def names(labels):
        part = Examples([("x",)] * len(labels), labels)
        return label_names(part, part, GLUE["sst2"])

    assert names(["10", "2", "1"]) == ("1", "2", "10") and names(["b", "a"]) == ("a", "b")


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([dict(text="x", label=0)] * 9, [], "no column 'sentence'; it has: text, label"),
        ([dict(sentence="", label=0), dict(sentence="y", label=1)], [], "row 1: column 'sentence' holds no text"),
        ([dict(sentence=f"x{i}", label="") for i in range(9)], [], "row 1: the label is empty"),
        ([dict(sentence=f"x{i}", label=1) for i in range(9)], [], "all training labels are '1'"),
        (
            [dict(sentence=f"x{i}", label="q") for i in range(9)],
            ["--task", "number", "--columns", "sentence"],
            "'q' is not a number",
        ),
        (sentiment(20), ["--task", "sst3"], "there is no task 'sst3'"),
        (sentiment(20), ["--metrics", "bleu"], "there is no metric 'bleu'"),
        (sentiment(20), ["--rate", "0"], "the learning rate must be above 0"),
        (sentiment(20), ["--epochs", "0"], "epochs must be a whole number"),
        (sentiment(20), ["--max-length", "3"], "max_length 3 leaves no room"),
        (sentiment(20), ["--seeds", "0"], "--seeds must be at least 1"),
        (sentiment(20), ["--data", "nowhere.tsv"], "there is no file nowhere.tsv"),
        ([dict(sentence="same", label=0)] * 9, [], "too few different texts"),
    ],
)
def test_bad_tables_and_settings_are_one_line(pretrained, tmp_path, capsys, rows, more, words):
    data = table(tmp_path / "d.tsv", rows)
    command = ["finetune", str(pretrained), "--task", "sst2", "--data", str(data), "--out", str(tmp_path / "o")]
    assert main([*command, *QUICK, *more]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_more_bad_input(pretrained, tmp_path, capsys):
    held = table(tmp_path / "h.tsv", [dict(sentence="x", label=7)])
    data = table(tmp_path / "d.tsv", sentiment(20))
    command = ["finetune", str(pretrained), "--out", str(tmp_path / "o")]
    assert main([*command, "--task", "sst2", "--data", str(data), "--held-out", str(held)]) == 2
    assert "the held-out label '7' does not occur in training (0, 1)" in capsys.readouterr().err
    assert main([*command, "--task", "text"]) == 2
    assert "needs a table: give --data FILE" in capsys.readouterr().err
    assert main([*command, "--task", "sst2"]) == 2  # the tests run offline
    assert "cannot be had from the Hub" in capsys.readouterr().err
    with pytest.raises(InputError, match="3 words and 2 labels"):
        examples(dict(words=[["a", "b", "c"]], labels=[["X", "Y"]]), TASKS["words"], "t")
    with pytest.raises(InputError, match="has no rows"):
        examples(dict(sentence=[], label=[]), GLUE["sst2"], "t")
    with pytest.raises(InputError, match="name one column of text"):
        find_task("text", columns=["a", "b", "c"])
    bert = MaskedLM(EncoderConfig.preset("bert-tiny", **{**SIZES, "attention_pattern": "G"}, vocab_size=384))
    save(bert, load(pretrained)[1], tmp_path / "bert")
    command[1] = str(tmp_path / "bert")
    assert main([*command, "--task", "sst2", "--data", str(data), "--max-length", "100"]) == 2
    assert "the model has 64 positions" in capsys.readouterr().err
    assert Settings.for_task(GLUE["cola"]).rate == 8e-5


def test_a_classifier_is_where_another_task_may_begin(pretrained, tmp_path, capsys):
    """As RTE, MRPC and STS-B begin with MNLI's model in the paper (arXiv 2412.13663)."""
    first, second = tmp_path / "first", tmp_path / "second"
    data = table(tmp_path / "sst2.tsv", sentiment(80))
    assert run(pretrained, first, "sst2", data, "--pooling", "mean")[0] == 0
    assert "classifier (" not in capsys.readouterr().out
    rng = random.Random(5)
    rows = [dict(sentence1=rng.choice(GOOD), sentence2=rng.choice(BAD), label=i / 4) for i in range(40)]
    pairs = table(tmp_path / "stsb.tsv", rows)
    status, records = run(first, second, "stsb", pairs, "--rate", "1e-8", "--epochs", "1")
    said = capsys.readouterr().out
    assert status == 0 and records[0]["pooling"] == "mean"  # as the head has learnt it
    assert said.count("is a classifier (0, 1): its encoder and head are kept, the last layer begins anew") == 1
    old, new = load(first)[0], load(second)[0]
    for part in ("encoder", "head"):
        for a, b in zip(getattr(old, part).parameters(), getattr(new, part).parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert old.labels == ("0", "1") and new.labels == ("label",) and new.classifier.weight.shape[0] == 1
    assert run(first, second, "stsb", pairs, "--epochs", "1", "--pooling", "cls")[1][0]["pooling"] == "cls"


def test_the_papers_number_stands_below_ours_for_glue_only(pretrained, tmp_path, capsys):
    data = table(tmp_path / "rte.tsv", [dict(sentence1="good", sentence2=f"bad {i}", label=i % 2) for i in range(30)])
    assert run(pretrained, tmp_path / "a", "rte", data, "--epochs", "1")[0] == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "quoted, not measured here" in line]
    assert "RTE dev set, accuracy: ModernBERT-base 0.874, -large 0.921" in line
    assert run(pretrained, tmp_path / "b", "pair", data, "--columns", "sentence1", "sentence2", "--epochs", "1")[0] == 0
    assert "quoted" not in capsys.readouterr().out


def test_a_tokenizer_of_another_model_is_refused(pretrained, tmp_path, capsys):
    small = MaskedLM(EncoderConfig.preset("modernbert-tiny", **SIZES, vocab_size=128))
    save(small, None, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_bytes((pretrained / "tokenizer.json").read_bytes())
    data = table(tmp_path / "d.tsv", sentiment(20))
    assert run(tmp_path / "m", tmp_path / "o", "sst2", data)[0] == 2
    assert "the tokenizer has 384 ids and the model 128" in capsys.readouterr().err
