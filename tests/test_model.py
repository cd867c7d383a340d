"""The model: equal to transformers' BERT and ModernBERT, padded equal to unpadded, packed equal to alone."""

import pytest
import torch
from parity import TINY_BERT, TINY_MODERNBERT, batch, hf_bert, hf_modernbert, rotate_in_full_precision

from modernbert_edu import Encoder, EncoderConfig, InputError, MaskedLM, from_transformers, pack
from modernbert_edu.checkpoint import weights_from_hf

PADDED, FULL = (150, 1, 129, 64, 90), (140, 140)
BETWEEN = dict(vocab_size=61, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=24,
               max_position_embeddings=256, local_window=16)  # fmt: skip


def gradients_as_ours(hf, model):
    """transformers' gradients under our names."""
    grads = {name: p.grad for name, p in hf.named_parameters() if p.grad is not None}
    return weights_from_hf(grads, hf.config.model_type, model.config.num_hidden_layers)


def assert_parity(hf, model, lengths, tolerance, seed=0):
    """Logits of real tokens, loss, and every gradient."""
    input_ids, mask, labels = batch(lengths, model.config.vocab_size, seed)
    theirs = hf(input_ids=input_ids, attention_mask=mask, labels=labels)
    ours = model(input_ids, mask, labels=labels)
    real = mask.bool()
    assert (theirs.logits - ours.logits)[real].abs().max() <= tolerance
    assert abs(theirs.loss - ours.loss) <= max(tolerance, 1e-6 if ours.loss.dtype == torch.float32 else 0)
    theirs.loss.backward()
    ours.loss.backward()
    expected = gradients_as_ours(hf, model)
    got = {name: p.grad for name, p in model.named_parameters()}
    assert expected.keys() == got.keys()
    for name, gradient in got.items():
        worst = (expected[name] - gradient).abs().max()
        assert worst <= tolerance, f"gradient of {name} differs by {worst}"
        # A difference cannot be small merely because the gradient is: it must also be small beside it.
        assert worst <= 1e3 * tolerance * expected[name].abs().max() + 1e-12, name


@pytest.mark.parametrize("lengths", [PADDED, FULL])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_equals_transformers_at_tiny_size_in_float32(kind, backend, lengths):
    hf = hf_bert(**TINY_BERT) if kind == "bert" else hf_modernbert(**TINY_MODERNBERT)
    model = from_transformers(hf)
    model.encoder.backend = backend
    assert_parity(hf, model, lengths, 1e-4)


@pytest.mark.parametrize("lengths", [PADDED, FULL])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_equals_transformers_at_tiny_size_in_float64(kind, lengths, monkeypatch):
    rotate_in_full_precision(monkeypatch)
    hf = (hf_bert(**TINY_BERT) if kind == "bert" else hf_modernbert(**TINY_MODERNBERT)).double()
    assert_parity(hf, from_transformers(hf), lengths, 1e-8)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_equals_transformers_at_base_size(kind):
    hf = hf_bert() if kind == "bert" else hf_modernbert(attention_dropout=0.0)
    model = from_transformers(hf)
    assert_parity(hf, model, (140, 17), 1e-4)
    hf.zero_grad()
    model.zero_grad()
    assert_parity(hf, model, (80, 80), 1e-4, seed=1)


def test_modernbert_variants_that_transformers_has():
    changes = dict(attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True, local_attention=32)
    hf = hf_modernbert(**{**TINY_MODERNBERT, **changes}, global_attn_every_n_layers=2)
    model = from_transformers(hf)
    assert model.config.bias and model.config.attention_pattern == "GL" and model.config.half_window == 16
    assert_parity(hf, model, PADDED, 1e-4)


def test_bert_segments_equal_transformers():
    hf = hf_bert(**TINY_BERT)
    model = from_transformers(hf)
    input_ids, mask, _ = batch((20, 9), 211)
    types = (torch.arange(20) > 7).long().expand(2, 20)
    theirs = hf(input_ids=input_ids, attention_mask=mask, token_type_ids=types).logits
    ours = model(input_ids, mask, token_type_ids=types).logits
    assert (theirs - ours)[mask.bool()].abs().max() < 1e-5
    without = model(input_ids, mask).logits
    assert (ours - without).abs().max() > 1e-2


@pytest.mark.parametrize("unpad", [False, True])
@pytest.mark.parametrize("positions", ["learned", "rope"])
@pytest.mark.parametrize("norm_placement", ["post", "pre"])
@pytest.mark.parametrize("mlp", ["gelu", "geglu"])
@pytest.mark.parametrize("pattern", ["G", "GLL"])
def test_everything_between_is_padding_free_and_backend_free(unpad, positions, norm_placement, mlp, pattern):
    """Padded = alone, eager = sdpa, rectangle = unpadded, for models that transformers does not have."""
    config = EncoderConfig(**BETWEEN, unpad=unpad, positions=positions, norm_placement=norm_placement, mlp=mlp,
                           attention_pattern=pattern)  # fmt: skip
    torch.manual_seed(0)
    model = MaskedLM(config).double().eval()
    other = MaskedLM(config.replace(unpad=not unpad), backend="eager").double().eval()
    other.load_state_dict(model.state_dict())
    lengths = (70, 3, 33)
    input_ids, mask, labels = batch(lengths, 61)
    out, out_other = model(input_ids, mask, labels=labels), other(input_ids, mask, labels=labels)
    real = mask.bool()
    torch.testing.assert_close(out.logits[real], out_other.logits[real], atol=1e-10, rtol=0)
    torch.testing.assert_close(out.loss, out_other.loss, atol=1e-12, rtol=0)
    for row, n in enumerate(lengths):
        alone = model(input_ids[row : row + 1, :n]).logits[0]
        torch.testing.assert_close(out.logits[row, :n], alone, atol=1e-10, rtol=0)


def test_packed_documents_equal_the_same_documents_alone_and_do_not_see_each_other():
    torch.manual_seed(0)
    model = Encoder(EncoderConfig(**BETWEEN, positions="rope", attention_pattern="GLL", unpad=True)).eval()
    documents = [torch.randint(0, 61, (n,)).tolist() for n in (1, 40, 17, 64, 100)]
    ids, layout = pack(documents)
    states = model(ids, layout=layout).last_hidden_state.split(layout.lengths)
    for document, state in zip(documents, states, strict=True):
        alone = model(torch.tensor(document)).last_hidden_state
        torch.testing.assert_close(state, alone, atol=1e-5, rtol=0)
    changed = [*documents[:2], [5] * 17, *documents[3:]]
    new_states = model(*pack(changed)[:1], layout=layout).last_hidden_state.split(layout.lengths)
    for i, (old, new) in enumerate(zip(states, new_states, strict=True)):
        assert torch.equal(old, new) == (i != 2)


def test_left_padding_changes_nothing_for_a_model_that_unpads():
    torch.manual_seed(0)
    model = MaskedLM(EncoderConfig(**BETWEEN, positions="rope", attention_pattern="GLL", unpad=True)).eval()
    ids = torch.randint(1, 61, (1, 30))
    padded = torch.cat([torch.zeros(1, 12, dtype=torch.long), ids], dim=1)
    mask = (torch.arange(42) >= 12).long()[None]
    torch.testing.assert_close(model(padded, mask).logits[:, 12:], model(ids).logits, atol=1e-5, rtol=0)


def test_head_runs_on_masked_positions_only_and_logits_come_when_asked_for():
    torch.manual_seed(0)
    model = MaskedLM(EncoderConfig(**BETWEEN)).eval()
    input_ids, mask, labels = batch((30, 12), 61)
    rows = []
    model.head.register_forward_hook(lambda module, inputs, output: rows.append(inputs[0].shape[:-1].numel()))
    out = model(input_ids, mask, labels=labels)
    assert rows == [int((labels != -100).sum())]
    assert out.masked_logits.shape == (rows[0], 61)
    assert out.logits.shape == (2, 30, 61)
    chosen = labels != -100
    torch.testing.assert_close(out.logits[chosen], out.masked_logits)
    expected = torch.nn.functional.cross_entropy(out.logits[chosen], labels[chosen])
    torch.testing.assert_close(out.loss, expected)


def test_shapes_follow_the_ids():
    model = MaskedLM(EncoderConfig(**BETWEEN)).eval()
    ids, layout = pack([[1, 2, 3], [4, 5]])
    assert model(ids, layout=layout).logits.shape == (5, 61)
    assert model(ids.view(1, 5)).logits.shape == (1, 5, 61)
    states = model.encoder(ids, layout=layout, output_hidden_states=True)
    assert len(states.hidden_states) == 5 and states.hidden_states[0].shape == (5, 32)


def test_unpadding_computes_real_tokens_only():
    """Each linear layer of an unpadding model sees the real tokens; BERT's sees the rectangle."""
    for unpad, expected in ((True, 33), (False, 60)):
        model = MaskedLM(EncoderConfig(**BETWEEN, unpad=unpad)).eval()
        seen = []
        model.encoder.layers[0].mlp.Wi.register_forward_hook(lambda m, i, o, seen=seen: seen.append(i[0].shape[0]))
        input_ids, mask, _ = batch((30, 3), 61)
        model(input_ids, mask)
        assert seen == [expected]


def test_megatron_init_scales_what_writes_to_the_residual_stream():
    torch.manual_seed(0)
    c = EncoderConfig.preset("modernbert-base").replace(num_hidden_layers=8, vocab_size=512, pad_token_id=0)
    model = MaskedLM(c)
    truncated = 0.8796  # standard deviation of a unit normal cut off at two sigmas
    block = model.encoder.layers[3]
    assert block.attn.Wqkv.weight.std().item() == pytest.approx(0.02 * truncated, rel=0.02)
    assert block.attn.Wo.weight.std().item() == pytest.approx(0.02 * truncated / 4, rel=0.02)
    assert block.mlp.Wo.weight.std().item() == pytest.approx(0.02 * truncated / 4, rel=0.02)
    assert block.mlp.Wi.weight.abs().max() <= 0.04
    assert torch.equal(block.mlp_norm.weight, torch.ones(768)) and not model.decoder_bias.any()
    plain = MaskedLM(c.replace(init="normal"))
    assert plain.encoder.layers[3].mlp.Wo.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    for name in ("embedding_dropout", "attention_dropout", "attention_output_dropout", "mlp_dropout"):
        model = Encoder(EncoderConfig(**BETWEEN, **{name: 0.5}))
        ids = torch.randint(0, 61, (1, 20))
        assert not torch.equal(model(ids).last_hidden_state, model(ids).last_hidden_state), name
        model.eval()
        assert torch.equal(model(ids).last_hidden_state, model(ids).last_hidden_state), name


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda m: m(torch.tensor([[1, 61]])), "token id 61 is outside the vocabulary of 61"),
        (lambda m: m(torch.tensor([[1, -1]])), "token id -1 is outside"),
        (lambda m: m(torch.ones(1, 300, dtype=torch.long)), "300 tokens is longer than the 256 learned positions"),
        (lambda m: m(torch.ones(2, 5).long(), torch.ones(2, 4)), r"attention_mask \(2, 4\) must have the shape"),
        (lambda m: m(torch.ones(2, 5).long(), torch.tensor([[1] * 5, [0] * 5])), "row 1 of attention_mask"),
        (lambda m: m(torch.ones(2, 5)), "must be whole numbers, not torch.float32"),
        (lambda m: m(torch.ones(1, 2, 5).long()), r"must be \(B, S\) or flat"),
        (lambda m: m(torch.ones(1, 0).long()), "input_ids is empty"),
        (lambda m: m(torch.ones(4).long(), layout=pack([[1, 2, 3]])[1]), "layout has 3 tokens and input_ids 4"),
        (lambda m: m(torch.ones(1, 3).long(), layout=pack([[1, 2, 3]])[1]), "not a mixture"),
        (lambda m: m(torch.ones(2, 5).long(), labels=torch.ones(2, 4).long()), r"labels \(2, 4\) must have"),
        (lambda m: m(torch.ones(2, 5).long(), labels=torch.full((2, 5), -100)), "nothing to learn"),
    ],
)
def test_bad_calls_say_what_is_wrong(call, said):
    with pytest.raises(InputError, match=said) as error:
        call(MaskedLM(EncoderConfig(**BETWEEN)).eval())
    assert "\n" not in str(error.value)
