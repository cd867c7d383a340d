from dataclasses import FrozenInstanceError, fields

import pytest
import torch

from modernbert_edu.classroom.scale import SCALES, get_scale
from modernbert_edu.errors import InputError

SIZES = {
    "vocab_size",
    "tokenizer_characters",
    "corpus_characters",
    "sequence_length",
    "batch_size",
    "steps",
    "warmup_steps",
    "held_out_sequences",
    "lengths",
    "timing_repeats",
    "count",
    "mean",
    "std",
    "max",
}
SECTIONS = [
    "tour", "vanilla_bert", "tokenizer", "prenorm", "rope", "geglu", "alternating", "unpadding", "pretraining",
    "extension", "growth", "finetuning", "retrieval", "head_to_head", "ablation", "pretrain", "headline", "search",
]  # fmt: skip


def sizes(section):
    """{field: (number, number)} of everything that a larger scale may only enlarge; None means "all of it"."""
    found = {}
    for entry in fields(section):
        value = getattr(section, entry.name)
        if hasattr(value, "__dataclass_fields__"):
            found |= {f"{entry.name}.{name}": number for name, number in sizes(value).items()}
        elif entry.name in SIZES:
            as_number = sum(value) if isinstance(value, tuple) else float("inf") if value is None else value
            found[entry.name] = as_number
    return found


def test_every_lesson_with_sizes_is_checked_here():
    assert {entry.name for entry in fields(SCALES["quick"])} == {"name", *SECTIONS}
    assert [scale.name for scale in SCALES.values()] == list(SCALES) == ["quick", "laptop", "gpu"]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(("smaller", "larger"), [("quick", "laptop"), ("laptop", "gpu")])
def test_a_larger_scale_is_nowhere_smaller(section, smaller, larger):
    small, large = (sizes(getattr(SCALES[name], section)) for name in (smaller, larger))
    assert small.keys() == large.keys() and len(small) >= 6
    assert {name: (small[name], large[name]) for name in small if small[name] > large[name]} == {}
    assert small["steps"] < large["steps"]


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("section", SECTIONS)
def test_values_can_be_trained_with(scale, section):
    values = getattr(scale, section)
    assert 0 < getattr(values, "warmup_steps", 1) < values.steps
    assert 0 < getattr(values, "warmup_share", 0.1) < 1
    assert 0 < getattr(values, "mask_rate", 0.3) < 1
    assert values.vocab_size % 64 == 0  # what the tokenizer pads to anyway
    for ascending in ("lengths", "rates", "seeds"):
        numbers = getattr(values, ascending, ())
        assert list(numbers) == sorted(set(numbers))
    assert getattr(torch, values.dtype).is_floating_point
    assert values.corpus_characters is None or values.tokenizer_characters <= values.corpus_characters


def test_nothing_can_be_changed_in_passing():
    with pytest.raises(FrozenInstanceError):
        get_scale("quick").tour.steps = 1


def test_the_environment_chooses_and_an_argument_overrides_it(monkeypatch):
    monkeypatch.setenv("MODERNBERT_EDU_SCALE", " Quick ")
    assert get_scale().name == "quick"
    assert get_scale("laptop").name == "laptop"


@pytest.mark.parametrize(("cuda", "expected"), [(True, "gpu"), (False, "laptop")])
@pytest.mark.parametrize("setting", [None, ""])
def test_without_a_choice_the_device_decides(monkeypatch, cuda, expected, setting):
    monkeypatch.delenv("MODERNBERT_EDU_SCALE", raising=False)
    if setting is not None:
        monkeypatch.setenv("MODERNBERT_EDU_SCALE", setting)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert get_scale().name == expected


def test_an_unknown_scale_is_refused_with_the_list(monkeypatch):
    with pytest.raises(InputError, match=r"scale 'huge' .*: choose one of quick, laptop, gpu$"):
        get_scale("huge")
    monkeypatch.setenv("MODERNBERT_EDU_SCALE", "tiny")
    with pytest.raises(InputError, match="MODERNBERT_EDU_SCALE 'tiny' does not exist"):
        get_scale()
