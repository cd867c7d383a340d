"""The learning rate's and the batch's plans: their formulas, and what must hold for any numbers."""

import itertools
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert_edu import InputError
from modernbert_edu.training.recipe import Recipe
from modernbert_edu.training.schedule import (
    SHAPES,
    batch_size_at,
    batch_sizes,
    linear,
    multiplier,
    step_sizes,
    warmup_stable_decay,
)

shapes = st.sampled_from(sorted(SHAPES))
shares = st.floats(0, 1)


@st.composite
def plans(draw):
    """Warm-up, stable part and decay in tokens, none of them too short to look into."""
    warmup, stable, decay = (draw(st.integers(10, 10**12)) for _ in range(3))
    return dict(warmup=warmup, total=warmup + stable + decay, decay=decay)


# ---- the learning rate -----------------------------------------------------------------------------------------------


def test_the_numbers_by_hand():
    plan = dict(warmup=100, total=1000, decay=400, final_share=0.1)
    for shape, quarter in (("1-sqrt", 0.55), ("linear", 0.775), ("cosine", 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)):
        found = [warmup_stable_decay(t, shape=shape, **plan) for t in (0, 25, 100, 600, 700, 1000, 1200)]
        assert found == pytest.approx([0, 0.25, 1, 1, quarter, 0.1, 0.1])
    assert [linear(t, warmup=100, total=1000) for t in (0, 50, 100, 550, 1000, 1001)] == [0, 0.5, 1, 0.5, 0, 0]


@given(plans(), shapes, shares)
def test_it_is_continuous_at_the_borders_and_ends_at_its_share(plan, shape, share):
    at = lambda tokens: warmup_stable_decay(tokens, shape=shape, final_share=share, **plan)  # noqa: E731
    begin = plan["total"] - plan["decay"]
    assert at(0) == 0 and at(plan["warmup"]) == at(begin) == 1
    assert at(plan["total"]) == pytest.approx(share, abs=1e-15) and at(2 * plan["total"]) == at(plan["total"])
    for border, width in ((plan["warmup"], plan["warmup"]), (begin, plan["decay"]), (plan["total"], plan["decay"])):
        tiny = 1e-9 * width  # the square root of it is 3e-5: 1-sqrt falls steeply, but without a jump
        assert at(border - tiny) == pytest.approx(at(border), abs=1e-4)
        assert at(border + tiny) == pytest.approx(at(border), abs=1e-4)


@given(plans(), shapes, shares, st.lists(st.floats(0, 1.2), min_size=2, max_size=20))
def test_it_rises_then_stays_then_falls(plan, shape, share, points):
    at = lambda tokens: warmup_stable_decay(tokens, shape=shape, final_share=share, **plan)  # noqa: E731
    tokens = sorted(point * plan["total"] for point in points)
    begin = plan["total"] - plan["decay"]
    for a, b in itertools.pairwise(tokens):
        if b <= begin:
            assert 0 <= at(a) <= at(b) <= 1
        elif a >= plan["warmup"]:
            assert 1 >= at(a) >= at(b) >= min(share, at(b))
    assert all(at(t) == 1 for t in tokens if plan["warmup"] <= t <= begin)
    assert all(at(t) == t / plan["warmup"] for t in tokens if t < plan["warmup"])


@given(plans(), shares, st.floats(0, 1))
def test_each_decay_is_its_formula(plan, share, x):
    begin = plan["total"] - plan["decay"]
    tokens = begin + x * plan["decay"]
    x = (tokens - begin) / plan["decay"]  # as it is after rounding
    formulas = {"1-sqrt": 1 - x**0.5, "linear": 1 - x, "cosine": 0.5 * (1 + math.cos(math.pi * x))}
    assert formulas.keys() == SHAPES.keys()
    for shape, formula in formulas.items():
        found = warmup_stable_decay(tokens, shape=shape, final_share=share, **plan)
        assert found == pytest.approx(share + (1 - share) * formula, abs=1e-9)


@given(st.floats(0.01, 0.99))
def test_1_sqrt_is_below_linear_and_cosine_first_above_then_below(x):
    at = {shape: warmup_stable_decay(x, warmup=0, total=1, decay=1, shape=shape, final_share=0) for shape in SHAPES}
    assert at["1-sqrt"] < at["linear"]
    assert (at["cosine"] >= at["linear"] - 1e-12) == (x <= 0.5)


def test_no_warm_up_no_decay():
    assert warmup_stable_decay(0, warmup=0, total=10, decay=0) == 1
    assert warmup_stable_decay(99, warmup=0, total=10, decay=0) == 1
    assert warmup_stable_decay(0, warmup=0, total=10, decay=10, shape="linear") == 1
    assert linear(0, warmup=0, total=10) == 1 and linear(10, warmup=10, total=10) == 1


def test_a_recipe_is_read_by_its_names():
    recipe = SimpleNamespace(
        schedule="wsd", tokens=1000, warmup_tokens=100, decay_tokens=400, decay_shape="linear", final_share=0.1
    )
    assert multiplier(recipe, 700) == pytest.approx(0.775)
    recipe.schedule = "linear"
    assert multiplier(recipe, 550) == 0.5
    recipe.schedule = "cosine"
    with pytest.raises(InputError, match="no schedule 'cosine'; there are: 'wsd', 'linear'"):
        multiplier(recipe, 550)


def test_the_published_recipes():
    modernbert, bert = Recipe.preset("modernbert"), Recipe.preset("bert-2018")
    assert multiplier(modernbert, 1.5e9) == 0.5 and multiplier(modernbert, modernbert.tokens) == 1
    context = Recipe.preset("modernbert-context")
    assert multiplier(context, 0) == 1 == multiplier(context, 250e9)
    assert multiplier(context, 250e9 + 50e9 / 4) == pytest.approx(0.001 + 0.999 / 2)
    assert multiplier(context, 300e9) == pytest.approx(0.001)
    assert multiplier(bert, bert.warmup_tokens) == 1 and multiplier(bert, bert.tokens) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(warmup=700), "700 . 400 tokens. are longer than the run"),
        (dict(decay=-1), "none below 0"),
        (dict(warmup=-1), "none below 0"),
        (dict(total=0, warmup=0, decay=0), "needs tokens"),
        (dict(shape="sqrt"), "no shape 'sqrt'; there are: '1-sqrt', 'linear', 'cosine'"),
        (dict(final_share=1.5), "final_share is a share"),
        (dict(final_share=-0.1), "final_share is a share"),
    ],
)
def test_impossible_plans_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        warmup_stable_decay(0, **{**dict(warmup=100, total=1000, decay=400), **changes})


def test_a_warm_up_longer_than_the_run_is_refused_in_the_linear_one_too():
    with pytest.raises(InputError, match="longer than the run"):
        linear(0, warmup=11, total=10)


# ---- the batch -------------------------------------------------------------------------------------------------------


def test_the_published_sizes_and_their_steps():
    """768 to 4,608 sequences of 1,024 over 50 billion tokens: five sizes below the last, as many steps at each."""
    recipe = Recipe.preset("modernbert", tokens=60_000_000_000)
    steps = [(size, len(list(run))) for size, run in itertools.groupby(step_sizes(recipe))]
    assert [size // 1024 for size, _ in steps] == [768, 1536, 2304, 3072, 3840, 4608]
    below = 1024 * (768 + 1536 + 2304 + 3072 + 3840)
    assert {abs(count - 50e9 / below) < 1 for _, count in steps[:-1]} == {True}
    assert sum(size * count for size, count in steps[:-1]) == pytest.approx(50e9, rel=1e-3)


@st.composite
def growths(draw):
    unit = draw(st.integers(1, 1000))
    start = unit * draw(st.integers(1, 5))
    return dict(start=start, end=start + unit * draw(st.integers(0, 12)), unit=unit)


@given(growths(), st.integers(1, 50))
def test_each_size_gets_as_many_steps(growth, count):
    """With a warm-up that is `count` times the sum of the sizes, each gets exactly `count`."""
    sizes = batch_sizes(**growth)
    warmup, tokens, seen = count * sum(sizes[:-1]), 0, []
    while tokens < warmup:
        seen.append(batch_size_at(tokens, warmup=warmup, **growth))
        tokens += seen[-1]
    assert tokens == warmup and seen == [size for size in sizes[:-1] for _ in range(count)]
    assert batch_size_at(warmup, warmup=warmup, **growth) == growth["end"]


@given(growths(), st.integers(0, 10**6), st.lists(st.integers(0, 2 * 10**6), min_size=2, max_size=10))
def test_any_warm_up_grows_only_and_leaves_each_size_at_its_threshold(growth, warmup, points):
    sizes = batch_sizes(**growth)
    at = [batch_size_at(tokens, warmup=warmup, **growth) for tokens in sorted(points)]
    assert at == sorted(at) and set(at) <= set(sizes)
    for i, size in enumerate(sizes[:-1]):
        threshold = math.ceil(warmup * sum(sizes[: i + 1]) / sum(sizes[:-1]))
        assert batch_size_at(threshold, warmup=warmup, **growth) > size
        if threshold:
            assert batch_size_at(threshold - 1, warmup=warmup, **growth) <= size


@given(growths(), st.integers(0, 10**5), st.integers(1, 10**5))
def test_steps_reach_the_budget_and_no_step_begins_after_it(growth, warmup, tokens):
    recipe = SimpleNamespace(
        tokens=tokens * growth["unit"] // 1000 + 1, batch_warmup_start=growth["start"],
        tokens_per_step=growth["end"], batch_warmup_tokens=warmup,
    )  # fmt: skip
    sizes = list(step_sizes(recipe))
    assert sum(sizes) >= recipe.tokens > sum(sizes[:-1])
    assert sizes == sorted(sizes) and all(size % growth["start"] == 0 or size == growth["end"] for size in sizes)


def test_no_growth():
    assert batch_sizes(8, 8, 8) == [8]
    assert batch_size_at(0, start=8, end=8, unit=8, warmup=0) == 8
    assert batch_size_at(0, start=2, end=8, unit=2, warmup=0) == 8
    constant = SimpleNamespace(tokens=17, batch_warmup_start=8, tokens_per_step=8, batch_warmup_tokens=0)
    assert list(step_sizes(constant)) == [8, 8, 8]


def test_an_end_between_two_units_is_the_last_size():
    assert batch_sizes(4, 10, 4) == [4, 8, 10]


@pytest.mark.parametrize(
    "growth", [dict(start=0, end=8, unit=2), dict(start=9, end=8, unit=2), dict(start=2, end=8, unit=0)]
)
def test_impossible_growths_are_refused(growth):
    with pytest.raises(InputError, match="none may be below 1"):
        batch_sizes(**growth)
    with pytest.raises(InputError, match="must last 0 tokens"):
        batch_size_at(0, start=2, end=8, unit=2, warmup=-1)
