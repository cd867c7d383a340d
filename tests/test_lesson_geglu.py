"""What lesson 05 measures, against formulas and brute force; its figures, drawn from records."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from modernbert_edu import EncoderConfig, MaskedLM, lessons
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.data.batches import pad_batch
from modernbert_edu.errors import InputError
from modernbert_edu.lessons import geglu
from modernbert_edu.measure.ablation import Difference

TINY = EncoderConfig.preset("modernbert-tiny", vocab_size=64, hidden_size=16, num_attention_heads=2)
TINY = TINY.replace(intermediate_size=24)
SEQUENCES = [list(range(1, 20)), list(range(5, 12))]
NAMES = (geglu.GELU, geglu.EQUAL_SIZE, geglu.EQUAL_WIDTH)


def small_sizes(**changes):
    quick = SCALES["quick"].geglu
    small = dict(cost_hidden=12, cost_widths=(24, 48), cost_tokens=(8, 16), timing_repeats=3)
    return dataclasses.replace(quick, **(small | changes))


@pytest.fixture(scope="module")
def fits():
    return geglu.fit_functions(steps=3, seeds=(0, 1))


@pytest.fixture(scope="module")
def activity():
    torch.manual_seed(0)
    model = MaskedLM(TINY)
    return geglu.gate_activity(model, SEQUENCES, "at the start") + geglu.gate_activity(model, SEQUENCES, "trained")


@pytest.fixture(scope="module")
def cost():
    return geglu.measure_cost(small_sizes(), torch.device("cpu"))


@pytest.fixture(scope="module")
def trained():
    """Records as the ablation engine writes them, with losses made up so that the differences are known."""
    facts = dict(device="a device", torch="2", dtype="float32", purpose="final", steps=20, learning_rate=1e-3)
    records = [dict(what="unigram_entropy", value=6.0, unit="nats", model="unigram", seed=None, device="a device")]
    for shift, model in enumerate((geglu.BASELINE, geglu.GELU_EQUAL_SIZE, geglu.GELU_EQUAL_WIDTH)):
        for seed in (0, 1):
            for step in (0, 10, 20):
                value = 7 - step / 10 + 0.1 * shift + 0.01 * seed
                place = dict(step=step, tokens=100 * step, seconds=step / 10, seed=seed, model=model)
                records.append(facts | place | dict(what="held_out_loss", value=value, unit="nats"))
    return records


# ---- toy and fits


def test_the_toy_picture_shows_every_number():
    h = torch.tensor([[1.0, -1.0, 2.0, 2.0], [0.5, -0.5, 0.25, 0.25]])
    figure = geglu.plot_toy(h, ["a", "b"])
    shown = [text.get_text() for ax in figure.axes for text in ax.texts]
    expected = torch.cat([h[:, :2].flatten(), F.gelu(h[:, :2]).flatten(), h[:, 2:].flatten(),
                          (F.gelu(h[:, :2]) * h[:, 2:]).flatten()])  # fmt: skip
    assert shown == [f"{number:.3f}" for number in expected]


def test_the_fitted_mlps_are_equally_large():
    count = {name: sum(p.numel() for p in geglu.small_mlp(name, 2, width).parameters())
             for name, width in geglu.FIT_WIDTHS.items()}  # fmt: skip
    assert set(count.values()) == {162}


def test_fits_are_recorded_for_each_case_and_repeat(fits):
    assert len(fits) == 2 * 2 * 2 * 2 and all(r["value"] > 0 for r in fits)
    again = geglu.fit_functions(steps=3, seeds=(0, 1))
    assert [r["value"] for r in again] == [r["value"] for r in fits]


def test_the_table_of_fits_holds_means_over_seeds(fits):
    rows = {(target, where): (plain, gated, ratio) for target, where, plain, gated, ratio in geglu.fit_rows(fits)}
    assert len(rows) == 4
    gated = [r["value"] for r in fits if (r["target"], r["where"]) == ("maximum", "outside") and r["model"] != "GELU"]
    plain, mean, ratio = rows["maximum", "outside"]
    assert mean == pytest.approx(sum(gated) / 2) and float(ratio) == pytest.approx(mean / plain, abs=0.006)


def test_outside_means_outside():
    ring = geglu._grid(geglu.FIT_OUTSIDE, 41)
    ring = ring[ring.abs().amax(dim=1) > geglu.FIT_INSIDE]
    assert geglu._grid(geglu.FIT_INSIDE, 15).abs().max() == geglu.FIT_INSIDE
    assert ring.abs().max() == geglu.FIT_OUTSIDE and len(ring) < 41 * 41


# ---- activity


def test_gate_activity_counts_what_brute_force_counts():
    torch.manual_seed(1)
    model = MaskedLM(TINY)
    with torch.no_grad():
        for block in model.encoder.layers:
            block.mlp.Wi.weight.mul_(20)  # gates as large as a trained model's
    records = geglu.gate_activity(model, SEQUENCES, "now")
    caught = []
    hook = model.encoder.layers[2].mlp.Wi.register_forward_hook(lambda module, inputs, h: caught.append(h.detach()))
    ids, mask = pad_batch(SEQUENCES, TINY.pad_token_id)
    model.eval().encoder(ids, mask)
    hook.remove()
    tokens = sum(map(len, SEQUENCES))
    activated = [[F.gelu(x).item() for x in row[:24]] for row in caught[0]]
    gates = [row[24:].tolist() for row in caught[0]]
    products = [a * b for row, others in zip(activated, gates, strict=True) for a, b in zip(row, others, strict=True)]
    rms = (sum(p * p for p in products) / len(products)) ** 0.5

    found = {r["what"]: r for r in records if r["layer"] == 2}
    assert len(products) == tokens * 24 == found["near_zero"]["numbers"]
    near = sum(abs(p) < 0.1 * rms for p in products) / len(products)
    assert found["near_zero"]["value"] == pytest.approx(near, abs=2 / len(products))
    assert found["product_rms"]["value"] == pytest.approx(rms, rel=1e-4)


def test_histograms_hold_nearly_all_numbers(activity):
    histograms = [r for r in activity if r["what"] == "gate_histogram"]
    assert len(histograms) == 2 * 2 * TINY.num_hidden_layers
    for record in histograms:
        assert 0.97 * record["numbers"] <= sum(record["counts"]) <= record["numbers"]


def test_looking_at_gates_leaves_the_model_as_it_was():
    model = MaskedLM(TINY).train()
    geglu.gate_activity(model, SEQUENCES, "now")
    assert model.training and all(not block.mlp.Wi._forward_hooks for block in model.encoder.layers)


def test_a_model_without_gates_is_refused():
    with pytest.raises(InputError, match="gates"):
        geglu.gate_activity(MaskedLM(TINY.replace(mlp="gelu")), SEQUENCES, "now")


def test_independent_halves_have_co_activation_one_and_equal_ones_more():
    torch.manual_seed(0)
    model = MaskedLM(TINY)
    value = {r["layer"]: r["value"] for r in geglu.gate_activity(model, SEQUENCES, "x") if r["what"] == "co_activation"}
    assert all(0.5 < ratio < 1.5 for ratio in value.values())
    with torch.no_grad():
        for block in model.encoder.layers:
            block.mlp.Wi.weight[24:] = block.mlp.Wi.weight[:24]
    same = {r["layer"]: r["value"] for r in geglu.gate_activity(model, SEQUENCES, "x") if r["what"] == "co_activation"}
    assert all(same[layer] > 1.3 for layer in same)


def test_the_tables_of_activity_hold_what_the_records_hold(activity):
    value = {(r["what"], r.get("part"), r["stage"], r["layer"]): r["value"] for r in activity}
    rows = geglu.rms_rows(activity, 3, 0.2)
    assert [(name, size) for name, size, *_ in rows] == [("gate", 0.2), ("gelu(value)", 0.1), ("product", 0.2**2 / 2)]
    assert rows[0][2] == value["gate_histogram", "gate", "at the start", 3]
    assert rows[2][3] == value["product_rms", None, "trained", 3]
    near = [value["near_zero", None, "trained", layer] for layer in range(TINY.num_hidden_layers)]
    assert float(geglu.activity_rows(activity)[0][2]) == pytest.approx(sum(near) / len(near), abs=0.006)


# ---- ablation


def test_the_variants_differ_in_the_mlp_alone():
    tokenizer = SimpleNamespace(vocab_size=512, pad_id=0)
    base, matched, unmatched = geglu.gelu_variants(small_sizes(), tokenizer)
    assert [v.config.mlp for v in (base, matched, unmatched)] == ["geglu", "gelu", "gelu"]
    assert abs(matched.config.num_parameters() / base.config.num_parameters() - 1) <= 0.005
    assert unmatched.config.intermediate_size == base.config.intermediate_size
    assert unmatched.config.num_parameters() < base.config.num_parameters()
    assert set(base.config.differences(matched.config)) == {"mlp", "intermediate_size"}


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-0.2, -0.1, "GELU ended lower"), (0.1, 0.2, "ModernBERT ended lower"), (-0.1, 0.2, "no difference can be told")],
)
def test_the_verdict_follows_the_interval(low, high, words):
    assert words in geglu.verdict(Difference("GELU", (low + high) / 2, low, high, {}))


def test_the_rungs_are_found_only_together():
    final = [dict(what="held_out_loss", model=model, purpose="final") for model in ("BERT", "+ rope", "+ geglu")]
    found = geglu.ladder_rungs([dict(what="unigram_entropy", model="unigram"), *final])
    assert [r["model"] for r in found] == ["unigram", "+ rope", "+ geglu"]
    assert geglu.ladder_rungs(final[:2]) == [] and geglu.ladder_rungs([]) == []


# ---- cost


@pytest.mark.parametrize(("T", "D", "W"), [(5, 12, 24), (9, 8, 48), (1, 24, 36)])
def test_kept_numbers_are_what_autograd_keeps(T, D, W):
    x = torch.randn(T, D, requires_grad=True)
    for name, width in geglu.contestants(D, W).items():
        mlp = geglu.small_mlp(name, D, width, bias=False)
        torch.testing.assert_close(geglu.plain_forward(mlp, x), mlp(x))
        for recompute in (False, True):
            assert geglu.kept_bytes(mlp, x, recompute) == 4 * T * geglu.kept_numbers(name, D, width, recompute)


def test_contestants_are_what_their_names_say():
    mlps = {name: geglu.small_mlp(name, 12, width, bias=False) for name, width in geglu.contestants(12, 48).items()}
    count = {name: sum(p.numel() for p in mlp.parameters()) for name, mlp in mlps.items()}
    assert count[geglu.EQUAL_SIZE] == count[geglu.GELU] == 2 * count[geglu.EQUAL_WIDTH] / 3


@pytest.mark.parametrize("scale", SCALES)
def test_two_thirds_of_every_width_is_whole(scale):
    sizes = SCALES[scale].geglu
    assert all(width % 3 == 0 for width in sizes.cost_widths)
    assert sizes.seeds and sizes.activity_sequences <= sizes.held_out_sequences


def test_cost_is_measured_at_each_point_and_memory_is_the_formula(cost):
    assert len(cost) == (2 + 2) * 3 * 2
    for record in cost:
        if record["what"] == "mlp_kept_bytes":
            width = geglu.contestants(12, record["width"])[record["model"]]
            assert record["value"] == 4 * record["tokens"] * geglu.kept_numbers(record["model"], 12, width, True)
    rows = geglu.cost_ratios(cost)
    assert len(rows) == 4 * 2 and {row[3] for row in rows} == {geglu.EQUAL_SIZE, geglu.EQUAL_WIDTH}
    assert [row[3] for row in geglu.cost_rows(cost)] == [f"{row[5]:.2f}" for row in rows]
    for axis, width, _, name, _, memory in rows:
        halves = 2 * geglu.contestants(12, width)[name]
        assert axis in ("width", "tokens") and memory == pytest.approx((12 + halves) / (12 + width))


# ---- figures


def test_every_figure_is_drawn_from_the_records(fits, activity, trained, cost, tmp_path):
    drawn = lessons.draw("05_geglu", [*fits, *activity, *trained, *cost], tmp_path)
    assert {path.stem for path in drawn} == set(geglu.FIGURES) and all(path.stat().st_size > 5000 for path in drawn)


def test_the_cost_figures_name_their_axes_units_and_lines(cost):
    for figure, unit in ((geglu.plot_speed(cost), "tokens/s"), (geglu.plot_memory(cost), "MiB")):
        for ax in figure.axes:
            assert unit in ax.get_ylabel() and "log scale" in ax.get_xlabel()
            assert ax.get_legend_handles_labels()[1] == list(NAMES)
        assert any("measured on" in text.get_text() for text in figure.texts)


def test_the_ablation_figure_ignores_other_records(trained, cost):
    figure = geglu.plot_gelu_ablation([*cost, *trained])
    named = [text.get_text() for text in figure.axes[2].texts]
    assert named == [geglu.GELU_EQUAL_SIZE, geglu.GELU_EQUAL_WIDTH]


def test_a_figure_of_nothing_is_refused():
    with pytest.raises(InputError, match="measure_cost"):
        geglu.plot_speed([])


def test_a_deep_model_shows_its_first_and_last_layer():
    records = [dict(layer=layer) for layer in range(22)]
    assert geglu._some_layers(records) == [0, 7, 14, 21]
