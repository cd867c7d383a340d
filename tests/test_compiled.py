"""The compiled path: one graph, no recompilation, the same numbers and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu import EncoderConfig, Layout, MaskedLM, attention, pack
from modernbert_edu.compiled import documents, fixed_shapes

SIZES = dict(vocab_size=101, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 90), min_size=1, max_size=40), budget=st.sampled_from([64, 100, 1000]))
def test_fixed_shapes_depend_on_the_budget_alone(lengths, budget):
    if sum(lengths) == 0:
        lengths = [1]
    layout = Layout.from_lengths(lengths)
    fixed = fixed_shapes(layout, budget, longest=512)
    assert fixed.num_tokens % budget == 0 and 0 <= fixed.num_tokens - layout.num_tokens < budget
    assert fixed.max_seqlen == 512 and fixed.lengths == ()
    cu, n = fixed.cu_seqlens.tolist(), layout.num_documents
    assert cu[: n + 1] == layout.cu_seqlens.tolist() and cu[-1] == fixed.num_tokens
    assert all(0 <= b - a <= 64 for a, b in zip(cu[n:], cu[n + 1 :], strict=False))
    T = layout.num_tokens
    assert torch.equal(fixed.position_ids[:T], layout.position_ids)
    # Real documents keep their names; the filling bears names of its own.
    assert torch.equal(fixed.document_ids[:T], layout.document_ids)
    assert fixed.num_tokens == T or fixed.document_ids[T:].min() >= n
    same = fixed_shapes(Layout.from_lengths([layout.num_tokens]), budget, longest=512)
    if len(lengths) < fixed.num_tokens // 16 - 16:
        assert same.cu_seqlens.shape == fixed.cu_seqlens.shape


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.sampled_from([0, 1, 2, 63, 64, 65, 129, 300]), min_size=1, max_size=6))
def test_documents_equals_eager_forward_and_backward(lengths):
    if sum(lengths) == 0:
        lengths = [1]
    layout = Layout.from_lengths(lengths)
    generator = torch.Generator().manual_seed(0)
    qkv = [torch.randn(layout.num_tokens, 2, 8, generator=generator, dtype=torch.float64) for _ in range(3)]
    inputs = [x.requires_grad_() for x in qkv]
    out, _ = documents(*inputs, layout.cu_seqlens, 0.3)
    expected = attention(*inputs, layout, backend="eager", scale=0.3)
    weight = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=0)
    for got, want in zip(
        torch.autograd.grad((out * weight).sum(), inputs), torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(got, want, atol=1e-10, rtol=0)


def test_documents_is_a_well_formed_operator():
    layout = Layout.from_lengths([5, 0, 9])
    inputs = [torch.randn(14, 2, 8, requires_grad=True) for _ in range(3)]
    torch.library.opcheck(documents, (*inputs, layout.cu_seqlens, 0.5))


def batch(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    return pack([torch.randint(0, 101, (n,), generator=generator).tolist() for n in lengths])


def test_one_graph_serves_batches_of_different_lengths_and_trains_the_same():
    torch.manual_seed(0)
    config = EncoderConfig.preset("modernbert-tiny", **SIZES)
    compiled, plain = MaskedLM(config, compile=True, token_budget=256), MaskedLM(config)
    plain.load_state_dict(compiled.state_dict())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for seed, lengths in enumerate(([100, 50, 20], [30] * 8, [200], [7, 8, 9, 150])):
        ids, layout = batch(lengths, seed)
        labels = torch.where(torch.rand(ids.shape) < 0.3, ids, -100)
        losses = []
        for model in (compiled, plain):
            model.zero_grad()
            output = model(ids, layout=layout, labels=labels)
            output.loss.backward()
            losses.append(output)
        torch.testing.assert_close(losses[0].last_hidden_state, losses[1].last_hidden_state, atol=1e-5, rtol=1e-5)
        for (name, a), b in zip(compiled.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4, msg=name)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_a_padded_batch_goes_through_the_compiled_path_too():
    torch.manual_seed(0)
    config = EncoderConfig.preset("modernbert-tiny", **SIZES)
    compiled = MaskedLM(config, compile=True, token_budget=128).eval()
    plain = MaskedLM(config).eval()
    plain.load_state_dict(compiled.state_dict())
    mask = (torch.arange(40) < torch.tensor([[40], [7]])).long()
    ids = torch.randint(0, 101, (2, 40))
    with torch.no_grad():
        a, b = compiled(ids, mask).logits, plain(ids, mask).logits
    torch.testing.assert_close(a[mask.bool()], b[mask.bool()], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert-tiny"])
def test_a_model_that_keeps_its_pads_says_that_it_cannot_be_compiled(name):
    from modernbert_edu import InputError

    with pytest.raises(InputError, match="compile needs a model that unpads"):
        MaskedLM(EncoderConfig.preset(name), compile=True)


def test_a_backend_that_cannot_be_compiled_is_named():
    from modernbert_edu import InputError

    model = MaskedLM(EncoderConfig.preset("modernbert-tiny", **SIZES), backend="flex", compile=True)
    with pytest.raises(InputError, match="no attention backend 'flex' on cpu"):
        model(torch.ones(1, 8, dtype=torch.long))
