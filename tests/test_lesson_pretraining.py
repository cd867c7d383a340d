"""What 08_mlm_pretraining measures: the toys against formulas, the recipes as they are said to differ, figures."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from modernbert_edu import EncoderConfig, MaskedLM
from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.data import prepare
from modernbert_edu.lessons import pretraining as lesson
from modernbert_edu.measure.plots import png_bytes
from modernbert_edu.runtime import provenance
from modernbert_edu.training.averaging import average_weights
from modernbert_edu.training.optim import StableAdamW, update_rms
from modernbert_edu.training.pretrain import evaluate_mlm
from modernbert_edu.training.recipe import Recipe, reasons

SIZES = dataclasses.replace(
    SCALES["quick"].pretraining,
    vocab_size=320, tokenizer_characters=50_000, corpus_characters=None, sequence_length=32, held_out_sequences=6,
    batch_size=4, steps=10, evaluations=5,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(8):
        parts = [f"paragraph {j} of document {i} " + "says that every token counts " * (j % 9) for j in range(30)]
        (folder / f"{i}.txt").write_text("\n\n".join(parts))
    return prepare(SIZES, str(folder))


@pytest.fixture(scope="module")
def trained(data):
    watched = []
    return *lesson.train_variants(data, SIZES, CPU, watch=watched.append), watched


# ---- toys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta2", [0.98, 0.999])
def test_a_jump_and_a_spike_move_a_number_as_the_formulas_say(beta2):
    k = torch.arange(1, lesson.AFTER + 1, dtype=torch.float64)
    for event, m in (("jump", 1 - 0.9**k), ("spike", 0.1 * 0.9 ** (k - 1))):
        v = 1 - beta2**k if event == "jump" else (1 - beta2) * beta2 ** (k - 1)
        v = v / (1 - beta2 ** (k + lesson.QUIET))  # bias correction: the quiet steps were not for ever
        adam = torch.tensor(lesson.steps_after(event, torch.optim.AdamW, beta2), dtype=torch.float64)
        stable = torch.tensor(lesson.steps_after(event, StableAdamW, beta2), dtype=torch.float64)
        slack = 2e-2 if event == "spike" else 2e-3
        torch.testing.assert_close(adam, m / v.sqrt(), rtol=slack, atol=2e-3)
        clipped = m if event == "jump" else torch.where(k == 1, m, m / v.sqrt())
        torch.testing.assert_close(stable, clipped, rtol=slack, atol=2e-3)


def test_what_decay_takes_is_the_product_over_the_steps():
    recipe = lesson.recipe_of(lesson.BASELINE, SIZES)
    shares = [(step + 1) / 10 / 0.1 if step < 1 else 1.0 for step in range(SIZES.steps)]
    x = [max(0.0, (step + 1 - 0.7 * SIZES.steps) / (0.3 * SIZES.steps)) for step in range(SIZES.steps)]
    shares = [min(1, s) * (0.001 + 0.999 * (1 - math.sqrt(v))) for s, v in zip(shares, x, strict=True)]
    for peak in (1e-3, 1e-2):
        wanted = math.prod(1 - 1e-5 * share for share in shares)
        assert lesson.kept_by_decay(recipe.replace(learning_rate=peak)) == pytest.approx(wanted, rel=1e-10)
        adamw = recipe.replace(learning_rate=peak, optimizer="adamw", weight_decay=0.01, decoupled=False)
        wanted = math.prod(1 - 0.01 * peak * share for share in shares)
        assert lesson.kept_by_decay(adamw) == pytest.approx(wanted, rel=1e-10)


# ---- weights at the start --------------------------------------------------------------------------------------------


def test_the_cut_normal_has_the_deviation_of_what_is_drawn():
    drawn = nn.init.trunc_normal_(torch.empty(10**6), a=-2, b=2, generator=torch.Generator().manual_seed(0))
    assert lesson.cut_normal_std() == pytest.approx(0.8796, abs=1e-4)
    assert lesson.cut_normal_std() == pytest.approx(drawn.std().item(), rel=2e-3)
    assert lesson.cut_normal_std(8.0) == pytest.approx(1)


def test_the_formula_holds_for_every_matrix():
    config = EncoderConfig.preset("modernbert-tiny", num_hidden_layers=10, vocab_size=320)
    torch.manual_seed(0)
    drawn, formula = lesson.std_by_matrix(MaskedLM(config)), lesson.std_by_formula(config)
    assert drawn.keys() == formula.keys() and {len(values) for values in drawn.values()} == {10}
    for kind, values in drawn.items():
        assert values == pytest.approx([formula[kind]] * 10, rel=0.03)
    assert formula["mlp.Wi"] / formula["attn.Wo"] == pytest.approx(math.sqrt(20))


# ---- training --------------------------------------------------------------------------------------------------------


def test_variants_differ_in_what_the_lesson_says_and_in_nothing_else():
    base, fewer, adamw = (lesson.recipe_of(name, SIZES).to_dict() for name in lesson.VARIANTS)
    different = [{k for k in base if base[k] != other[k]} for other in (fewer, adamw)]
    assert different[0] <= {"mask_rate", "learning_rate"} and "mask_rate" in different[0]
    assert different[1] <= {*lesson.BERTS_STEP, "decay_tokens", "learning_rate"}
    bert = Recipe.preset("bert-2018")
    assert fewer["mask_rate"] == bert.mask_rate and {r["eval_mask_rate"] for r in (base, fewer, adamw)} == {0.15}
    assert all(adamw[name] == getattr(bert, name) for name in lesson.BERTS_STEP)
    assert base["tokens"] == SIZES.steps * SIZES.batch_size * SIZES.sequence_length


def test_each_variant_is_trained_from_each_seed(trained):
    records, _, watched = trained
    for variant in lesson.VARIANTS:
        for seed in SIZES.seeds:
            mine = [r for r in records if (r["model"], r["seed"]) == (variant, seed)]
            losses = [r for r in mine if r["what"] == "held_out_loss"]
            assert [r["step"] for r in losses] == [0, 2, 4, 6, 8, 10] and {r["purpose"] for r in losses} == {"final"}
            assert sum(r["what"] == "train_loss" for r in mine) == SIZES.steps
    assert len(watched) == sum(r["what"] != "update_rms" for r in records)


def test_r_is_watched_in_one_run_with_the_v_of_that_step(trained):
    records, _, _ = trained
    found = [r for r in records if r["what"] == "update_rms"]
    assert {(r["model"], r["seed"]) for r in found} == {(lesson.BASELINE, SIZES.seeds[0])}
    assert {r["step"] for r in found} == set(range(1, SIZES.steps + 1))
    first = [r["value"] for r in found if r["step"] == 1]  # v is then g^2; below 1 where a gradient is below eps
    assert max(first) == pytest.approx(1, abs=1e-3) and min(first) > 0

    layer = nn.Linear(3, 2)
    optimizer = StableAdamW(layer.parameters(), lr=1e-3)
    with lesson.watch_rms(layer) as seen:
        for scale in (1.0, 5.0):
            for p in layer.parameters():
                p.grad = scale * torch.ones_like(p)
            optimizer.step()
    b2 = 0.98 * (1 - 0.98) / (1 - 0.98**2)
    r = 5 / math.sqrt(b2 + (1 - b2) * 25)
    assert [s["weight"] for s in seen] == pytest.approx([1, r]) and set(seen[0]) == {"weight", "bias"}
    optimizer.step()
    assert len(seen) == 2  # the hook is gone
    assert seen[1]["bias"] != update_rms(layer.bias.grad, optimizer.state[layer.bias]["exp_avg_sq"]).item()


def test_the_checkpoints_of_the_decay_are_kept_and_averaged(trained, data):
    _, kept, _ = trained
    assert len(kept) == 2  # evaluations at 8 and 10 of 10 steps; the decay begins at 7
    records = lesson.measure_averages(kept, data, SIZES, CPU)
    value = {(r["model"], r["checkpoints"]): r["value"] for r in records}
    assert value["alone", 1] == value["mean of the last", 1] != value["alone", 2] and len(value) == 4
    model = lesson.new_model(SIZES, data, 0)
    model.load_state_dict(average_weights(kept))
    wanted, _ = evaluate_mlm(model, data.held_out, data.tokenizer, mask_rate=0.15, batch_size=512)
    assert value["mean of the last", 2] == pytest.approx(wanted)
    assert [row[0] for row in lesson.average_rows(records)] == [1, 2]


@pytest.mark.parametrize(
    ("model", "checkpoints", "words"),
    [("alone", 1, "the last checkpoint"), ("alone", 2, "checkpoint 2, counted from the last"),
     ("mean of the last", 2, "the mean of the last 2")],
)  # fmt: skip
def test_the_lowest_of_the_averages_is_named(model, checkpoints, words):
    kept = [dict(model=name, checkpoints=count) for name in ("alone", "mean of the last") for count in (1, 2)]
    best = dict(model=model, checkpoints=checkpoints)
    records = [k | dict(what="loss_of_checkpoint", value=0.0 if k == best else 1.0) for k in kept]
    assert lesson.lowest_in_words(records) == f"the lowest: {words}"


def test_verdicts_follow_the_intervals():
    def end(model, seed, value):
        return dict(what="held_out_loss", model=model, seed=seed, value=value, purpose="final")

    ends = {lesson.BASELINE: (3.0, 3.1), "15 % masked": (3.2, 3.4), "AdamW, linear decay": (2.9, 3.15)}
    records = [end(model, seed, value) for model, values in ends.items() for seed, value in enumerate(values)]
    above, neither = lesson.verdicts(records)
    assert above == "15 % masked: +0.250 nats against ModernBERT's recipe: ended higher"
    assert neither.endswith("-0.025 nats against ModernBERT's recipe: no difference can be told")
    records += [end("AdamW, linear decay", 1, 2.8)]
    assert lesson.verdicts(records)[1].endswith(": ended lower")


# ---- cost ------------------------------------------------------------------------------------------------------------


def test_more_masked_tokens_keep_more_and_cost_what_the_formula_says(data):
    records = lesson.measure_cost(data, SIZES, CPU)
    kept = {r["rate"]: r for r in records if r["what"] == "kept_bytes"}
    assert kept[0.15]["value"] < kept[0.3]["value"] < kept[1.0]["value"]
    D, V = 128, data.tokenizer.vocab_size
    for low, high in ((0.15, 0.3), (0.3, 1.0)):
        more = kept[high]["masked"] - kept[low]["masked"]
        assert kept[high]["flops"] - kept[low]["flops"] == 2 * (D * D + D * V) * more
    state = {r["model"]: r["value"] for r in records if r["what"] == "optimizer_bytes_per_parameter"}
    assert len(state) == 3 and all(8 <= value < 8.01 for value in state.values())
    assert [row[0] for row in lesson.optimizer_rows(records)] == list(state)
    assert [row[0] for row in lesson.cost_rows(records)] == ["15%", "30%", "100%"]


# ---- tables and figures ----------------------------------------------------------------------------------------------


def test_the_tables_hold_the_recipes():
    rows = {row[0]: row[1:] for row in lesson.recipe_rows()}
    assert rows["mask_rate"] == ("0.15", "0.3") and rows["tokens_per_step"] == ("131,072", "4,718,592")
    assert "eval_mask_rate" not in rows and "average_last" not in rows  # the same in both
    assert [row[0] for row in lesson.reason_rows("modernbert")] == list(reasons("modernbert"))


def test_every_parameter_has_a_kind(data):
    kinds = {lesson.kind_of(name) for name, _ in lesson.new_model(SIZES, data, 0).named_parameters()}
    assert kinds == {"norms", "embedding", "attention Wqkv", "attention Wo", "MLP Wi", "MLP Wo", "head's matrix",
                     "decoder's bias"}  # fmt: skip


def test_every_figure_is_drawn_from_records(data, trained):
    records = trained[0] + lesson.measure_cost(data, SIZES, CPU)
    records.append(dict(what="unigram_entropy", value=data.unigram_entropy, unit="nats", model="unigram", seed=0))
    facts = provenance(CPU, dtype=SIZES.dtype)
    for plot in lesson.FIGURES.values():
        assert png_bytes(plot([facts | record for record in records])).startswith(b"\x89PNG")
    assert len(lesson.variant_rows(records)) == 3 and len(lesson.rms_summary(records)) == 3
    config = EncoderConfig.preset("modernbert-tiny", vocab_size=320)
    published = Recipe.preset("modernbert", tokens=60_000_000_000)
    pictures = [lesson.picture_clipping(), lesson.picture_schedules(), lesson.picture_schedules(0, 0),
                lesson.picture_batches(published), lesson.picture_init(MaskedLM(config))]  # fmt: skip
    assert all(png_bytes(picture).startswith(b"\x89PNG") for picture in pictures)


def test_the_picture_of_the_batch_counts_the_steps():
    left, right = lesson.picture_batches(Recipe.preset("modernbert", tokens=60_000_000_000)).axes
    assert [bar.get_height() for bar in right.patches] == pytest.approx([50e9 / (1024 * 11520)] * 5, abs=1)
    assert max(left.lines[0].get_ydata()) == 4608
