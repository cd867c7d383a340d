"""What 06_alternating_attention measures: formulas against counting, and the figures drawn from records."""

import random
from dataclasses import replace

import pytest
import torch

from modernbert_edu import Encoder, EncoderConfig
from modernbert_edu.attention import attention_mask
from modernbert_edu.classroom.checks.alternating import band_by_loops, seen_by_products
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.lessons import alternating
from modernbert_edu.measure import flops, plots
from modernbert_edu.unpadding import Layout

CPU = torch.device("cpu")
SIZES = replace(
    SCALES["quick"].alternating, lengths=(128, 256), mask_up_to=128, memory_lengths=(128, 256), heads=2, head_size=8,
    timing_budget=0.0, longest_call=10.0, short_lengths=(65, 130), short_tokens=260, short_repeats=3,
    field_length=300, field_layers=3, field_hidden=8, encoder_lengths=(128, 256), encoder_tokens=256,
)  # fmt: skip


@pytest.fixture(scope="module")
def records():
    found = alternating.measure_receptive_field(["L", "LLG"], SIZES)
    for measure in (alternating.measure_attention, alternating.measure_attention_memory,
                    alternating.measure_short_documents, alternating.measure_encoder):  # fmt: skip
        found += measure(SIZES, CPU, torch.float32)
    return found


def of(records, what, model=None):
    return [r for r in records if r["what"] == what and model in (None, r["model"])]


# ---- reach -----------------------------------------------------------------------------------------------------------


def test_tokens_seen_is_what_products_of_masks_say():
    draw = random.Random(0)
    for _ in range(60):
        length = draw.randint(1, 24)
        case = "".join(draw.choices("LLLG", k=draw.randint(1, 4))), draw.randint(0, 6), draw.randrange(length), length
        assert alternating.tokens_seen(*case) == seen_by_products(*case), case


@pytest.mark.parametrize("end", ["modernbert-tiny", "bert-tiny"])
def test_gradients_reach_as_far_as_the_formula_in_both_kinds_of_model(end):
    config = EncoderConfig.preset(
        end, hidden_size=8, num_attention_heads=2, num_hidden_layers=3, local_window=6, attention_pattern="LLG"
    )
    rows = alternating.gradients_by_layer(Encoder(config).double(), length=40, token=3)
    for layer, row in enumerate(rows, start=1):
        assert int((row != 0).sum()) == alternating.tokens_seen("LLG"[:layer], 3, 3, 40)


def test_the_measured_field_carries_its_formula(records):
    field = of(records, "receptive_field")
    assert [r["value"] for r in field if r["model"] == "L"] == [129, 257, 300]
    assert all(r["value"] == r["formula"] for r in field)


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_every_pattern_is_timed_and_the_full_mask_only_where_it_fits(records):
    timed = {(r["model"], r["length"]) for r in of(records, "attention_seconds")}
    assert timed == {(p, n) for p in alternating.PATTERNS for n in (128, 256)} | {(alternating.MASKED, 128)}
    for r in of(records, "attention_seconds", "L"):
        assert r["needed"] == int(band_by_loops([r["length"]], 64).sum())
        assert r["in_blocks"] == r["length"] * 192
    one = of(records, "attention_seconds", "GLL")[-1]
    assert 3 * one["needed"] == 256**2 + 2 * flops.pairs_in_window(256, 64)


def test_a_pattern_stops_where_it_would_take_too_long_and_local_layers_never_do():
    found = alternating.measure_attention(replace(SIZES, longest_call=0.0), CPU, torch.float32)
    assert {r["model"] for r in of(found, "stopped")} >= {"G", "GLL"}
    assert [r["length"] for r in of(found, "attention_seconds", "G")] == [128]
    assert [r["length"] for r in of(found, "attention_seconds", "L")] == [128, 256]


def test_all_calls_of_a_pattern_compute_the_definition():
    q, k, v = torch.randn(3, 150, 2, 8)
    calls = alternating._layers(q, k, v, Layout.from_lengths([150]), 64)
    masked = calls[alternating.MASKED]()[0].transpose(0, 1)
    torch.testing.assert_close(masked, calls["L"](), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(calls["G"](), calls["L"]())
    assert len(calls["GLL"]()) == 3


def test_eager_memory_grows_with_the_square_and_fused_memory_with_the_length():
    sizes = replace(SIZES, memory_lengths=(512, 1024), mask_up_to=1024)
    found = alternating.measure_attention_memory(sizes, CPU, torch.float32)
    value = {(r["model"], r["length"]): r["value"] for r in found}
    growth = {model: value[model, 1024] / value[model, 512] for model in ("G", "L", alternating.EAGER)}
    assert growth["G"] == pytest.approx(2, abs=0.1) and growth["L"] == pytest.approx(2, abs=0.1)
    assert growth[alternating.EAGER] > 3.5
    assert [r["mask_bytes"] for r in of(found, "attention_bytes", "L")] == [512 * 192 * 4, 1024 * 192 * 4]


def test_short_documents_hold_the_same_tokens_at_every_length(records):
    for r in of(records, "packed_seconds"):
        assert r["documents"] * r["length"] == 260


def test_the_encoder_is_measured_with_each_pattern(records):
    rates = of(records, "forward_tokens_per_second")
    assert {r["model"]: r["layers"] for r in rates} == {"G": "GGGG", "GLL": "GLLG", "L": "LLLL"}
    work = {(r["model"], r["length"]): r["flops"] for r in rates}
    assert work["G", 256] > work["GLL", 256] > work["L", 256]
    assert {r["batch_tokens"] for r in rates} == {256}


def test_an_exponent_is_fitted_from_the_shortest_length_on():
    made = [dict(what="attention_seconds", model="G", length=n, value=3e-9 * n**2) for n in (1024, 2048, 8192)]
    made.append(dict(what="attention_seconds", model="G", length=128, value=1.0))
    assert alternating.fit_slope(made, "G", 1024) == pytest.approx(2)
    assert alternating.fit_slope(made, "G", 4096) is None
    assert alternating.fit_slope(made, "L", 1024) is None


# ---- words and figures -----------------------------------------------------------------------------------------------


def trained(losses, entropy=6.0):
    """The records of an ablation that ended with these losses: {variant: one for each seed}."""
    facts = dict(device="test", torch="2", dtype="float32", purpose="final", learning_rate=2e-3, steps=10, unit="nats")
    made = [dict(what="unigram_entropy", value=entropy, unit="nats", model="unigram", device="test", seed=None)]
    for model, ends in losses.items():
        for seed, end in enumerate(ends):
            for step, value in ((0, 8), (5, 6.5), (10, end)):
                place = dict(step=step, tokens=step * 10, seconds=step / 10)
                made.append(facts | place | dict(what="held_out_loss", model=model, seed=seed, value=value))
    return made


@pytest.mark.parametrize(
    ("other", "words"),
    [([5.5, 5.6], "ended higher"), ([4.0, 4.2], "ended lower"), ([4.9, 5.2], "no difference can be told"),
     ([5.1], "one seed"), ([5.95, 5.99], "on the plateau")],
)  # fmt: skip
def test_the_verdict_follows_the_interval(other, words):
    (line,) = alternating.verdicts(trained({"ModernBERT": [5.0, 5.1], "other": other}))
    assert words in line


def test_the_cost_is_told_in_words(records):
    text = "\n".join(alternating.cost_in_words([*records, dict(what="stopped", model="G", length=512, value=9.0)]))
    assert "G stops before 512 tokens" in text and "too few lengths" in text and "at 256 tokens L takes" in text
    assert "0.2 MiB are the mask" in text


def test_every_figure_is_drawn_from_records_alone(records):
    everything = [*records, *trained({"ModernBERT": [5.0, 5.1], "ModernBERT with local_window=512": [5.2, 5.1]})]
    for name, figure_of in alternating.FIGURES.items():
        assert name.startswith("06_alternating_attention_")
        figure = figure_of(everything)
        assert all(ax.get_xlabel() for ax in figure.axes) and plots.png_bytes(figure)
        assert any("measured on" in text.get_text() for text in figure.texts)


@pytest.mark.parametrize(("length", "window", "documents"), [(64, 0, 1), (100, 8, 3), (200, 64, 1), (90, 128, 2)])
def test_the_masks_are_drawn_from_the_tensors(length, window, documents):
    figure = alternating.draw_mask(length, window, documents)
    cuts = [length // documents] * (documents - 1)
    layout = Layout.from_lengths([*cuts, length - sum(cuts)])
    for ax, mask in zip(figure.axes, (attention_mask(layout), attention_mask(layout, window)), strict=True):
        assert torch.equal(torch.tensor(ax.images[0].get_array().data > 0.5), mask)
