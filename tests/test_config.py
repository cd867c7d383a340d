"""The configuration: presets, counts by formula, matching, and what it refuses."""

import dataclasses
import hashlib
import itertools
import json

import pytest
import torch

from modernbert_edu import EncoderConfig, InputError, MaskedLM, presets
from modernbert_edu.config import SWITCHES, switch

TINY = dict(vocab_size=97, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20,
            max_position_embeddings=16)  # fmt: skip


@pytest.mark.parametrize(
    "name, with_head, without",
    [
        ("bert-base", 109_514_298, 108_891_648),
        ("modernbert-base", 149_655_232, 149_014_272),
        ("modernbert-large", 395_881_664, 394_781_696),
    ],
)
def test_published_parameter_counts(name, with_head, without):
    config = EncoderConfig.preset(name)
    assert config.num_parameters() == with_head
    assert config.num_parameters(mlm_head=False) == without


@pytest.mark.parametrize(
    "positions, norm_placement, bias, mlp, types",
    list(itertools.product(("learned", "rope"), ("post", "pre"), (True, False), ("gelu", "geglu"), (0, 2))),
)
def test_formula_counts_what_is_built(positions, norm_placement, bias, mlp, types):
    config = EncoderConfig(
        **TINY, positions=positions, norm_placement=norm_placement, bias=bias, mlp=mlp, type_vocab_size=types
    )
    with torch.device("meta"):
        model = MaskedLM(config)
    assert config.num_parameters() == sum(p.numel() for p in model.parameters())
    assert config.num_parameters(mlm_head=False) == sum(p.numel() for p in model.encoder.parameters())


@pytest.mark.parametrize("name", presets())
def test_every_preset_ends_in_a_global_layer(name):
    config = EncoderConfig.preset(name)
    assert config.layer_types[0] == config.layer_types[-1] == "G"


@pytest.mark.parametrize("size", ["tiny", "mini", "small", "base", "large"])
def test_matched_to_is_within_half_a_percent_and_changes_the_width_only(size):
    other = {"base": "modernbert-base", "large": "modernbert-large"}.get(size, f"modernbert-{size}")
    bert = EncoderConfig.preset(f"bert-{size}")
    # Published sizes differ in depth and vocabulary; what is matched is the switches.
    modern = EncoderConfig.preset(other).replace(
        vocab_size=bert.vocab_size, num_hidden_layers=bert.num_hidden_layers, pad_token_id=0
    )
    matched = modern.matched_to(bert)
    assert abs(matched.num_parameters() / bert.num_parameters() - 1) <= 0.005
    assert set(matched.differences(modern)) <= {"intermediate_size"}


def test_matched_to_says_when_no_width_will_do():
    small = EncoderConfig.preset("bert-tiny")
    with pytest.raises(InputError, match="no width of the MLP"):
        EncoderConfig.preset("modernbert-base").matched_to(small)


def test_layer_types_and_window():
    config = EncoderConfig.preset("modernbert-base")
    assert config.layer_types == "GLL" * 7 + "G"
    assert [i for i, kind in enumerate(config.layer_types) if kind == "G"] == list(range(0, 22, 3))
    assert config.half_window == 64 and config.head_size == 64


def test_bert_and_modernbert_differ_in_every_switch_of_the_road():
    differences = EncoderConfig.preset("bert-tiny").differences(EncoderConfig.preset("modernbert-tiny"))
    turned = {name for name in SWITCHES if name in differences}
    # Only the sizes of window and thetas are the same: BERT has no layer that would read them.
    assert turned == set(SWITCHES) - {"local_window", "global_rope_theta", "local_rope_theta"}


def test_round_trip_through_a_dict():
    config = EncoderConfig.preset("modernbert-mini")
    assert EncoderConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("name", "known"), [("bert-tiny", "e1f2e0600a983c6a"), ("modernbert-base", "37ff30835a99687e")]
)
def test_a_later_field_leaves_the_identity_of_what_was_kept_alone(name, known):
    @dataclasses.dataclass(frozen=True)
    class Grown(EncoderConfig):
        gate: str = switch("none", ("none", "sigmoid"), "99_new")

    for config in (EncoderConfig.preset(name), Grown.preset(name)):
        text = json.dumps(config.identity(), sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == known  # as when the first runs were kept
    changed = Grown.preset(name, gate="sigmoid").identity()
    assert changed == {**EncoderConfig.preset(name).identity(), "gate": "sigmoid"}


def test_every_change_of_a_field_changes_the_identity():
    config = EncoderConfig.preset("modernbert-tiny")
    seen = [config.identity()]
    for field in dataclasses.fields(EncoderConfig):
        value = getattr(config, field.name)
        others = [other for other in field.metadata.get("values", ()) if other != value]
        if not field.metadata:
            others = [2 * value if value else type(value)(1) if isinstance(value, int) else 0.25]
        seen += [config.replace(**{field.name: other}).identity() for other in others]
    assert len(seen) > len(dataclasses.fields(EncoderConfig))
    assert all(a != b for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(num_attention_heads=5), "num_attention_heads .5. does not divide hidden_size .24."),
        (dict(hidden_size=6, num_attention_heads=2, positions="rope"), "head size must be even, not 3"),
        (dict(attention_pattern="GSL"), "only the letters G"),
        (dict(attention_pattern=""), "only the letters G"),
        (dict(local_window=127), "even number"),
        (dict(positions="alibi"), "positions must be one of 'learned', 'rope'"),
        (dict(mlp="swiglu"), "mlp must be one of"),
        (dict(num_hidden_layers=0), "num_hidden_layers must be"),
        (dict(vocab_size=10.5), "vocab_size must be a whole number"),
        (dict(mlp_dropout=1.0), "mlp_dropout must be"),
        (dict(pad_token_id=97), "pad_token_id 97 is not in a vocabulary of 97"),
        (dict(global_rope_theta=0.0), "global_rope_theta must be above 0"),
        (dict(type_vocab_size=-1), "type_vocab_size must be 0"),
    ],
)
def test_impossible_combinations_are_refused_by_name(changes, said):
    with pytest.raises(InputError, match=said) as error:
        EncoderConfig(**{**TINY, **changes})
    assert "\n" not in str(error.value)


def test_unknown_fields_and_presets():
    with pytest.raises(InputError, match="did you mean 'hidden_size'"):
        EncoderConfig.from_dict(dict(hiden_size=3))
    with pytest.raises(InputError, match="no field 'flavour'; the fields are: vocab_size"):
        EncoderConfig().replace(flavour="vanilla")
    with pytest.raises(InputError, match="there are: bert-tiny"):
        EncoderConfig.preset("bert-gigantic")
