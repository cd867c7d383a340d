"""Long texts in windows: every token is read, a text has one answer, and a fact at the end of a long text is learnt."""

import json
import random

import numpy as np
import pytest
import torch

from modernbert_edu import EncoderConfig, MaskedLM, load, save
from modernbert_edu.__main__ import main
from modernbert_edu.classifier import SequenceClassifier
from modernbert_edu.data.masking import IGNORED
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.errors import InputError
from modernbert_edu.tasks.finetune import Encoded, Settings, encode, evaluate
from modernbert_edu.tasks.forms import GLUE, METRICS, TASKS
from modernbert_edu.tasks.table import Examples
from modernbert_edu.tasks.windows import continued, counted, divide, one_a_text, starts

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, init="normal",
             initializer_range=0.15, attention_pattern="G", max_position_embeddings=64, vocab_size=384)  # fmt: skip
GOOD, BAD, FILLER = ["good", "fine"], ["bad", "poor"], ["the", "film", "was", "a", "story", "of", "it"]
CLASSES = ("0", "1")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    rng = random.Random(0)
    tokenizer = train_bpe([" ".join(rng.choices(GOOD + BAD + FILLER, k=8)) for _ in range(300)], vocab_size=384)
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("pretrained")
    save(MaskedLM(EncoderConfig.preset("modernbert-tiny", **SIZES)), tokenizer, out)
    return out


def fact_at_the_end(n, seed, words=60):
    rng = random.Random(seed)
    texts = [" ".join([*rng.choices(FILLER, k=words), rng.choice(GOOD if i % 2 else BAD)]) for i in range(n)]
    return Examples([(text,) for text in texts], [str(i % 2) for i in range(n)])


# ------------------------------------------------------------------------------- windows of token ids


def test_windows_cover_a_text_and_overlap():
    rng = random.Random(0)
    for _ in range(500):
        length, size, stride = rng.randint(0, 120), rng.randint(1, 40), rng.choice([0.1, 0.5, 0.75, 1.0])
        begins = starts(length, size, stride)
        covered = {i for begin in begins for i in range(begin, min(length, begin + size))}
        assert covered == set(range(length)) and begins[0] == 0
        assert all(0 < b - a <= max(1, stride * size) for a, b in zip(begins, begins[1:], strict=False))
        assert len(begins) == 1 if length <= size else begins[-1] + size == length  # the last is full too


def test_one_text_and_pairs_lose_nothing_and_fit():
    rng = random.Random(1)
    for _ in range(500):
        room = rng.randint(8, 40)
        texts = [list(range(100 * k, 100 * k + rng.randint(1, 90))) for k in range(rng.choice([1, 2]))]
        rows, lost = divide(texts, room)
        assert all(sum(map(len, row)) <= room and len(row) == len(texts) for row in rows)
        shortest = min(map(len, texts)) if len(texts) == 2 else 0
        assert lost == (sum(map(len, texts)) > room and shortest > room - room // 4)
        if not lost:
            seen = [{i for row in rows for i in row[k]} for k in range(len(texts))]
            assert seen == [set(text) for text in texts]
            assert len(texts) == 1 or all(len(row[k]) == shortest for row in rows for k in (0, 1)
                                          if len(texts[k]) == shortest < len(texts[1 - k]))  # fmt: skip
        if sum(map(len, texts)) <= room:
            assert rows == [texts]


def test_words_go_on_in_the_next_window_and_are_labelled_once():
    rng = random.Random(2)
    for _ in range(300):
        room, words = rng.randint(6, 20), [[i] * rng.randint(0, 5) for i in range(rng.randint(1, 40))]
        rows, cut = continued(words, list(range(len(words))), room)
        assert not cut and all(len(ids) == len(answers) <= room for ids, answers in rows)
        assert sum((ids for ids, _ in rows), []) == sum(words, [])
        labelled = [a for _, answers in rows for a in answers if a != IGNORED]
        assert labelled == [i for i, word in enumerate(words) if word]
        assert all(ids[0] == answers[0] for ids, answers in rows if ids)  # no word is torn apart
    rows, cut = continued([[1], [2] * 9, [3]], [0, 1, 2], 4)
    assert cut and rows == [([1], [0]), ([2] * 4, [1, *[IGNORED] * 3]), ([3], [2])]


# ------------------------------------------------------------------------------------------- encoding


def test_encoded_windows_fit_and_short_texts_are_as_before(pretrained):
    tokenizer = load(pretrained)[1]
    part = Examples([("good " * 50, "bad"), ("good", "bad"), ("fine", "poor " * 70)], ["0", "1", "0"])
    windows = encode(part, GLUE["mrpc"], CLASSES, tokenizer, 20, "windows")
    cut = encode(part, GLUE["mrpc"], CLASSES, tokenizer, 20)
    assert windows.cut == 0 and cut.cut == 2 and cut.owners is None and max(map(len, windows.input_ids)) == 20
    assert sorted(set(windows.owners)) == [0, 1, 2] and windows.owners.count(1) == 1
    assert windows.input_ids[windows.owners.index(1)] == cut.input_ids[1]
    assert counted(windows.owners) == (2, len(windows) - 1) and counted(cut.owners) == (0, 0)
    assert windows.answers == [int(part.answers[owner]) for owner in windows.owners]
    whole = encode(part, GLUE["mrpc"], CLASSES, tokenizer, 200, "windows")
    assert whole.input_ids == encode(part, GLUE["mrpc"], CLASSES, tokenizer, 200).input_ids and len(whole) == 3
    assert all(
        len(i) == len(t) and set(t) == {0, 1} for i, t in zip(windows.input_ids, windows.token_type_ids, strict=True)
    )


def test_encoded_words_lose_no_label(pretrained):
    tokenizer = load(pretrained)[1]
    words = ["good", "film", "bad"] * 20
    part = Examples([words, ["good"]], [["0", "1", "0"] * 20, ["1"]])
    windows = encode(part, TASKS["words"], CLASSES, tokenizer, 16, "windows")
    cut = encode(part, TASKS["words"], CLASSES, tokenizer, 16)
    labels = [a for answers in windows.answers for a in answers if a != IGNORED]
    assert labels == [0, 1, 0] * 20 + [1] and windows.cut == 0 and max(map(len, windows.input_ids)) <= 16
    assert cut.cut == 1 and sum(a != IGNORED for a in cut.answers[0]) < 20
    inner = [i for row, owner in zip(windows.input_ids, windows.owners, strict=True) if owner == 0 for i in row[1:-1]]
    assert inner == tokenizer.encode(" ".join(words), add_special_tokens=False)


# ----------------------------------------------------------------------------------------- evaluation


def test_averages_are_what_a_loop_says():
    torch.manual_seed(0)
    owners = torch.tensor([2, 0, 0, 1, 2, 2])
    logits, labels = torch.randn(6, 3), torch.tensor([5, 7, 7, 1, 5, 5])
    mean, answers = one_a_text(logits, labels, owners)
    for text in range(3):
        torch.testing.assert_close(mean[text], logits[owners == text].mean(0))
    assert answers.tolist() == [7, 1, 5]


@pytest.mark.parametrize("form", ["classes", "number"])
def test_evaluation_equals_averaging_by_hand(pretrained, form):
    task = TASKS["text"] if form == "classes" else TASKS["number"]
    config, tokenizer = load(pretrained)[0].config, load(pretrained)[1]
    torch.manual_seed(3)
    model = SequenceClassifier(config, CLASSES if form == "classes" else ("score",)).eval()
    rng = random.Random(4)
    texts = [(" ".join(rng.choices(FILLER + GOOD, k=rng.randint(3, 90))),) for _ in range(40)]
    answers = [str(i % 2) for i in range(40)] if form == "classes" else [rng.random() for _ in range(40)]
    encoded = encode(Examples(texts, answers), task, CLASSES, tokenizer, 32, "windows")
    assert counted(encoded.owners)[0] > 10
    said = []
    with torch.no_grad():
        for text in range(40):
            rows = [ids for ids, owner in zip(encoded.input_ids, encoded.owners, strict=True) if owner == text]
            said.append(torch.stack([model(torch.tensor([row])).logits[0] for row in rows]).mean(0))
    said = torch.stack(said)
    said = said.argmax(-1).numpy() if form == "classes" else (said[:, 0] * 2.0 + 1.0).numpy()
    truth = np.array([float(answer) for answer in answers])
    scale = None if form == "classes" else (1.0, 2.0)
    found = evaluate(model, encoded, task, tokenizer.pad_id, batch_size=7, scale=scale)
    assert found == {name: pytest.approx(METRICS[name](truth, said), abs=1e-5) for name in task.metrics}
    single = Encoded(encoded.input_ids, encoded.token_type_ids, encoded.answers)  # each window for itself
    assert evaluate(model, single, task, tokenizer.pad_id, scale=scale) != found


# ------------------------------------------------------------------------------------------- training


def test_a_fact_at_the_end_is_learnt_with_windows_and_not_when_cut(pretrained, tmp_path, capsys):
    for name, n, seed in (("train", 120, 1), ("held", 80, 2)):
        part = fact_at_the_end(n, seed)
        rows = [dict(text=text, label=answer) for (text,), answer in zip(part.texts, part.answers, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    accuracy = {}
    for long in ("cut", "windows"):
        out = tmp_path / long
        command = ["finetune", str(pretrained), "--task", "text", "--data", str(tmp_path / "train.jsonl"), "--held-out",
                   str(tmp_path / "held.jsonl"), "--out", str(out), "--rate", "3e-3", "--epochs", "4", "--batch-size",
                   "8", "--max-length", "32", "--long", long, "--pooling", "mean"]  # fmt: skip
        assert main(command) == 0
        (record,) = json.loads((out / "results.json").read_text())
        accuracy[long] = record["value"]
        said = capsys.readouterr().out
        if long == "windows":
            assert "windows of 32 tokens: 120 of 120 training texts in " in said and "windows/s" in said
            assert ", 80 of 80 held out in " in said and "cut to" not in said
        else:
            assert "cut to 32 tokens: 120 of 120 training texts, 80 of 80 held out" in said
    assert accuracy["windows"] >= 0.95 and accuracy["cut"] < 0.75, accuracy


def test_bad_settings_are_one_line(pretrained, tmp_path, capsys):
    (tmp_path / "d.jsonl").write_text(json.dumps(dict(text="a", label=1)) + "\n")
    command = ["finetune", str(pretrained), "--task", "text", "--data", str(tmp_path / "d.jsonl"), "--out",
               str(tmp_path / "o"), "--long", "windows"]  # fmt: skip
    assert main([*command, "--stride", "0"]) == 2
    error = capsys.readouterr().err
    assert "the stride is a share of a window" in error and error.count("\n") == 1
    assert main([*command, "--long", "sideways"]) == 2
    assert "sideways" in capsys.readouterr().err
    with pytest.raises(InputError, match="long texts can be 'cut' or 'windows', not 'sideways'"):
        Settings.for_task(GLUE["sst2"], long="sideways")
    assert Settings.for_task(GLUE["sst2"]).long == "cut"
