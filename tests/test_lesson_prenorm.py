"""What 03_prenorm_and_biases measures: against definitions in loops, and its figures from records."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from modernbert_edu import MaskedLM
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.data.corpus import load_corpus
from modernbert_edu.data.prepared import prepare
from modernbert_edu.errors import InputError
from modernbert_edu.lessons import MODULES, prenorm
from modernbert_edu.measure import plots

CPU = torch.device("cpu")
SIZES = replace(
    SCALES["quick"].prenorm, vocab_size=512, tokenizer_characters=30_000, corpus_characters=60_000,
    sequence_length=32, held_out_sequences=4, deep_width=16, deep_heads=2, depths=(1, 3), profile_steps=1,
    rate_layers=1, rate_variants=("post-norm, normal", "pre-norm, megatron"), rate_steps=2, topic_sequences=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return prepare(SIZES, load_corpus("python", max_characters=SIZES.corpus_characters))


@pytest.fixture(scope="module")
def records(data):
    measures = [prenorm.measure_depth, prenorm.measure_embedding, prenorm.measure_biases, prenorm.measure_ablation]
    return prenorm.measure_rates(SIZES, CPU) + [r for measure in measures for r in measure(data, SIZES, CPU)]


def build(variant, data, layers=3):
    torch.manual_seed(0)
    return MaskedLM(prenorm.deep_config(variant, layers, SIZES, data.tokenizer)).eval()


def test_the_gain_decides_sigma(data):
    config = prenorm.deep_config("pre-norm, normal", 2, SIZES, data.tokenizer)
    assert config.initializer_range * math.sqrt(config.hidden_size) == pytest.approx(0.02 * math.sqrt(768))
    wide = prenorm.deep_config("post-norm, megatron", 2, SIZES, data.tokenizer, gain=1.0)
    assert wide.initializer_range == 1 / math.sqrt(SIZES.deep_width)
    assert (wide.norm_placement, wide.init, wide.bias) == ("post", "megatron", True)
    with pytest.raises(InputError, match="there is no variant 'sideways'"):
        prenorm.deep_config("sideways", 2, SIZES, data.tokenizer)


def test_a_profile_is_what_its_words_say(data):
    model, (ids, labels, mask) = build("pre-norm, normal", data), prenorm.held_out_batch(data, SIZES)
    found = prenorm.profile(model, (ids, labels, mask), dict(model="m"))
    assert all(p.grad is None for p in model.parameters())
    model(ids, mask, labels=labels).loss.backward()
    states = model.encoder(ids, mask, output_hidden_states=True).hidden_states
    for layer, value in prenorm.curve(found, "stream_rms", model="m"):
        rows = zip(states[layer], mask.bool(), strict=True)
        numbers = [x for row, real in rows for x in row[real].flatten().tolist()]
        assert value == pytest.approx(math.sqrt(sum(x * x for x in numbers) / len(numbers)), rel=1e-5)
    for layer, value in prenorm.curve(found, "gradient_norm", model="m"):
        block = model.encoder.layers[layer]
        matrices = [block.attn.Wqkv, block.attn.Wo, block.mlp.Wi, block.mlp.Wo]
        total = sum(x * x for linear in matrices for x in linear.weight.grad.flatten().tolist())
        assert value == pytest.approx(math.sqrt(total), rel=1e-5)
    assert [len(prenorm.curve(found, what)) for what in ("stream_rms", "gradient_norm")] == [4, 3]


@pytest.mark.parametrize("variant", ["pre-norm, normal", "pre-norm, megatron"])
def test_the_pre_norm_stream_is_embedding_plus_outputs(data, variant):
    encoder = build(variant, data).encoder
    embedding, outputs, last = prenorm.stream_parts(encoder, torch.arange(20))
    assert len(outputs) == 6
    torch.testing.assert_close(embedding + sum(outputs), last)
    assert not any(module._forward_hooks for module in encoder.modules())


def test_topics_are_disjoint_and_reproducible():
    vocabulary = prenorm.TopicWords(topics=5, words_per_topic=3)
    sequences = prenorm.topic_sequences(vocabulary, 12, 200, seed=3)
    assert sequences == prenorm.topic_sequences(vocabulary, 12, 200, seed=3)
    assert sequences != prenorm.topic_sequences(vocabulary, 12, 200, seed=4)
    assert {(len(s), s[0], s[-1]) for s in sequences} == {(12, vocabulary.cls_id, vocabulary.sep_id)}
    topics = []  # merge what shares a word
    for words in (set(s[1:-1]) for s in sequences):
        overlapping = [t for t in topics if t & words]
        topics = [t for t in topics if not t & words] + [words.union(*overlapping)]
    assert sorted(len(t) for t in topics) == [3] * 5
    assert not set().union(*topics) & vocabulary.special_ids
    assert set(vocabulary.ordinary_ids.tolist()) | vocabulary.special_ids == set(range(vocabulary.vocab_size))


def test_which_rates_work_and_which_is_the_first_too_high():
    losses = {1e-3: 5.0, 2e-3: 3.0, 4e-3: 2.5, 8e-3: 4.2, 1.6e-2: math.inf}
    assert prenorm.working_rates(losses, 3.5) == [2e-3, 4e-3]
    assert prenorm.first_broken_rate(losses, 3.5) == 8e-3
    assert prenorm.first_broken_rate({1e-3: 5.0, 2e-3: 3.0}, 3.5) is None
    assert prenorm.first_broken_rate({1e-3: 3.0, 2e-3: math.nan}, 3.5) == 2e-3


def test_the_verdict_is_read_from_the_losses():
    def records(model, *losses):
        facts = dict(what="rate_loss", model=model, warmup=1, blind=4.0)
        return [facts | dict(learning_rate=10.0**-k, value=x) for k, x in zip((4, 3, 2), losses, strict=True)]

    post, pre, never = (
        records("post", 3.6, 3.0, 4.1),
        records("pre", 3.4, 2.9, 3.2),
        records("never", 4.1, 4.0, math.inf),
    )
    assert prenorm.rates_verdict(post + pre, "post") == [
        "pre, no warm-up: its highest rate that works is 10 times that of post"
    ]
    assert prenorm.rates_verdict(post + never, "post") == ["never, no warm-up: no rate works for never"]
    assert prenorm.rates_table(post + pre + never) == [
        ("post", "none", "0.001", "3.00", "0.01"),
        ("pre", "none", "0.0001, 0.001, 0.01", "2.90", "not found"),
        ("never", "none", "none", "4.00", "not found"),
    ]


def test_a_training_that_breaks_counts_as_infinite(data):
    model = build("post-norm, normal", data)
    nn.init.constant_(model.encoder.layers[0].mlp.Wi.weight, float("nan"))
    how = dict(steps=1, batch_size=2, learning_rate=1e-3, warmup_steps=1)
    assert prenorm.train(model, data.train, data.held_out, data.tokenizer, SIZES, CPU, **how) == math.inf


def test_the_plain_embedding_has_as_many_parameters(data):
    model = build("pre-norm, megatron", data)
    count = sum(p.numel() for p in model.parameters())
    plain = prenorm.plain_embedding(model)
    assert plain is model and sum(p.numel() for p in plain.parameters()) == count
    assert isinstance(plain.encoder.embeddings.norm, nn.Identity)
    assert isinstance(plain.encoder.layers[0].attn_norm, nn.LayerNorm)


def test_operations_are_counted_without_views():
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    counts = prenorm.count_operations(lambda: (x.view(12).view(3, 4) @ w.T).sum().backward())
    assert counts["mm"] == 2 and "view" not in counts and "t" not in counts
    linear = {bias: nn.Linear(4, 5, bias=bias) for bias in (True, False)}
    more, fewer = (sum(prenorm.count_operations(lambda m=m: m(x).sum().backward()).values()) for m in linear.values())
    assert more > fewer  # the gradient of the bias


def test_biases_cost_parameters_and_operations_but_no_activations(records, data):
    def value(what, model):
        return [r["value"] for r in records if r["what"] == what and r["model"] == model]

    assert value("kept_bytes", "with biases") == value("kept_bytes", "without")
    for what in ("parameters", "tensors", "operations"):
        assert value(what, "with biases") > value(what, "without")


def test_the_ablation_compares_equals_at_one_rate(records):
    runs = [r for r in records if r.get("purpose") == "final"]
    assert {r["model"] for r in runs} == {"ModernBERT", *prenorm.ABLATION}
    assert {r["learning_rate"] for r in runs} == {SIZES.ablation_rate}
    sizes = {r["parameters"] for r in runs}
    assert max(sizes) <= 1.005 * min(sizes)


def test_the_embedding_enters_at_the_size_of_its_norm(records):
    rms = {r["model"]: r["value"] for r in records if r["what"] == "embedding_rms"}
    assert rms["norm after the embedding"] == pytest.approx(1, abs=1e-3) and rms["none"] < 0.5


def test_figures_are_drawn_from_records_as_they_are_kept(records, tmp_path):
    kept = [json.loads(json.dumps(record)) for record in records]
    for stem, figure in prenorm.FIGURES.items():
        assert stem.startswith("03_prenorm_and_biases")
        drawn = figure(kept)
        assert all(ax.get_xlabel() and ax.get_title() for ax in drawn.axes)
        assert drawn._suptitle is None or "own best" not in drawn._suptitle.get_text()
        assert "measured on" in drawn.texts[-1].get_text()
        assert plots.save(drawn, tmp_path / f"{stem}.png").stat().st_size > 5000
    assert MODULES["03_prenorm_and_biases"] == "prenorm"


def test_a_broken_rate_is_drawn_as_a_cross(records):
    losses = [dict(r, value=math.inf) if r.get("learning_rate") == 1.6e-2 else r for r in records]
    figure = prenorm.plot_rates(losses)
    crosses = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in crosses) == 4


def test_the_parts_of_the_stream_are_pictured():
    parts = {"a": torch.randn(4, 6), "b": torch.randn(4, 6), "a + b": torch.randn(4, 6)}
    figure = prenorm.plot_parts(parts, ["w", "x", "y", "z"])
    assert [ax.get_title() for ax in figure.axes[:3]] == list(parts)
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["+", "="]
