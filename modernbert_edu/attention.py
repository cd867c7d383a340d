"""Attention on the flat token axis, global or local, behind one function.

    attention(q, k, v, layout, window=None)      every token sees its whole document
    attention(q, k, v, layout, window=64)        every token sees 64 keys on each side and itself: 129 keys

Five backends compute the same thing, two here and three in kernels.py:

- `eager`   softmax(q k^T) v with a dense (T, T) mask. The definition, for reading and for tests.
- `sdpa`    torch's fused kernel. Global layers go document by document, so no work crosses a border. Local layers are
            cut into blocks of 64 queries that see their own block and `window` keys on each side: linear in T, where
            a mask over all pairs would make the kernel do the full quadratic work and then throw most of it away.
- `varlen`, `flash`, `flex`   kernels for documents of different lengths, on NVIDIA GPUs (kernels.py says when).

Letters: T tokens, H heads, K head size, N documents, S length of each when all are equally long, Q queries of a block,
W keys that a block sees.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor

from .compiled import documents
from .errors import InputError
from .kernels import KERNELS, flash_version, why_not
from .unpadding import Layout

BLOCK = 64  # queries per block in local layers: 64 beat 128 and 256 on CPU, its halo being the smallest share


def choose_backend(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    kept_pads: bool = False,
    dropout: float = 0.0,
) -> tuple[str, str]:
    """What "auto" means here: (backend, the reason in words). It never fails for a missing package."""
    device = torch.device(device)
    kind = str(dtype).removeprefix("torch.")
    if device.type != "cuda":
        return "sdpa", f"torch's fused kernel runs {kind} on {device.type}"
    facts = dict(kept_pads=kept_pads, dropout=dropout)
    hopper = torch.cuda.get_device_capability(device) >= (9, 0)
    if hopper and flash_version() == 3 and why_not("flash", device, dtype, **facts) is None:
        return "flash", "flash-attn 3 is installed and this GPU is a Hopper, where it is the fastest"
    reason = why_not("varlen", device, dtype, **facts)
    if reason is None:
        return "varlen", f"torch's own FlashAttention kernels run {kind} over documents of different lengths"
    if why_not("flash", device, dtype, **facts) is None:
        return "flash", f"flash-attn is installed, and varlen will not do: {reason}"
    return "sdpa", f"varlen will not do: {reason}"


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
    backend = _resolve(backend, q_THK, layout, dropout)
    if window is not None and window >= layout.max_seqlen - 1:
        window = None  # every key of every document is near enough: local and global are the same
    scale = q_THK.shape[-1] ** -0.5 if scale is None else scale
    if backend in KERNELS:
        return KERNELS[backend](q_THK, k_THK, v_THK, layout, window, scale)
    reference = eager if backend == "eager" else sdpa
    return reference(q_THK, k_THK, v_THK, layout, window, scale, dropout)


def _resolve(backend: str, q: Tensor, layout: Layout, dropout: float) -> str:
    """The backend to use; one asked for by name that cannot do it raises with the reason."""
    if torch.compiler.is_compiling():  # decided and checked before the graph, see CompiledEncoder
        return backend
    facts = dict(kept_pads=layout.key_mask is not None, dropout=dropout)
    if backend == "auto":
        return choose_backend(q.device, q.dtype, **facts)[0]
    if backend not in BACKENDS:
        raise InputError(f"no attention backend is called {backend!r}; there are: auto, {', '.join(BACKENDS)}")
    if backend in KERNELS:
        needs_grad = q.requires_grad and torch.is_grad_enabled()
        reason = why_not(backend, q.device, q.dtype, needs_grad=needs_grad, **facts)
        if reason:
            raise InputError(f"attention backend {backend!r} cannot be used here: {reason}")
    return backend


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
    if layout.bound is not None:
        return documents(q, k, v, layout.cu_seqlens, scale)[0]
    if not q.requires_grad:  # copies that nothing keeps: a kernel is faster where each head's tokens lie in one run
        q, k, v = (x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v))
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
    """Documents of different lengths, one call each."""
    parts = [
        _fused(qd[None], kd[None], vd[None], None, scale, dropout)[0]
        for qd, kd, vd in zip(*(x.split(layout.lengths) for x in (q, k, v)), strict=True)
        if qd.shape[0]
    ]
    return torch.cat(parts)


def _sdpa_blocks(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int, scale: float, dropout: float) -> Tensor:
    """Local attention in blocks: T/Q blocks of queries, each with its own W = Q + 2 window keys."""
    T = q.shape[0]
    mask_NQW = _block_mask(layout, window, q.dtype)
    blocks = mask_NQW.shape[0]
    fill = blocks * BLOCK - T
    q = torch.cat([q, q.new_zeros(fill, *q.shape[1:])]) if fill else q  # token after token, as the output is to be
    q = q.unflatten(0, (blocks, BLOCK))
    k, v = (Windows.apply(x, blocks, window) for x in (k, v))
    return _fused(q, k, v, mask_NQW[:, None], scale, dropout).flatten(0, 1)[:T]


class Windows(torch.autograd.Function):
    """(T, H, K) -> (blocks, W, H, K): each block's keys, its own Q = 64 and `window` before and after them.

    Forward they are a view with overlapping strides of one copy with zeros at both ends: three times the keys appear,
    and none is stored twice. Backward, a key's gradient is the sum over the blocks that saw it; torch would add them
    up row by row, but they lie in whole runs, so a few additions of long slices do.
    """

    @staticmethod
    def forward(ctx, x_THK: Tensor, blocks: int, window: int) -> Tensor:
        ctx.tokens, ctx.window = x_THK.shape[0], window
        padded = head_runs(x_THK, window, blocks * BLOCK - ctx.tokens + window)
        return padded.unfold(0, BLOCK + 2 * window, BLOCK).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad_NWHK: Tensor) -> tuple[Tensor, None, None]:
        blocks, W = grad_NWHK.shape[:2]
        steps = -(-W // BLOCK)  # how many blocks of tokens a block of queries reaches into
        total = grad_NWHK.new_zeros(blocks + steps - 1, BLOCK, *grad_NWHK.shape[2:])
        for step in range(steps):
            run = grad_NWHK[:, step * BLOCK : (step + 1) * BLOCK]
            total[step : step + blocks, : run.shape[1]] += run
        return total.flatten(0, 1)[ctx.window : ctx.window + ctx.tokens], None, None


def head_runs(x_THK: Tensor, before: int, after: int) -> Tensor:
    """Zeros before and after along the first axis, in memory head after head: a block finds each head's keys in one
    run. F.pad would fill the whole result before it copies; this fills the ends only.
    """
    T, H, K = x_THK.shape
    ends = [x_THK.new_zeros(H, n, K) for n in (before, after)]
    return torch.cat([ends[0], x_THK.transpose(0, 1), ends[1]], dim=1).transpose(0, 1)


def _block_mask(layout: Layout, window: int, dtype: torch.dtype) -> Tensor:
    """0 where a query of a block may see a key and -inf where not, (blocks, Q, W).

    The same for every local layer, so it is made once per batch and kept in the layout; as numbers, because the kernel
    would turn a bool mask into numbers anew in every layer.
    """
    key = ("blocks", window, dtype)
    if key not in layout.plans:
        # A tensor made in inference mode could not be used when the same layout is trained on later.
        ordinary = contextlib.nullcontext() if torch.compiler.is_compiling() else torch.inference_mode(False)
        with ordinary:
            allowed = _block_mask_bool(layout, window)
            mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            layout.plans[key] = mask.masked_fill(~allowed, float("-inf"))
    return layout.plans[key]


def _block_mask_bool(layout: Layout, window: int) -> Tensor:
    T, device, doc = layout.num_tokens, layout.document_ids.device, layout.document_ids
    start = torch.arange(-(-T // BLOCK), device=device)[:, None] * BLOCK
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
    return allowed | (queries >= T)[:, :, None]


BACKENDS = ("eager", "sdpa", *KERNELS)
