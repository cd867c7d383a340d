"""What 10_large_from_base measures: counted by hand where it can be, and its figures drawn."""

import dataclasses

import pytest
import torch

from modernbert_edu.classroom.scale import SCALES
from modernbert_edu.data import prepare
from modernbert_edu.lessons import growth as lesson
from modernbert_edu.measure.plots import png_bytes
from modernbert_edu.model import MaskedLM
from modernbert_edu.runtime import provenance
from modernbert_edu.training.scale_up import grow

SIZES = dataclasses.replace(
    SCALES["quick"].growth,
    base=(4, 24, 3, 32), large=(7, 32, 4, 60), widths=(24, 48), vocab_size=320, tokenizer_characters=20_000,
    corpus_characters=None, sequence_length=32, held_out_sequences=4, batch_size=4, base_steps=6, steps=4,
    evaluations=2, seeds=(0, 1), starts=tuple(lesson.STARTS), offsets=2,
)  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(8):
        words = [f"line {j} of document {i} says that models grow " + "and grow " * (j % 5) for j in range(30)]
        (folder / f"{i}.txt").write_text("\n".join(words))
    return prepare(SIZES, str(folder))


@pytest.fixture(scope="module")
def trained(data):
    records, base = lesson.train_base(data, SIZES, CPU)
    return records + lesson.train_starts(base, data, SIZES, CPU), base


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_each_scale_grows_by_whole_heads_of_one_size_and_ends_globally(scale):
    sizes = scale.growth
    base, large = (lesson.make_config(numbers, sizes, 512, 0) for numbers in (sizes.base, sizes.large))
    assert base.head_size == large.head_size and 4 * base.hidden_size == 3 * large.hidden_size
    assert base.layer_types[-1] == large.layer_types[-1] == "G"
    assert set(sizes.starts) <= set(lesson.STARTS) and {"random", "center"} <= set(sizes.starts)
    for width in sizes.widths:
        assert width >= base.hidden_size and width % base.head_size == 0
    assert sizes.base_seed not in sizes.seeds and sizes.steps % sizes.evaluations == 0


# ---- the symmetry ----------------------------------------------------------------------------------------------------


def test_rolled_units_are_the_same_function(data):
    base = MaskedLM(lesson.configs(SIZES, data)[0]).eval()
    with torch.no_grad():
        for p in base.parameters():
            p.add_(0.1 * torch.randn_like(p))
        ids = torch.randint(320, (2, 20))
        rolled = lesson.roll_units(base, hidden=5, heads=2, inner=7)
        torch.testing.assert_close(rolled(ids).logits, base(ids).logits, atol=1e-4, rtol=1e-4)
    assert not torch.equal(rolled.head.dense.weight, base.head.dense.weight)


def test_center_tiling_is_edge_tiling_of_a_rolled_base(data):
    old, large = lesson.configs(SIZES, data)
    base = MaskedLM(old)
    shifts = [(b - a) // 2 for a, b in ((old.hidden_size, large.hidden_size), (3, 4), (32, 60))]
    center, edge = grow(base, large), grow(lesson.roll_units(base, *shifts), large, method="edge")
    for (name, x), (_, y) in zip(center.state_dict().items(), edge.state_dict().items(), strict=True):
        assert torch.equal(x, y), name


# ---- before training -------------------------------------------------------------------------------------------------


def test_at_a_multiple_of_the_width_both_methods_are_one_function(data, trained):
    found = {(r["model"], r["width"]): r["value"] for r in lesson.measure_widths(trained[1], data, SIZES, CPU)}
    assert found["center", 48] == pytest.approx(found["edge", 48], abs=1e-4)
    assert found["center", 24] == found["edge", 24] == lesson._loss(trained[1], data, SIZES, CPU)


def test_only_a_random_start_depends_on_the_seed(data, trained):
    _, large = lesson.configs(SIZES, data)
    for start in lesson.STARTS:
        a, b = (lesson.begin(start, trained[1], large, seed).head.dense.weight for seed in (0, 1))
        assert torch.equal(a, b) == (start != "random")
    records = lesson.measure_starts(trained[1], data, SIZES, CPU)
    assert [r["model"] for r in records] == [lesson.BASE, *lesson.STARTS]
    assert [row[0] for row in lesson.start_rows(records)] == [lesson.BASE, *lesson.STARTS]


# ---- training --------------------------------------------------------------------------------------------------------


def test_random_is_trained_longer_by_what_the_base_has_cost(data, trained):
    old, large = lesson.configs(SIZES, data)
    extra = lesson.extra_steps(old, large, SIZES)
    cost = SIZES.base_steps * lesson.step_operations(old, SIZES)
    assert (extra - 1) * lesson.step_operations(large, SIZES) < cost <= extra * lesson.step_operations(large, SIZES)
    records, _ = trained
    assert lesson.steps_of(records) == SIZES.steps and lesson.starts_of(records) == list(lesson.STARTS)
    for start in lesson.STARTS:
        for curve in lesson.curves(records, start).values():
            steps = [r["step"] for r in curve]
            assert steps[-1] == SIZES.steps + (extra if start == "random" else 0)
            assert steps == sorted(set(steps)) and {0, SIZES.steps} <= set(steps)


def test_the_base_trained_on_costs_what_the_large_model_costs(data, trained):
    old, large = lesson.configs(SIZES, data)
    more, cost = lesson.continued_steps(old, large, SIZES), SIZES.steps * lesson.step_operations(large, SIZES)
    assert (more - 1) * lesson.step_operations(old, SIZES) < cost <= more * lesson.step_operations(old, SIZES)
    records, base = trained
    for curve in lesson.curves(records, lesson.CONTINUED).values():
        assert curve[-1]["step"] == more and curve[0]["value"] == lesson._loss(base, data, SIZES, CPU)


def test_starts_see_the_same_text_in_the_same_order(trained):
    at = {}
    for r in trained[0]:
        if r["model"] in lesson.STARTS:
            at.setdefault((r["seed"], r["step"]), set()).add(r["tokens"])
    assert all(len(tokens) == 1 for tokens in at.values())


def test_the_base_is_not_changed_by_what_grows_from_it(data):
    _, base = lesson.train_base(data, SIZES, CPU)
    before = {name: x.clone() for name, x in base.state_dict().items()}
    lesson.train_starts(base, data, dataclasses.replace(SIZES, starts=("random", "center")), CPU)
    assert all(torch.equal(x, before[name]) for name, x in base.state_dict().items())


# ---- in words --------------------------------------------------------------------------------------------------------


def curve(*points, model="center", seed=0):
    return [dict(what="held_out_loss", model=model, seed=seed, step=step, tokens=10 * step, seconds=float(step),
                 value=value) for step, value in points]  # fmt: skip


def test_the_place_where_a_loss_is_reached_is_interpolated():
    found = curve((0, 6.0), (2, 5.0), (4, 4.0), (6, 4.5))
    assert lesson.reached(found, 4.5) == 30 and lesson.reached(found, 4.5, "seconds") == 3
    assert lesson.reached(found, 6.5) == 0 and lesson.reached(found, 3.9) is None and lesson.reached(found, 4.0) == 40


def test_differences_are_taken_at_equal_steps_and_at_equal_cost():
    records = curve((0, 7.0), (4, 5.0), (8, 4.0), model="random") + curve(
        (0, 7.0), (4, 5.2), (8, 4.4), model="random", seed=1
    )
    records += curve((0, 5.0), (4, 4.5)) + curve((0, 5.0), (4, 4.5), seed=1)
    records += curve((0, 7.0), (9, 5.0), model=lesson.BASE, seed=9)
    assert lesson.differences(records, "center") == pytest.approx([-0.5, -0.7])
    assert lesson.differences(records, "center", equal="cost") == pytest.approx([0.5, 0.1])
    words = lesson.verdicts(records)
    assert words == ["center against random: after the same steps lower; at equal cost higher"]
    records += curve((0, 5.0), (20, 4.0), model=lesson.CONTINUED) + curve(
        (0, 5.0), (20, 4.8), model=lesson.CONTINUED, seed=1
    )
    assert lesson.verdicts(records)[1].startswith("center against base, trained on, at equal cost: +0.100 [")
    random, center, continued = lesson.training_rows(records)
    assert continued == ("base, trained on", "4.400", "-", "+0.200 [+0.000, +0.400]", "-", "-")
    assert random[:2] == ("random", "5.100") and random[4:] == ("40", "4.0")
    assert center[1] == "4.500" and center[4] == "0" and center[5] == "9.0"


@pytest.mark.parametrize(
    ("values", "words"),
    [([0.1], "one seed"), ([0.1, -0.1], "no difference"), ([-0.2, -0.1], "lower"), ([0.2, 0.1, 0.3], "higher")],
)
def test_a_verdict_follows_its_interval(values, words):
    assert lesson.verdict(values).startswith(words)


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_every_figure_is_drawn_from_records(data, trained):
    records, base = trained
    records = records + lesson.measure_starts(base, data, SIZES, CPU) + lesson.measure_widths(base, data, SIZES, CPU)
    records += lesson.measure_offsets(base, data, SIZES, CPU) + lesson.measure_cost(base, data, SIZES, CPU)
    records.append(dict(what="unigram_entropy", value=data.unigram_entropy, unit="nats", model="unigram", seed=0))
    facts = provenance(CPU, dtype=SIZES.dtype)
    for plot in lesson.FIGURES.values():
        assert png_bytes(plot([facts | record for record in records])).startswith(b"\x89PNG")
    assert [row[0] for row in lesson.cost_rows(records)] == ["base", "large", "large / base"]
    assert len(lesson.training_rows(records)) == len(lesson.STARTS) + 1


def test_the_pictures_count_what_they_show():
    base, large = (lesson.make_config(numbers, SIZES, 512, 0) for numbers in (SIZES.base, SIZES.large))
    picture = lesson.picture_depth(base, large)
    assert "2 of 7 copy the other" in picture.axes[0].get_title() and "0 of 7" in picture.axes[1].get_title()
    for figure in (picture, lesson.picture_tiling(2, 5), lesson.picture_heads(3, 5, 4)):
        assert png_bytes(figure).startswith(b"\x89PNG")
