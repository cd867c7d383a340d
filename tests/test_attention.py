"""Attention: every backend equals the definition, forward and backward; windows end where they should."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu import InputError, Layout, attention, attention_mask, choose_backend
from modernbert_edu.kernels import KERNELS

HERE = ("eager", "sdpa")  # the kernels for GPUs are in test_kernels.py
OTHERS = ("sdpa",)
LENGTHS = st.lists(st.sampled_from([0, 1, 2, 5, 63, 64, 65, 100, 129, 200]), min_size=1, max_size=6)


def random_qkv(tokens, heads=2, size=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tokens, heads, size, generator=generator, dtype=dtype, requires_grad=True) for _ in range(3)]


def naive(q, k, v, layout, window):
    """Loops over every query and head: nothing shared with the package."""
    T, H, K = q.shape
    doc, place = layout.document_ids.tolist(), layout.position_ids.tolist()
    real = [True] * T if layout.key_mask is None else layout.key_mask.tolist()
    out = torch.zeros_like(q)
    for t in range(T):
        near = [s for s in range(T) if doc[s] == doc[t] and (window is None or abs(place[s] - place[t]) <= window)]
        keys = [s for s in near if real[s] or (s == t and window is not None)]
        for h in range(H):
            scores = torch.stack([q[t, h] @ k[s, h] for s in keys]) / K**0.5
            weights = scores.softmax(0)
            out[t, h] = sum(w * v[s, h] for w, s in zip(weights, keys, strict=True))
    return out


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("window", [None, 0, 2, 5])
def test_equals_a_plain_loop(backend, window):
    layout = Layout.from_lengths([3, 0, 11, 1])
    q, k, v = (x.detach() for x in random_qkv(15))
    torch.testing.assert_close(
        attention(q, k, v, layout, window=window, backend=backend), naive(q, k, v, layout, window), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("window", [None, 2])
def test_kept_pads_equal_a_plain_loop(backend, window):
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 1, 0]])
    layout = Layout.from_mask(mask, unpad=False)
    q, k, v = (x.detach() for x in random_qkv(21))
    ours = attention(q, k, v, layout, window=window, backend=backend)
    torch.testing.assert_close(ours, naive(q, k, v, layout, window), atol=1e-12, rtol=0)


@pytest.mark.parametrize("backend", OTHERS)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, window=st.sampled_from([None, 1, 63, 64, 65]), seed=st.integers(0, 9))
def test_equals_eager_forward_and_backward(backend, lengths, window, seed):
    if sum(lengths) == 0:
        lengths = [1, *lengths]
    layout = Layout.from_lengths(lengths)
    q, k, v = random_qkv(layout.num_tokens, seed=seed)
    out_gradient = torch.randn(q.shape, generator=torch.Generator().manual_seed(seed), dtype=q.dtype)
    results = []
    for name in ("eager", backend):
        out = attention(q, k, v, layout, window=window, backend=name)
        results.append([out, *torch.autograd.grad(out, (q, k, v), out_gradient)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("backend", OTHERS)
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=4), window=st.sampled_from([None, 3, 64]),
    left=st.booleans(),
)  # fmt: skip
def test_rectangle_with_pads_equals_eager(backend, lengths, window, left):
    S = max(lengths)
    mask = torch.arange(S) < torch.tensor(lengths)[:, None]
    layout = Layout.from_mask(mask.flip(1) if left else mask, unpad=False)
    q, k, v = random_qkv(layout.num_tokens)
    real = layout.gather(mask.flip(1) if left else mask)
    results = []
    for name in ("eager", backend):
        out = attention(q, k, v, layout, window=window, backend=name)[real]
        results.append([out, *torch.autograd.grad(out.square().sum(), (q, k, v))])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("backend", HERE)
def test_window_ends_at_64(backend):
    """The gradient of token 150 reaches exactly 86 ... 214: 64 away attends, 65 does not, 129 keys in all."""
    layout = Layout.from_lengths([400])
    q, k, v = random_qkv(400)
    out = attention(q, k, v, layout, window=64, backend=backend)
    (gradient,) = torch.autograd.grad(out[150].sum(), v)
    reached = gradient.abs().sum(dim=(1, 2)).nonzero().flatten().tolist()
    assert reached == list(range(86, 215)) and len(reached) == 129


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("window", [None, 64])
def test_no_document_sees_another(backend, window):
    layout = Layout.from_lengths([100, 30, 170])
    q, k, v = (x.detach() for x in random_qkv(300, dtype=torch.float32))
    before = attention(q, k, v, layout, window=window, backend=backend)
    k2, v2 = k.clone(), v.clone()
    k2[100:130], v2[100:130] = 7.0, -7.0
    after = attention(q, k2, v2, layout, window=window, backend=backend)
    assert torch.equal(before[:100], after[:100]) and torch.equal(before[130:], after[130:])
    assert not torch.equal(before[100:130], after[100:130])


def test_local_layers_never_build_all_pairs():
    """At 4,096 tokens the largest tensor kept for backward is that of the blocks, far under T * T."""
    layout = Layout.from_lengths([4096])
    q, k, v = random_qkv(4096, heads=1, size=8, dtype=torch.float32)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        attention(q, k, v, layout, window=64, backend="sdpa")
    assert 0 < max(sizes) <= 4096 * (64 + 128) < 4096 * 4096 / 10


def test_a_window_as_wide_as_the_documents_is_global():
    layout = Layout.from_lengths([65, 20])
    assert torch.equal(attention_mask(layout, 64), attention_mask(layout))
    assert not torch.equal(attention_mask(layout, 63), attention_mask(layout))


def test_dropout_acts_on_the_probabilities():
    layout = Layout.from_lengths([50])
    q, k, v = (x.detach() for x in random_qkv(50, dtype=torch.float32))
    for backend in HERE:
        torch.manual_seed(0)
        ones = attention(q, k, torch.ones_like(v), layout, backend=backend, dropout=0.5)
        # Dropped probabilities no longer sum to one, but do on average.
        assert ones.std() > 0.05 and ones.mean().item() == pytest.approx(1.0, abs=0.1), backend


def test_choice_is_printable_and_auto_is_it():
    name, reason = choose_backend("cpu", torch.float32)
    assert name not in KERNELS and "cpu" in reason
    layout = Layout.from_lengths([10])
    q, k, v = (x.detach() for x in random_qkv(10))
    assert torch.equal(attention(q, k, v, layout), attention(q, k, v, layout, backend=name))


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(k=torch.zeros(9, 2, 8)), r"must all be \(T, H, K\)"),
        (dict(v=torch.zeros(10, 2, 8).double()), "must have one dtype"),
        (dict(layout=Layout.from_lengths([9])), "q has 10 tokens and the layout 9"),
        (dict(window=-1), "0 or more, or None, not -1"),
        (dict(backend="warp"), "no attention backend is called 'warp'; there are: auto, eager"),
    ],
)
def test_bad_calls_say_what_is_wrong(change, said):
    good = dict(q=torch.zeros(10, 2, 8), k=torch.zeros(10, 2, 8), v=torch.zeros(10, 2, 8),
                layout=Layout.from_lengths([10]), window=None, backend="auto")  # fmt: skip
    call = {**good, **change}
    with pytest.raises(InputError, match=said):
        attention(call["q"], call["k"], call["v"], call["layout"], window=call["window"], backend=call["backend"])


def test_a_layout_seen_in_inference_mode_can_be_trained_on():
    layout = Layout.from_lengths([200, 100])
    q, k, v = random_qkv(300)
    with torch.inference_mode():
        attention(q, k, v, layout, window=64)
    attention(q, k, v, layout, window=64).sum().backward()
    assert q.grad is not None and q.grad.isfinite().all()
