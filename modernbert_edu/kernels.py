"""Adapters to the fast attention kernels: what each wants, and when it cannot be had.

All three skip what lies outside a document or a window instead of masking it, forward and backward:

- `varlen`  torch's own FlashAttention-2 kernels over `cu_seqlens` (torch.nn.attention.varlen, torch 2.11 or newer).
- `flash`   the flash-attn package, version 3 (Hopper) or 2, where the user has installed it.
- `flex`    FlexAttention: the mask is a Python function, compiled into a kernel together with a list of the blocks
            that are not empty.

Every adapter has the signature (q, k, v, layout, window, scale) with q, k, v of shape (T, H, K). A window of 64 is
(64, 64) to FlashAttention: both ends count, so it is 129 keys here and there.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util

import torch
from torch import Tensor

from .unpadding import Layout

HALF = (torch.bfloat16, torch.float16)
FLEX_BLOCK = 128  # FlexAttention's own block size; the flat axis is filled up to a multiple of it


def varlen(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int | None, scale: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    both_sides = (-1, -1) if window is None else (window, window)
    cu, longest = layout.cu_seqlens, layout.max_seqlen
    return varlen_attn(q, k, v, cu, cu, longest, longest, scale=scale, window_size=both_sides)


def flash(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int | None, scale: float) -> Tensor:
    function = flash_function()
    both_sides = (-1, -1) if window is None else (window, window)
    cu, longest = layout.cu_seqlens, layout.max_seqlen
    out = function(
        q, k, v, cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=longest, max_seqlen_k=longest,
        softmax_scale=scale, causal=False, window_size=both_sides,
    )  # fmt: skip
    return out[0] if isinstance(out, tuple) else out  # version 3 may return the log-sum-exp too


def flash_version() -> int | None:
    """3 where flash-attn 3 is installed (module flash_attn_interface), else 2 where flash-attn is, else None."""
    for version, module in ((3, "flash_attn_interface"), (2, "flash_attn")):
        try:
            if importlib.util.find_spec(module) and hasattr(importlib.import_module(module), "flash_attn_varlen_func"):
                return version
        except Exception:  # built for another torch or GPU, it fails at import in ways of its own
            continue
    return None


def flash_function():
    """flash-attn's function for documents of different lengths, of the newest version installed."""
    module = {3: "flash_attn_interface", 2: "flash_attn"}[flash_version()]
    return importlib.import_module(module).flash_attn_varlen_func


def flex(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int | None, scale: float) -> Tensor:
    T = q.shape[0]
    fill = -T % FLEX_BLOCK
    q, k, v = (torch.nn.functional.pad(x, (0, 0, 0, 0, 0, fill)).transpose(0, 1)[None] for x in (q, k, v))
    out = _compiled_flex()(q, k, v, block_mask=_flex_plan(layout, window), scale=scale)
    return out[0].transpose(0, 1)[:T]


@functools.cache
def _compiled_flex():
    """FlexAttention is made to be compiled: run as it is, it builds the whole matrix of scores."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _flex_plan(layout: Layout, window: int | None):
    if ("flex", window) not in layout.plans:
        layout.plans["flex", window] = make_block_mask(layout, window)
    return layout.plans["flex", window]


def make_block_mask(layout: Layout, window: int | None):
    """FlexAttention's BlockMask, from the documents' borders.

    torch's `create_block_mask` tries every pair of tokens to find the blocks that are not empty: at 65,536 tokens four
    billion. The documents lie in order, so the keys of a block of queries are one run of blocks, found from its ends.
    """
    from torch.nn.attention.flex_attention import BlockMask

    T, device = layout.num_tokens, layout.document_ids.device
    blocks = -(-T // FLEX_BLOCK)
    first = torch.arange(blocks, device=device) * FLEX_BLOCK
    last = (first + FLEX_BLOCK - 1).clamp(max=T - 1)
    cu = layout.cu_seqlens.long()
    low, high = cu[layout.document_ids[first]], cu[layout.document_ids[last] + 1] - 1
    if window is not None:
        low, high = torch.maximum(low, first - window), torch.minimum(high, last + window)
    low, high = low // FLEX_BLOCK, high // FLEX_BLOCK
    order = torch.arange(blocks, device=device)
    counts = high - low + 1
    indices = torch.where(order < counts[:, None], low[:, None] + order, 0)

    # Filled up to whole blocks, each filling token is a document of its own: no row is empty, nothing sees it.
    fill = blocks * FLEX_BLOCK - T
    own = layout.num_documents + torch.arange(fill, device=device)
    documents = torch.cat([layout.document_ids, own])
    real = None if layout.key_mask is None else torch.cat([layout.key_mask, layout.key_mask.new_ones(fill)])

    def mask_mod(batch, head, query, key):
        allowed = documents[query] == documents[key]
        if window is not None:
            allowed = allowed & ((query - key).abs() <= window)
        if real is not None:
            allowed = allowed & (real[key] | (query == key))
        return allowed

    return BlockMask.from_kv_blocks(
        counts[None, None].int(), indices[None, None].int(), BLOCK_SIZE=FLEX_BLOCK, mask_mod=mask_mod,
        seq_lengths=(blocks * FLEX_BLOCK, blocks * FLEX_BLOCK),
    )  # fmt: skip


KERNELS = {"varlen": varlen, "flash": flash, "flex": flex}


# ---- when a kernel cannot be had -------------------------------------------------------------------------------------


def why_not(
    kernel: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    kept_pads: bool = False,
    dropout: float = 0.0,
    needs_grad: bool = False,
) -> str | None:
    """The reason in words why a kernel cannot do this, or None where it can."""
    if dropout:
        return "it has no dropout on the attention probabilities"
    if kernel == "flex":
        return _why_not_flex(device, needs_grad)
    if kernel == "varlen" and importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"it needs torch 2.11 or newer, this is {torch.__version__}"
    if kernel == "flash" and flash_version() is None:
        return "the package flash-attn is not installed: pip install flash-attn --no-build-isolation"
    if device.type != "cuda":
        return f"it needs an NVIDIA GPU, the tensors are on {device.type}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"it needs an Ampere GPU or newer, this is {torch.cuda.get_device_name(device)}"
    if dtype not in HALF:
        return f"it computes bfloat16 and float16, not {str(dtype).removeprefix('torch.')}"
    if kept_pads:
        return "it cannot skip pad tokens inside a document; unpad the batch"
    return None


def _why_not_flex(device: torch.device, needs_grad: bool) -> str | None:
    if device.type == "cpu" and needs_grad:
        return "on a CPU FlexAttention computes the forward pass only; use sdpa to train"
    if device.type not in ("cpu", "cuda"):
        return f"FlexAttention is compiled for CPU and CUDA, not for {device.type}"
    return None
