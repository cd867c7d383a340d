"""Folders: ours open in transformers and sentence-transformers, theirs open here, broken ones say why."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from parity import TINY_BERT, TINY_MODERNBERT, batch, hf_bert, hf_modernbert, randomise
from safetensors.torch import load_file, save_file

from modernbert_edu import (
    Encoder,
    EncoderConfig,
    InputError,
    MaskedLM,
    checkpoint,
    from_transformers,
    load,
    save,
    to_transformers,
)
from modernbert_edu.checkpoint import OWN_TYPE, transformers_kind
from modernbert_edu.config import SWITCHES, switch
from modernbert_edu.data.tokenizer import train_bpe, train_wordpiece

TEXT = ["The quick brown fox jumps over the lazy dog. " * 5, "def f(x):\n    return x + 1\n" * 5]
SIZES = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48)


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(TEXT, vocab_size=384)


@pytest.fixture(scope="module")
def wordpiece():
    return train_wordpiece(TEXT, vocab_size=120)


def our_model(kind, tokenizer, **changes):
    config = EncoderConfig.preset(f"{kind}-tiny", **SIZES, vocab_size=tokenizer.vocab_size, **changes)
    return randomise_ours(MaskedLM(config))


def randomise_ours(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def open_with_transformers(folder, auto="AutoModelForMaskedLM"):
    import transformers

    model, report = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[problem], (problem, report[problem])
    return model.eval()


@pytest.mark.parametrize("tokenizer_name", ["bpe", "wordpiece"])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_our_folder_opens_in_transformers_with_equal_logits(kind, tokenizer_name, tmp_path, request):
    from transformers import AutoTokenizer

    tokenizer = request.getfixturevalue(tokenizer_name)
    model = our_model(kind, tokenizer)
    save(model, tokenizer, tmp_path / "m")
    hf = open_with_transformers(tmp_path / "m")
    hf_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert (hf_tokenizer.mask_token, hf_tokenizer.pad_token, hf_tokenizer.cls_token, hf_tokenizer.sep_token) == (
        "[MASK]", "[PAD]", "[CLS]", "[SEP]",
    )  # fmt: skip
    assert hf.config.pad_token_id == tokenizer.pad_id and hf.config.cls_token_id == tokenizer.cls_id
    longest = model.config.max_position_embeddings
    assert hf_tokenizer.model_max_length == min(longest, tokenizer.max_length)
    encoded = hf_tokenizer(["The quick [MASK] fox", "def f(x): return"], padding=True, return_tensors="pt")
    assert encoded["input_ids"][0].tolist()[: len(tokenizer.encode("The quick [MASK] fox"))] == tokenizer.encode(
        "The quick [MASK] fox"
    )
    with torch.no_grad():
        theirs = hf(**encoded).logits
        ours = model(encoded["input_ids"], encoded["attention_mask"]).logits
    real = encoded["attention_mask"].bool()
    torch.testing.assert_close(theirs[real], ours[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_our_folder_opens_here_unchanged(kind, bpe, tmp_path):
    model = our_model(kind, bpe, attention_output_dropout=0.1)
    save(model, bpe, tmp_path)
    again, tokenizer = load(tmp_path)
    assert again.config.replace(pad_token_id=0) == model.config
    assert again.config.pad_token_id == bpe.pad_id and not again.training
    state, new = model.state_dict(), again.state_dict()
    assert state.keys() == new.keys() and all(torch.equal(state[k], new[k]) for k in state)
    assert tokenizer.encode("def f(x)") == bpe.encode("def f(x)")


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_our_folder_opens_in_sentence_transformers(kind, bpe, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = our_model(kind, bpe)
    save(model, bpe, tmp_path)
    sentences = ["The quick brown fox", "def f(x): return x", "lazy"]
    embeddings = SentenceTransformer(str(tmp_path), device="cpu").encode(sentences, convert_to_tensor=True)
    for sentence, embedding in zip(sentences, embeddings, strict=True):
        with torch.no_grad():
            states = model.encoder(torch.tensor([bpe.encode(sentence)])).last_hidden_state[0]
        torch.testing.assert_close(embedding, states.mean(dim=0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [lambda: hf_bert(**TINY_BERT), lambda: hf_modernbert(**TINY_MODERNBERT)])
def test_their_folder_opens_here(make, bpe, tmp_path):
    hf = make()
    hf.save_pretrained(tmp_path)
    model, tokenizer = load(tmp_path)
    assert isinstance(model, MaskedLM) and tokenizer is None
    input_ids, mask, _ = batch((20, 11), 211)
    real = mask.bool()
    with torch.no_grad():
        theirs, ours = hf(input_ids=input_ids, attention_mask=mask).logits, model(input_ids, mask).logits
    torch.testing.assert_close(theirs[real], ours[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_their_bare_encoder_opens_as_an_encoder(kind, tmp_path):
    from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel

    if kind == "bert":
        hf = randomise_plain(BertModel(BertConfig(**TINY_BERT)))
    else:
        hf = randomise_plain(ModernBertModel(ModernBertConfig(**TINY_MODERNBERT)))
    hf.save_pretrained(tmp_path)
    model, _ = load(tmp_path)
    assert isinstance(model, Encoder)
    ids = torch.randint(3, 211, (1, 90))
    with torch.no_grad():
        torch.testing.assert_close(hf(ids).last_hidden_state, model(ids).last_hidden_state, atol=1e-4, rtol=1e-4)


def randomise_plain(model):
    model.tie_weights = lambda: None
    return randomise(model)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_bare_encoder_goes_there_and_back(kind, bpe, tmp_path):
    encoder = our_model(kind, bpe).encoder
    ids = torch.randint(0, 300, (2, 70))
    with torch.no_grad():
        expected = encoder(ids).last_hidden_state
        torch.testing.assert_close(to_transformers(encoder)(ids).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
        save(encoder, bpe, tmp_path)
        again, _ = load(tmp_path)
        assert isinstance(again, Encoder) and torch.equal(again(ids).last_hidden_state, expected)
        hf = open_with_transformers(tmp_path, "AutoModel") if kind == "modernbert" else None
        if hf is not None:
            torch.testing.assert_close(hf(ids).last_hidden_state, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_to_transformers_and_back_is_the_same_model(kind, bpe):
    model = our_model(kind, bpe)
    hf = to_transformers(model)
    ids = torch.randint(0, 300, (2, 70))
    with torch.no_grad():
        torch.testing.assert_close(hf(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    back = from_transformers(hf)
    assert back.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), model.state_dict().values(), strict=True))
    with torch.no_grad():  # copied, not shared
        next(hf.parameters()).zero_()
    assert model.encoder.embeddings.tok_embeddings.weight.any()


def test_published_bert_with_old_names_opens(bpe, tmp_path):
    """google-bert/bert-base-uncased's safetensors: gamma and beta, a pooler, next-sentence prediction, a tied copy."""
    hf = hf_bert(**TINY_BERT)
    hf.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
           for k, v in weights.items()}  # fmt: skip
    old |= {
        "bert.pooler.dense.weight": torch.zeros(48, 48), "bert.pooler.dense.bias": torch.zeros(48),
        "cls.seq_relationship.weight": torch.zeros(2, 48), "cls.seq_relationship.bias": torch.zeros(2),
        "cls.predictions.decoder.weight": weights["bert.embeddings.word_embeddings.weight"].clone(),
        "bert.embeddings.position_ids": torch.arange(300)[None],
    }  # fmt: skip
    save_file(old, tmp_path / "model.safetensors")
    model, _ = load(tmp_path)
    expected = from_transformers(hf).state_dict()
    assert all(torch.equal(expected[k], v) for k, v in model.state_dict().items())


def test_published_modernbert_config_with_old_keys_opens(tmp_path):
    """answerdotai/ModernBERT-base's config.json says global_attn_every_n_layers and two thetas."""
    hf_modernbert(**TINY_MODERNBERT).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("layer_types", "rope_parameters"):
        config.pop(key)
    config |= dict(global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=10000.0)
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _ = load(tmp_path)
    assert model.config.attention_pattern == "GLL"
    assert (model.config.global_rope_theta, model.config.local_rope_theta) == (160_000.0, 10_000.0)


def test_sharded_weights_open(tmp_path):
    hf = hf_modernbert(**TINY_MODERNBERT)
    hf.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model, _ = load(tmp_path)
    expected = from_transformers(hf).state_dict()
    assert all(torch.equal(expected[k], v) for k, v in model.state_dict().items())
    sorted(tmp_path.glob("*.safetensors"))[0].unlink()
    with pytest.raises(InputError, match="which its index names"):
        load(tmp_path)


def test_a_model_in_between_opens_here_and_says_that_transformers_has_none(bpe, tmp_path):
    model = our_model("bert", bpe, positions="rope")
    with pytest.warns(
        UserWarning, match="transformers has no ModernBERT with type_vocab_size=2, norm_placement='post'"
    ):
        save(model, bpe, tmp_path)
    again, tokenizer = load(tmp_path)
    assert again.config == model.config
    ids = torch.randint(0, 300, (2, 20))
    assert torch.equal(again(ids).logits, model(ids).logits)
    with pytest.raises(InputError, match="transformers has no ModernBERT"):
        to_transformers(model)
    from transformers import AutoModelForMaskedLM

    with pytest.raises(ValueError, match="modernbert_edu"):
        AutoModelForMaskedLM.from_pretrained(tmp_path)


def test_which_configurations_transformers_has():
    assert transformers_kind(EncoderConfig.preset("bert-base"))[0] == "bert"
    assert transformers_kind(EncoderConfig.preset("modernbert-base"))[0] == "modernbert"
    assert transformers_kind(EncoderConfig.preset("modernbert-tiny", attention_pattern="G", bias=True))[0]
    for change in (dict(mlp="gelu"), dict(norm_placement="post"), dict(positions="learned")):
        kind, why = transformers_kind(EncoderConfig.preset("modernbert-tiny", **change))
        assert kind is None and why.startswith("transformers has no")


EVERY_VALUE = [
    (kind, name, value) for kind in ("bert", "modernbert") for name in SWITCHES for value in SWITCHES[name]["values"]
]


@pytest.mark.parametrize(("kind", "name", "value"), EVERY_VALUE, ids=lambda x: str(x))
def test_every_switch_is_computed_by_transformers_or_the_folder_is_our_own(kind, name, value, bpe, tmp_path):
    """A switch added to the configuration is tried here by itself."""
    model = our_model(kind, bpe, **{name: value})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save(model, bpe, tmp_path)
    said = [str(w.message) for w in caught if "transformers has no" in str(w.message)]
    ids = torch.randint(0, 300, (2, 300))  # longer than every window
    with torch.no_grad():
        expected = model(ids).logits
        again = load(tmp_path)[0]
        assert again.config.replace(pad_token_id=0) == model.config and torch.equal(again(ids).logits, expected)
        if json.loads((tmp_path / "config.json").read_text())["model_type"] == OWN_TYPE:
            assert len(said) == 1 and (name == "positions" or f"{name}={value!r}" in said[0])
            with pytest.raises(InputError, match="transformers has no"):
                to_transformers(model)
        else:
            assert said == []
            for hf in (open_with_transformers(tmp_path), to_transformers(model)):
                torch.testing.assert_close(hf(ids).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("field", dataclasses.fields(EncoderConfig), ids=lambda field: field.name)
def test_every_field_survives_the_folder_whatever_kind_it_has(kind, field):
    config = EncoderConfig.preset(f"{kind}-tiny")
    value = getattr(config, field.name)
    if field.name in SWITCHES:
        others = [other for other in SWITCHES[field.name]["values"] if other != value]
    else:
        others = [value * 2 if value else type(value)(1) if isinstance(value, int) else 0.25]
    for other in others:
        changed = config.replace(**{field.name: other})
        theirs, why = transformers_kind(changed)
        if theirs:
            assert checkpoint.config_from_hf(checkpoint.config_to_hf(changed, theirs, "")) == changed
        else:
            # Which of the two it comes near is told by the positions; what else is not of that one is said.
            assert why.startswith("transformers has no") and (field.name == "positions" or f"{field.name}=" in why)


def test_a_switch_that_nobody_told_the_folders_of_is_not_lost(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Grown(EncoderConfig):
        gate: str = switch("none", ("none", "sigmoid"), "99_new")
        scale: float = 1.0

    monkeypatch.setattr(checkpoint, "EncoderConfig", Grown)
    for preset, name in (("bert-tiny", "BERT"), ("modernbert-tiny", "ModernBERT")):
        assert transformers_kind(Grown.preset(preset)) == (name.lower(), "")
        assert transformers_kind(Grown.preset(preset, gate="sigmoid", scale=2.0)) == (
            None, f"transformers has no {name} with gate='sigmoid', scale=2.0",
        )  # fmt: skip


def test_a_bert_without_segments_is_not_transformers(bpe):
    """Its BERT looks every token's segment up, in a table without rows."""
    kind, why = transformers_kind(EncoderConfig.preset("bert-tiny", type_vocab_size=0))
    assert kind is None and why == "transformers has no BERT with type_vocab_size=0"


def test_saving_over_an_older_folder_replaces_it_and_leaves_nothing_beside(bpe, tmp_path):
    save(our_model("bert", bpe), bpe, tmp_path)
    model = our_model("modernbert", bpe)
    save(model, bpe, tmp_path)
    again, _ = load(tmp_path)
    assert again.config.positions == "rope"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


@pytest.fixture()
def folder(bpe, tmp_path):
    save(our_model("modernbert", bpe), bpe, tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        (lambda f: os.rename(f / "model.safetensors", f / "pytorch_model.bin"), "pytorch_model.bin, a pickle"),
        (lambda f: truncate(f / "model.safetensors"), "not a whole safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"hello"), "not a whole safetensors file"),
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: truncate(f / "config.json"), "not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "does not hold a configuration"),
        (lambda f: edit_config(f, model_type="roberta"), "type 'roberta' is neither BERT nor ModernBERT"),
        (lambda f: edit_config(f, num_attention_heads=3), "does not divide hidden_size"),
        (lambda f: edit_config(f, hidden_size=64), "config.json asks for"),
        (lambda f: edit_config(f, num_hidden_layers=2, layer_types=None), "weights are unknown"),
        (lambda f: edit_config(f, num_hidden_layers=7, layer_types=None), "weights are missing"),
        (lambda f: edit_config(f, num_hidden_layers=7), "lists 4 layer_types for 7 layers"),
        (lambda f: edit_config(f, hidden_activation="silu"), "hidden_activation='silu'"),
        (lambda f: edit_config(f, mlp_bias=True), "mlp_bias=True"),
        (lambda f: edit_config(f, tie_word_embeddings=False), "tie_word_embeddings=False"),
        (lambda f: edit_config(f, rope_parameters={"full_attention": {"rope_type": "yarn"}}), "RoPE of type 'yarn'"),
        (lambda f: edit_config(f, layer_types=["chunked"] * 4), "only the letters G"),
        (lambda f: edit_config(f, model_type="modernbert_edu", encoder_config={"colour": 1}), "no field 'colour'"),
    ],
)  # fmt: skip
def test_broken_folders_say_why(folder, spoil, said):
    spoil(folder)
    with pytest.raises(InputError, match=said) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_wrong_places(tmp_path, bpe, folder):
    with pytest.raises(InputError, match="there is no folder"):
        load(tmp_path / "nothing" / "here")
    with pytest.raises(InputError, match="is a file; give the folder"):
        load(folder / "config.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        save(our_model("bert", bpe), bpe, tmp_path / "file" / "below")
    small = our_model("bert", bpe, pad_token_id=0).config.replace(vocab_size=100)
    with pytest.raises(InputError, match="the tokenizer has 384 ids and the model 100"):
        save(MaskedLM(small), bpe, tmp_path / "small")
    assert not (tmp_path / "small" / "config.json").exists()


def test_a_hub_id_while_offline_is_one_clear_line(tmp_path):
    code = "import modernbert_edu as m\ntry: m.load('answerdotai/ModernBERT-base')\nexcept m.InputError as e: print(e)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "answerdotai/ModernBERT-base is no folder here" in done.stdout and "offline" in done.stdout


def test_a_hub_id_is_downloaded_once_it_can_be(folder, monkeypatch):
    """The Hub stood in for: what is asked of it, and that the folder it gives is opened."""
    import huggingface_hub

    asked = {}

    def snapshot_download(repo_id, *, allow_patterns, ignore_patterns):
        asked.update(repo_id=repo_id, allow=allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model, tokenizer = load("someone/some-model")
    assert asked["repo_id"] == "someone/some-model" and tokenizer.mask_id is not None
    assert not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in asked["allow"])


def test_half_precision_where_asked_for(folder):
    assert next(load(folder)[0].parameters()).dtype == torch.float32
    assert next(load(folder, dtype=torch.bfloat16)[0].parameters()).dtype == torch.bfloat16


def test_nothing_is_left_when_saving_fails_half_way(bpe, tmp_path, monkeypatch):
    """A run that dies while writing costs the user nothing: the older model is still there, whole."""
    old = our_model("modernbert", bpe)
    save(old, bpe, tmp_path / "m")
    keep = tmp_path / "keep"
    shutil.copytree(tmp_path / "m", keep)
    import safetensors.torch

    def dies(tensors, filename, metadata=None):
        with open(filename, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", dies)
    with pytest.raises(KeyboardInterrupt):
        save(randomise_ours(old), bpe, tmp_path / "m")
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == (keep / "model.safetensors").read_bytes()
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == sorted(p.name for p in keep.iterdir())
    load(tmp_path / "m")
