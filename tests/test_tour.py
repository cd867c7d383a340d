"""The tour, whole and in its parts, at a size of seconds; and the command line around it."""

import dataclasses
import json

import pytest
import torch

from modernbert_edu import load
from modernbert_edu.__main__ import main
from modernbert_edu.classroom import scale as scales
from modernbert_edu.tour import (
    configurations,
    fill_masks,
    is_whole_word,
    measuring_models,
    mixed_lengths,
    prepare,
    real_sequences,
    redraw,
    table,
)

TINY = dataclasses.replace(
    scales.SCALES["quick"].tour,
    vocab_size=512, tokenizer_characters=100_000, corpus_characters=None, steps=6, warmup_steps=2, batch_size=4,
    held_out_sequences=8, sequence_length=64, lengths=(64, 128),
    mixed_lengths=scales.MixedLengths(count=4, mean=40, std=20, max=96),
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of prose and code, in which a file is not UTF-8."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(12):
        words = " ".join(f"sentence {j} of document {i} says that every token counts." for j in range(60))
        (folder / f"{i}.txt").write_text(words)
        functions = [f"# this function adds {i}\ndef f{j}(x):\n    return x + {i}\n\n" for j in range(40)]
        (folder / f"{i}.py").write_text("".join(functions))
    (folder / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 50)
    return folder


@pytest.fixture(scope="module")
def data(corpus):
    return prepare(TINY, str(corpus))


@pytest.fixture()
def tiny_scale(monkeypatch):
    quick = dataclasses.replace(scales.SCALES["quick"], tour=TINY)
    monkeypatch.setitem(scales.SCALES, "quick", quick)


def test_the_two_models_have_equal_size_and_every_switch_between_them(data):
    configs = configurations(TINY, data.tokenizer)
    sizes = [config.num_parameters() for config in configs.values()]
    assert abs(sizes[1] / sizes[0] - 1) <= 0.005
    assert (configs["BERT"].positions, configs["ModernBERT"].positions) == ("learned", "rope")
    longer = measuring_models(configs, 700, torch.device("cpu"))["BERT"]
    assert longer.config.max_position_embeddings == 700 and longer.config.intermediate_size == 512


def test_sequences_for_timing_are_real_text_of_the_asked_lengths(data):
    sequences = real_sequences(data, [64, 9, 3000])
    assert [len(s) for s in sequences] == [64, 9, 3000]
    for s in sequences:
        assert s[0] == data.tokenizer.cls_id and s[-1] == data.tokenizer.sep_id
        assert not data.tokenizer.special_ids & set(s[1:-1])
    lengths = mixed_lengths(TINY)
    assert len(lengths) == 4 and max(lengths) <= 96 and min(lengths) >= 16 and len(set(lengths)) > 1


def test_whole_words_only_are_hidden(data):
    tokenizer = data.tokenizer
    ids = tokenizer.encode(" token counts.", add_special_tokens=False)
    texts = [tokenizer.decode([i]) for i in ids]
    found = [text for i, text in enumerate(texts[:-1]) if is_whole_word(tokenizer, ids[i], ids[i + 1])]
    assert found and all(text.startswith(" ") and text.strip().isalpha() for text in found)
    assert not is_whole_word(tokenizer, tokenizer.mask_id, ids[0])


def test_the_command_leaves_models_figures_and_a_table(corpus, tiny_scale, tmp_path, capsys):
    out, figures = tmp_path / "out", tmp_path / "figures"
    paths = ["--corpus", str(corpus), "--out", str(out), "--figures", str(figures), "--json", str(tmp_path / "r.jsonl")]
    status = main(["tour", "--scale", "quick", "--seed", "3", "--device", "cpu", *paths])
    printed = capsys.readouterr().out
    assert status == 0
    assert "1 not UTF-8" in printed or "not UTF-8: 1" in printed
    for word in ("held-out loss (nats)", "unigram entropy", "forward at 128", "mixed lengths", "hidden:"):
        assert word in printed, word
    assert {p.name for p in figures.glob("*.png")} == {"00_tour.png", "00_tour_mixed.png"}

    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    kept = list(figures.glob("measurements/*/00_tour-quick.jsonl"))
    assert [json.loads(line) for line in kept[0].read_text().splitlines()] == records
    for record in records:
        for name in ("what", "value", "unit", "model", "seed", "device", "torch", "dtype", "backend", "fingerprint",
                     "git_commit", "date", "command"):  # fmt: skip
            assert name in record, (name, record)
        assert str(tmp_path) not in json.dumps(record)
    assert table(records) in printed

    for folder, positions in (("bert", "learned"), ("modernbert", "rope")):
        model, tokenizer = load(out / folder)
        assert model.config.positions == positions and tokenizer.vocab_size == 512
    from transformers import AutoModelForMaskedLM

    _, report = AutoModelForMaskedLM.from_pretrained(out / "modernbert", output_loading_info=True)
    assert not any(report[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))

    before = (figures / "00_tour.png").read_bytes()
    (figures / "00_tour.png").unlink()
    redraw(figures)
    assert (figures / "00_tour.png").read_bytes() == before


def test_filled_masks_come_from_held_out_text_with_probabilities(data):
    configs = configurations(TINY, data.tokenizer)
    models = measuring_models(configs, 64, torch.device("cpu"))
    rows = fill_masks(models, data, torch.device("cpu"), count=3)
    assert len(rows) == 3
    for row in rows:
        assert "____" in row.context and row.truth.isalpha()
        for guesses in row.guesses.values():
            probabilities = [p for _, p in guesses]
            assert len(guesses) == 3 and probabilities == sorted(probabilities, reverse=True)
            assert 0 < sum(probabilities) < 1


def test_the_sweep_of_learning_rates_is_kept(corpus, tiny_scale, tmp_path, capsys):
    status = main(["tour", "--sweep", "--scale", "quick", "--corpus", str(corpus), "--figures", str(tmp_path / "f"),
                   "--out", str(tmp_path / "o"), "--device", "cpu"])  # fmt: skip
    printed = capsys.readouterr().out
    assert status == 0
    (kept,) = (tmp_path / "f").glob("measurements/*/00_tour-rates.jsonl")
    records = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(r["model"], r["learning_rate"]) for r in records] == [
        (model, rate) for rate in (5e-4, 1e-3, 2e-3, 4e-3) for model in ("BERT", "ModernBERT")
    ]
    for record in records:
        assert record["steps"] == 3 and f"{record['value']:.3f} nats" in printed
