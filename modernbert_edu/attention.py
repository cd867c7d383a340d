"""Attention on the flat token axis, global or local, behind one function.

    attention(q, k, v, layout, window=None)      every token sees its whole document
    attention(q, k, v, layout, window=64)        every token sees 64 keys on each side and itself: 129 keys

Two backends compute the same thing:

- `eager`   softmax(q k^T) v with a dense (T, T) mask. The definition, for reading and for tests.
- `sdpa`    torch's fused kernel. Global layers go document by document, so no work crosses a border. Local layers are
            cut into blocks of 64 queries that see their own block and `window` keys on each side: linear in T, where
            a mask over all pairs would make the kernel do the full quadratic work and then throw most of it away.

Letters: T tokens, H heads, K head size, N documents, S length of each when all are equally long, Q queries of a block,
W keys that a block sees.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .unpadding import Layout

BLOCK = 64  # queries per block in local layers: 64 beat 128 and 256 on CPU, its halo being the smallest share


def choose_backend(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """What "auto" means here: (backend, the reason in words)."""
    return "sdpa", f"torch's fused kernel runs {str(dtype).removeprefix('torch.')} on {torch.device(device).type}"


def attention(
    q_THK: Tensor,
    k_THK: Tensor,
    v_THK: Tensor,
    layout: Layout,
    *,
    window: int | None = None,
    backend: str = "auto",
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Bidirectional attention within each document: (T, H, K) three times -> (T, H, K).

    `window` is the number of keys on each side of a token, or None for the whole document; `scale` defaults to
    K ** -0.5 (Vaswani et al. 2017, equation 1); `dropout` acts on the probabilities.
    Raises `InputError` for shapes or dtypes that do not go together, a negative window or an unknown backend.
    """
    _check(q_THK, k_THK, v_THK, layout, window)
    if backend == "auto":
        backend, _ = choose_backend(q_THK.device, q_THK.dtype)
    if backend not in BACKENDS:
        raise InputError(f"no attention backend is called {backend!r}; there are: auto, {', '.join(BACKENDS)}")
    if window is not None and window >= layout.max_seqlen - 1:
        window = None  # every key of every document is near enough: local and global are the same
    scale = q_THK.shape[-1] ** -0.5 if scale is None else scale
    return BACKENDS[backend](q_THK, k_THK, v_THK, layout, window, scale, dropout)


def _check(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int | None) -> None:
    if q.shape != k.shape or q.shape != v.shape or q.dim() != 3:
        raise InputError(
            f"q, k and v must all be (T, H, K), not {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not q.dtype == k.dtype == v.dtype:
        raise InputError(f"q, k and v must have one dtype, not {q.dtype}, {k.dtype} and {v.dtype}")
    if q.shape[0] != layout.num_tokens:
        raise InputError(f"q has {q.shape[0]} tokens and the layout {layout.num_tokens}; build one from the other")
    if window is not None and window < 0:
        raise InputError(f"window is the number of keys on each side: 0 or more, or None, not {window}")


def attention_mask(layout: Layout, window: int | None = None) -> Tensor:
    """The dense mask, (T, T) bool, True where the row's token may look at the column's. The definition of both kinds.

    A kept pad token is no key to others. In local layers it stays a key to itself: far from every real token its row
    would else be empty, and a softmax over nothing is not a number.
    """
    doc = layout.document_ids
    allowed = doc[:, None] == doc[None, :]
    if window is not None:
        place = torch.arange(layout.num_tokens, device=doc.device)
        allowed &= (place[:, None] - place[None, :]).abs() <= window
    if layout.key_mask is not None:
        keys = layout.key_mask[None, :]
        if window is not None:
            keys = keys | torch.eye(layout.num_tokens, dtype=torch.bool, device=doc.device)
        allowed &= keys
    return allowed


def eager(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int | None, scale: float, dropout: float) -> Tensor:
    """The definition: scores of all pairs, those not allowed set to -inf, softmax, weighted sum of the values."""
    scores_HTT = torch.einsum("qhk,shk->hqs", q, k) * scale
    scores_HTT = scores_HTT.masked_fill(~attention_mask(layout, window), float("-inf"))
    weights_HTT = F.dropout(scores_HTT.softmax(dim=-1), p=dropout)
    return torch.einsum("hqs,shk->qhk", weights_HTT, v)


def sdpa(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int | None, scale: float, dropout: float) -> Tensor:
    """torch's fused kernel, fed so that it never computes a pair it does not need."""
    if window is not None:
        return _sdpa_blocks(q, k, v, layout, window, scale, dropout)
    if layout.uniform:
        return _sdpa_rectangle(q, k, v, layout, scale, dropout)
    return _sdpa_documents(q, k, v, layout, scale, dropout)


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """(..., tokens, H, K) -> (..., tokens, H, K); torch wants the heads before the tokens."""
    q, k, v = (x.transpose(-3, -2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    return out.transpose(-3, -2)


def _sdpa_rectangle(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float) -> Tensor:
    """All documents equally long: one call over (N, S), with a key mask where pad tokens were kept."""
    N, S = layout.num_documents, layout.max_seqlen
    mask = None if layout.key_mask is None else layout.key_mask.view(N, 1, 1, S)
    q, k, v = (x.unflatten(0, (N, S)) for x in (q, k, v))
    return _fused(q, k, v, mask, scale, dropout).flatten(0, 1)


def _sdpa_documents(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, dropout: float) -> Tensor:
    """Documents of unlike length, one call each."""
    parts = [
        _fused(qd[None], kd[None], vd[None], None, scale, dropout)[0]
        for qd, kd, vd in zip(*(x.split(layout.lengths) for x in (q, k, v)), strict=True)
        if qd.shape[0]
    ]
    return torch.cat(parts)


def _sdpa_blocks(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int, scale: float, dropout: float) -> Tensor:
    """Local attention in blocks: T/Q blocks of queries, each with its own W = Q + 2 window keys."""
    T, H, K = q.shape
    index_NW, mask_NQW = _block_plan(layout, window)
    blocks = index_NW.shape[0]
    q = F.pad(q, (0, 0, 0, 0, 0, blocks * BLOCK - T)).unflatten(0, (blocks, BLOCK))
    # An embedding lookup is a gather whose backward adds the gradients up in parallel.
    k, v = (F.embedding(index_NW, x.reshape(T, H * K)).unflatten(-1, (H, K)) for x in (k, v))
    return _fused(q, k, v, mask_NQW[:, None], scale, dropout).flatten(0, 1)[:T]


def _block_plan(layout: Layout, window: int) -> tuple[Tensor, Tensor]:
    """Which keys each block gathers, (blocks, W), and which of them each query may see, (blocks, Q, W).

    The same for every local layer, so it is made once per batch and kept in the layout.
    """
    if ("blocks", window) not in layout.plans:
        layout.plans["blocks", window] = _make_block_plan(layout, window)
    return layout.plans["blocks", window]


def _make_block_plan(layout: Layout, window: int) -> tuple[Tensor, Tensor]:
    T, device, doc = layout.num_tokens, layout.document_ids.device, layout.document_ids
    blocks = -(-T // BLOCK)
    start = torch.arange(blocks, device=device)[:, None] * BLOCK
    queries = start + torch.arange(BLOCK, device=device)  # (blocks, Q): each query's place on the flat axis
    keys = start + torch.arange(-window, BLOCK + window, device=device)  # (blocks, W): the block and its halo
    inside = (keys >= 0) & (keys < T)
    near_key, near_query = keys.clamp(0, T - 1), queries.clamp(max=T - 1)

    near = (queries[:, :, None] - keys[:, None, :]).abs() <= window
    same = doc[near_query][:, :, None] == doc[near_key][:, None, :]
    allowed = near & same & inside[:, None, :]
    if layout.key_mask is not None:
        itself = queries[:, :, None] == keys[:, None, :]
        allowed &= layout.key_mask[near_key][:, None, :] | itself
    # The last block is filled up with queries that do not exist. They may look anywhere: their output is cut off,
    # but an empty row would send not-a-number into the gradient of the keys.
    allowed |= (queries >= T)[:, :, None]
    return near_key, allowed


BACKENDS = {"eager": eager, "sdpa": sdpa}
