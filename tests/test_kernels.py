"""The adapters to fast kernels: each argument they hand over, the block lists, the reasons, and the kernels themselves.

On a CPU the FlashAttention kernels are stood in for by a function that checks what it is given and computes the
definition; on a GPU the tests marked cuda run the kernels themselves.
"""

import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_edu import InputError, Layout, attention, attention_mask, choose_backend, kernels
from modernbert_edu.attention import eager

LENGTHS = (100, 30, 170, 1, 0, 64)


def random_qkv(tokens, heads=2, size=16, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(tokens, heads, size, generator=generator).to(device, dtype) for _ in range(3)]


def stand_in(seen, layout):
    """What FlashAttention computes, from its own arguments alone: offsets, longest, scale and window."""

    def compute(q, k, v, cu_q, cu_k, longest_q, longest_k, scale, window):
        seen.append(window)
        assert cu_q.dtype == cu_k.dtype == torch.int32 and torch.equal(cu_q, cu_k)
        assert cu_q.device == q.device and cu_q.is_contiguous()
        assert cu_q[0] == 0 and cu_q[-1] == q.shape[0] and bool((cu_q.diff() >= 0).all())
        assert isinstance(longest_q, int) and longest_q == longest_k == int(cu_q.diff().max())
        assert isinstance(window, tuple) and len(window) == 2 and window[0] == window[1]
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        documents = Layout.from_lengths(cu_q.diff().tolist())
        return eager(q, k, v, documents, None if window == (-1, -1) else window[0], scale, 0.0)

    return compute


@pytest.mark.parametrize("window", [None, 64, 3])
@pytest.mark.parametrize("scale", [0.25, 0.1])
def test_varlen_hands_over_what_the_kernel_wants(window, scale, monkeypatch):
    from torch.nn.attention import varlen as module

    layout, seen = Layout.from_lengths(LENGTHS), []
    compute = stand_in(seen, layout)

    # The signature common to torch 2.11 and 2.13: anything else would be an error in one of them.
    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None,
                    window_size=(-1, -1)):  # fmt: skip
        return compute(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size)

    monkeypatch.setattr(module, "varlen_attn", varlen_attn)
    q, k, v = random_qkv(layout.num_tokens)
    out = kernels.varlen(q, k, v, layout, window, scale)
    torch.testing.assert_close(out, eager(q, k, v, layout, window, scale, 0.0))
    assert seen == [(-1, -1) if window is None else (window, window)]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("window", [None, 64])
def test_flash_hands_over_what_the_kernel_wants(version, window, monkeypatch):
    layout, seen = Layout.from_lengths(LENGTHS), []
    compute = stand_in(seen, layout)

    def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=None,
                               causal=False, window_size=(-1, -1)):  # fmt: skip
        assert causal is False
        out = compute(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, window_size)
        return (out, "log-sum-exp") if version == 3 else out

    install(monkeypatch, {2: "flash_attn", 3: "flash_attn_interface"}[version], flash_attn_varlen_func)
    assert kernels.flash_version() == version
    q, k, v = random_qkv(layout.num_tokens)
    out = kernels.flash(q, k, v, layout, window, 0.2)
    torch.testing.assert_close(out, eager(q, k, v, layout, window, 0.2, 0.0))
    assert seen == [(-1, -1) if window is None else (window, window)]


def install(monkeypatch, name, function):
    module = types.ModuleType(name)
    module.flash_attn_varlen_func = function
    module.__spec__ = types.SimpleNamespace(name=name)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_flash_attn_that_breaks_at_import_counts_as_absent(monkeypatch, tmp_path):
    (tmp_path / "flash_attn.py").write_text("raise OSError('undefined symbol: built for another torch')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    assert kernels.flash_version() is None


# ---- flex ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 63, 64, 65, 127, 128, 129, 300]), min_size=1, max_size=6),
    window=st.sampled_from([None, 0, 3, 64, 65, 500]),
)
def test_flex_blocks_are_exactly_those_that_are_not_empty(lengths, window):
    """No pair is lost, and no block is computed in vain but for the filling of the last one."""
    if sum(lengths) == 0:
        lengths = [1, *lengths]
    layout = Layout.from_lengths(lengths)
    mask = kernels.make_block_mask(layout, window)
    T, size = layout.num_tokens, kernels.FLEX_BLOCK
    blocks = -(-T // size)
    counts, indices = mask.kv_num_blocks[0, 0].tolist(), mask.kv_indices[0, 0].tolist()
    dense = torch.zeros(blocks * size, blocks * size, dtype=torch.bool)
    dense[:T, :T] = attention_mask(layout, window)
    for row in range(blocks):
        listed = set(indices[row][: counts[row]])
        tiles = dense[row * size : (row + 1) * size].view(size, blocks, size).any(dim=2).any(dim=0)
        assert listed == set(tiles.nonzero().flatten().tolist())
    at = torch.arange(T)
    assert torch.equal(mask.mask_mod(0, 0, at[:, None], at[None, :]), dense[:T, :T])


def test_flex_equals_eager_on_the_cpu():
    layout = Layout.from_lengths([100, 28])
    q, k, v = random_qkv(128)
    with torch.no_grad():
        for window in (None, 20):
            out = attention(q, k, v, layout, window=window, backend="flex")
            torch.testing.assert_close(out, attention(q, k, v, layout, window=window, backend="eager"))


# ---- choosing and refusing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backend, change, said",
    [
        ("varlen", {}, "needs an NVIDIA GPU, the tensors are on cpu"),
        ("flash", {}, "flash-attn is not installed: pip install flash-attn"),
        ("flex", dict(requires_grad=True), "on a CPU FlexAttention computes the forward pass only"),
        ("varlen", dict(dropout=0.1), "no dropout on the attention probabilities"),
        ("flex", dict(dropout=0.1), "no dropout on the attention probabilities"),
    ],
)
def test_a_backend_asked_for_by_name_raises_with_the_reason(backend, change, said):
    q, k, v = (x.requires_grad_(change.get("requires_grad", False)) for x in random_qkv(10))
    with pytest.raises(InputError, match=said) as error:
        attention(q, k, v, Layout.from_lengths([10]), backend=backend, dropout=change.get("dropout", 0.0))
    assert f"attention backend '{backend}' cannot be used here" in str(error.value)


class FakeGpu:
    """What choose_backend asks of torch.cuda, answered for a GPU that is not there."""

    def __init__(self, monkeypatch, capability, flash=None):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a GPU")
        for module in ("modernbert_edu.kernels", "modernbert_edu.attention"):
            monkeypatch.setattr(sys.modules[module], "flash_version", lambda: flash)


@pytest.mark.parametrize(
    "capability, flash, dtype, facts, expected, reason",
    [
        ((9, 0), 3, torch.bfloat16, {}, "flash", "Hopper"),
        ((9, 0), 2, torch.bfloat16, {}, "varlen", "FlashAttention"),
        ((8, 0), 3, torch.bfloat16, {}, "varlen", "FlashAttention"),
        ((9, 0), None, torch.float16, {}, "varlen", "float16"),
        ((9, 0), 3, torch.float32, {}, "sdpa", "not float32"),
        ((7, 5), None, torch.float16, {}, "sdpa", "Ampere"),
        ((9, 0), None, torch.bfloat16, dict(kept_pads=True), "sdpa", "pad tokens"),
        ((9, 0), 3, torch.bfloat16, dict(dropout=0.1), "sdpa", "dropout"),
    ],
)
def test_auto_on_a_gpu(capability, flash, dtype, facts, expected, reason, monkeypatch):
    FakeGpu(monkeypatch, capability, flash)
    name, why = choose_backend("cuda:0", dtype, **facts)
    assert name == expected and reason in why


def test_auto_without_varlen_takes_flash_and_never_raises(monkeypatch):
    FakeGpu(monkeypatch, (8, 0), flash=2)
    real = kernels.importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "torch.nn.attention.varlen" else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(kernels.importlib.util, "find_spec", hidden)
    name, why = choose_backend("cuda:0", torch.bfloat16)
    assert name == "flash" and "torch 2.11 or newer" in why
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert choose_backend("cpu", dtype)[0] == "sdpa"


# ---- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("window", [None, 64, 3])
@pytest.mark.parametrize("backend", ["sdpa", "varlen", "flex", "flash"])
def test_kernels_equal_the_definition_forward_and_backward(backend, window):
    lengths = (700, 1, 63, 64, 65, 129, 1, 500, 0)
    layout = Layout.from_lengths(lengths, "cuda")
    dtype = torch.bfloat16
    reason = kernels.why_not(backend, torch.device("cuda"), dtype) if backend in kernels.KERNELS else None
    if reason:
        pytest.skip(reason)
    q, k, v = (x.requires_grad_() for x in random_qkv(layout.num_tokens, size=64, dtype=dtype, device="cuda"))
    out = attention(q, k, v, layout, window=window, backend=backend)
    grads = torch.autograd.grad(out.float().square().sum(), (q, k, v))
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = attention(*exact, layout, window=window, backend="eager")
    expected_grads = torch.autograd.grad(expected.square().sum(), exact)
    for got, want in zip((out, *grads), (expected, *expected_grads), strict=True):
        relative = (got.double() - want).norm() / want.norm()
        assert relative < 1e-2, float(relative)
