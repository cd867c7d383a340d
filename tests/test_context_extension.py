"""Extending a model: what changes, what stays, and that the rotary tables are those of the new theta."""

import copy
import warnings

import pytest
import torch
from parity import TINY_MODERNBERT, hf_modernbert

from modernbert_edu import Encoder, EncoderConfig, InputError, MaskedLM, from_transformers, load, pack, save
from modernbert_edu.attention import attention
from modernbert_edu.data import load_corpus, train_bpe
from modernbert_edu.rope import apply_rope, rotary_tables
from modernbert_edu.training.context_extension import cut_documents, extended_config, extended_model

SIZES = dict(vocab_size=128, hidden_size=32, num_attention_heads=2, num_hidden_layers=4, intermediate_size=48)
CONFIG = EncoderConfig.preset("modernbert-tiny", **SIZES, max_position_embeddings=128, global_rope_theta=10_000.0)


@pytest.fixture
def model():
    """In float64, so that "the same" can mean equal; wide weights, so that positions matter for the outputs."""
    return MaskedLM(CONFIG.replace(initializer_range=0.3)).double().eval()


def ids_of(length, seed=0):
    return torch.randint(5, CONFIG.vocab_size, (1, length), generator=torch.Generator().manual_seed(seed))


# ---- the configuration -----------------------------------------------------------------------------------------------


def test_length_and_global_theta_change_and_nothing_else():
    changed = CONFIG.differences(extended_config(CONFIG, 1024))
    assert changed == {"max_position_embeddings": (128, 1024), "global_rope_theta": (10_000.0, 160_000.0)}
    kept = CONFIG.differences(extended_config(CONFIG, 256, theta=CONFIG.global_rope_theta))
    assert kept == {"max_position_embeddings": (128, 256)}


@pytest.mark.parametrize(
    ("length", "theta", "words"),
    [
        (128, 1e5, "meant for 128 tokens already"),
        (64, 1e5, "meant for 128 tokens already"),
        (0, 1e5, "whole number of tokens"),
        (-8, 1e5, "whole number of tokens"),
        (512.0, 1e5, "whole number of tokens"),
        ("512", 1e5, "whole number of tokens"),
        (True, 1e5, "whole number of tokens"),
        (512, 0, "theta must be a number above 0"),
        (512, -1.0, "theta must be a number above 0"),
        (512, float("nan"), "theta must be a number above 0"),
        (512, float("inf"), "theta must be a number above 0"),
        (512, "160000", "theta must be a number above 0"),
    ],
)
def test_an_impossible_extension_is_refused_in_one_line(length, theta, words):
    with pytest.raises(InputError, match=words) as refused:
        extended_config(CONFIG, length, theta)
    assert "\n" not in str(refused.value)


def test_learned_positions_are_refused_because_their_table_ends():
    bert = EncoderConfig.preset("bert-tiny", vocab_size=128)
    with pytest.raises(InputError, match='learned positions end at 512.*positions="rope"'):
        extended_config(bert, 1024)
    with pytest.raises(InputError, match="learned positions end at 512"):
        extended_model(MaskedLM(bert), 1024)


# ---- the model -------------------------------------------------------------------------------------------------------


def test_the_weights_are_copied_and_the_given_model_stays_as_it_was(model):
    before = copy.deepcopy(model.state_dict())
    extended = extended_model(model, 1024)
    assert type(extended) is MaskedLM and model.config.global_rope_theta == 10_000.0
    assert extended.config == extended.encoder.config == extended_config(model.config, 1024)
    assert [name for name, _ in extended.named_parameters()] == [name for name, _ in model.named_parameters()]
    for name, value in extended.state_dict().items():
        assert torch.equal(value, before[name]) and value.dtype == torch.float64
    with torch.no_grad():
        for parameter in extended.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
def test_an_encoder_and_its_mode_and_backend_are_kept(training):
    encoder = Encoder(CONFIG, backend="eager").train(training)
    extended = extended_model(encoder, 512)
    assert type(extended) is Encoder and extended.training is training and extended.backend == "eager"
    assert extended.config.max_position_embeddings == 512


def test_the_tables_are_rebuilt(model):
    positions = torch.arange(300)
    before = model.encoder.rotary_tables(positions)  # a cache, if there were one, would be filled now
    model(ids_of(100))
    after = extended_model(model, 1024).encoder.rotary_tables(positions)
    for new, wanted in zip(after["G"], rotary_tables(positions, 160_000.0, CONFIG.head_size), strict=True):
        assert torch.equal(new, wanted)
    assert not torch.allclose(after["G"][0], before["G"][0])
    assert all(torch.equal(new, old) for new, old in zip(after["L"], before["L"], strict=True))


def test_a_new_theta_gives_the_outputs_of_a_model_that_had_it_from_the_start(model):
    ids = ids_of(300)
    with torch.no_grad():
        before = model(ids).logits
        extended = extended_model(model, 1024)(ids).logits
        fresh = MaskedLM(extended_config(model.config, 1024)).double().eval()
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(extended, fresh(ids).logits)
        assert (extended - before).abs().max() > 1e-2
        assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("length", [16, 128])
def test_with_theta_kept_a_short_text_gives_the_same_logits(model, length):
    with torch.no_grad():
        same = extended_model(model, 4096, theta=model.config.global_rope_theta)
        assert torch.equal(same(ids_of(length)).logits, model(ids_of(length)).logits)


def test_theta_is_that_of_the_global_layers_only(model):
    """The first layer is global, the second local: the attention of each by hand, with the theta it should have."""
    extended = extended_model(model, 1024)
    ids = ids_of(200)[0]
    layout = pack([ids.tolist()])[1]
    tables = extended.encoder.rotary_tables(layout.position_ids)
    x_TD = torch.randn(200, CONFIG.hidden_size, dtype=torch.float64)
    for layer, theta in ((0, 160_000.0), (1, 10_000.0)):
        attn = extended.encoder.layers[layer].attn
        q, k, v = attn.Wqkv(x_TD).unflatten(-1, (3, attn.num_heads, attn.head_size)).unbind(dim=1)
        q, k = (apply_rope(x, *rotary_tables(layout.position_ids, theta, CONFIG.head_size)) for x in (q, k))
        want = attn.Wo(attention(q, k, v, layout, window=attn.window, backend="eager").flatten(1))
        got = attn(x_TD, layout, tables[CONFIG.layer_type(layer)], "eager")
        assert torch.allclose(got, want, atol=1e-10)


def test_transformers_agrees_after_the_change_of_theta(tmp_path):
    """Its weights in our model, extended, against its own model built with the new theta and the same weights."""
    thetas = [
        {
            "full_attention": {"rope_type": "default", "rope_theta": theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        }
        for theta in (10_000.0, 160_000.0)
    ]
    small = {**TINY_MODERNBERT, "max_position_embeddings": 128}
    old = hf_modernbert(**small, rope_parameters=thetas[0])
    new = hf_modernbert(**{**small, "max_position_embeddings": 512}, rope_parameters=thetas[1])
    new.load_state_dict(old.state_dict())
    model = from_transformers(old).eval()
    ids = torch.randint(3, small["vocab_size"], (2, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = extended_model(model, 512)(ids).logits
        assert torch.allclose(ours, new(ids).logits, atol=1e-4)
        assert (ours - model(ids).logits).abs().max() > 1e-3


def test_an_optimizer_goes_on_with_its_state(model):
    """The parameters have the same order, so a state dict saved before fits: the next step is the same step."""

    def step(one, optimizer):
        labels = ids_of(64).where(ids_of(64, seed=1) % 3 == 0, -100)
        one(ids_of(64), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step(model, optimizer)
    extended = extended_model(model, 1024, theta=model.config.global_rope_theta)  # theta kept: the same function
    restored = torch.optim.AdamW(extended.parameters(), lr=1e-3)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # or both would write into one tensor
    step(model, optimizer)
    step(extended, restored)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), extended.parameters(), strict=True))


def test_an_extended_model_is_saved_with_its_theta_and_length(tmp_path):
    with warnings.catch_warnings(action="ignore"):  # a text this small leaves ids unused
        tokenizer = train_bpe(["words that a tokenizer can learn from"], 320)
    model = MaskedLM(CONFIG.replace(vocab_size=320, pad_token_id=tokenizer.pad_id))
    save(extended_model(model, 1024), tokenizer, tmp_path / "saved")
    loaded, _ = load(tmp_path / "saved")
    assert (loaded.config.global_rope_theta, loaded.config.local_rope_theta) == (160_000.0, 10_000.0)
    assert loaded.config.max_position_embeddings == 1024


def test_a_compiled_encoder_gets_a_graph_of_its_own():
    encoder = Encoder(CONFIG, compile=True, token_budget=256)
    extended = extended_model(encoder, 1024)
    assert extended.compiled is not encoder.compiled and extended.compiled.run is not encoder.compiled.run
    assert (extended.compiled.token_budget, extended.compiled.longest) == (256, 1024)


# ---- the documents ---------------------------------------------------------------------------------------------------


def test_documents_are_cut_at_the_length_and_never_joined(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.txt").write_text(f"document {i}: " + "every word of it counts " * (5 + 30 * i))
    corpus = load_corpus(str(tmp_path))
    with warnings.catch_warnings(action="ignore"):
        tokenizer = train_bpe(corpus.train["text"], 320)
    short, long = (cut_documents(corpus, tokenizer, n) for n in (32, 128))
    for side, split in ((0, corpus.train), (1, corpus.held_out)):
        assert max(map(len, short[side])) <= 32 < max(map(len, long[side])) <= 128
        whole = sum(map(len, tokenizer.encode_batch(split["text"], add_special_tokens=False)))
        pieces = sum(len(piece) - 2 for piece in long[side])
        assert whole - 8 * len(split) < pieces <= whole  # a tail of fewer than 8 tokens is dropped
        assert all(piece[0] == tokenizer.cls_id and piece[-1] == tokenizer.sep_id for piece in long[side])
