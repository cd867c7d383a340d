"""Recipes: the published numbers agree with each other, a shrunk one keeps its ideas, nonsense is refused by name."""

import json
from dataclasses import fields

import pytest

from modernbert_edu import InputError
from modernbert_edu.training.recipe import RECIPES, Recipe, reasons
from modernbert_edu.training.schedule import step_sizes

SMALL = dict(tokens=81_920, length=128, tokens_per_step=4096, microbatch_tokens=1024, learning_rate=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_each_field_has_a_value_and_a_reason(name):
    rows = reasons(name)
    assert list(rows) == [f.name for f in fields(Recipe)]
    assert all(len(why) >= 3 for _, why in rows.values())
    recipe = Recipe.preset(name)
    assert recipe.to_dict() == {field: value for field, (value, _) in rows.items()}
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe  # as run.json keeps it


def test_the_published_phases_add_up():
    first, context = Recipe.preset("modernbert"), Recipe.preset("modernbert-context")
    assert first.tokens + context.tokens == 2_019_000_000_000  # 1.719 trillion, 250 billion, 50 billion
    assert first.tokens_per_step == context.tokens_per_step == 4_718_592
    assert first.microbatch_tokens == context.microbatch_tokens == 98_304
    assert (first.learning_rate, context.learning_rate) == (8e-4, 3e-4)
    assert (first.global_rope_theta, context.global_rope_theta) == (10_000, 160_000)
    assert context.tokens - context.decay_tokens == 250_000_000_000
    bert = Recipe.preset("bert-2018")
    assert bert.tokens / bert.tokens_per_step == 1_000_000
    assert bert.warmup_tokens / bert.tokens_per_step == 10_000


def test_a_shrunk_recipe_keeps_its_ideas():
    modern, bert = (Recipe.preset(name).shrunk(**SMALL) for name in ("modernbert", "bert-2018"))
    assert (modern.packing, modern.mask_rate, modern.optimizer, modern.schedule) == (True, 0.3, "stable_adamw", "wsd")
    assert (bert.packing, bert.mask_rate, bert.optimizer, bert.next_sentence) == (False, 0.15, "adamw", True)
    assert modern.warmup_tokens == 8192 and modern.decay_tokens == 24_576
    assert bert.decay_tokens == 0 and bert.warmup_tokens == 8192
    assert modern.batch_warmup_start == 1024  # a sixth of the batch, but not less than one forward pass
    assert modern.batch_warmup_tokens == round(81_920 * 50e9 / 1.719e12)
    assert bert.batch_warmup_start == bert.tokens_per_step
    assert sum(step_sizes(modern)) >= modern.tokens > sum(step_sizes(modern)) - modern.tokens_per_step


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(learning_rte=1e-3), "no field 'learning_rte'; did you mean 'learning_rate'"),
        (dict(learning_rate=0.0), "learning_rate must be above 0"),
        (dict(learning_rate=30), "at most 1, not 30"),
        (dict(length=4), "length 4 leaves a sequence no context"),
        (dict(length=0), "length must be a whole number of at least 1"),
        (dict(microbatch_tokens=64), "below one document of length 128"),
        (dict(tokens_per_step=1500), "must be a multiple of microbatch_tokens"),
        (dict(tokens=1000), "less than one step"),
        (dict(batch_warmup_start=8192), "a batch only grows"),
        (dict(mask_rate=0.0), "mask_rate is a share"),
        (dict(optimizer="sgd"), "optimizer must be one of 'stable_adamw', 'adamw'"),
        (dict(decay_shape="steps"), "decay_shape must be one of"),
        (dict(betas=(0.9, 1.0)), "betas must be two numbers"),
        (dict(warmup_tokens=80_000), "are more than tokens"),
        (dict(final_share=2.0), "final_share is a share"),
        (dict(next_sentence=True), "next_sentence needs packing=False"),
        (dict(clip_norm=0), "clip_norm must be above 0"),
        (dict(average_last=0), "average_last must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, words):
    with pytest.raises(InputError) as error:
        Recipe.preset("modernbert").shrunk(**SMALL).replace(**changes)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_recipe_is_refused_with_the_list():
    with pytest.raises(InputError, match="there is no recipe 'roberta'; there are: modernbert, bert-2018"):
        Recipe.preset("roberta")
    with pytest.raises(InputError, match="no recipe 'x'"):
        reasons("x")
