"""The compiled path: the encoder as one graph, on shapes that never change.

torch.compile fuses norms, rotations and activations into few passes over memory. It makes a graph for the shapes it
sees, so a batch of another size would be compiled anew, for half a minute. On the flat axis that is easily avoided:

- the axis is filled up to a whole number of `token_budget` tokens, the filling as documents of its own;
- `cu_seqlens` always has the same length, its tail filled with T: documents of no tokens;
- the longest document is given as a bound, not as it is in this batch.

Nothing else depends on the batch, so one graph serves all batches of one budget.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .unpadding import Layout

FILL_DOCUMENT = 64  # tokens of a filling document: short, so that attention over the filling costs next to nothing


def fixed_shapes(layout: Layout, token_budget: int, longest: int) -> Layout:
    """The layout with its axis filled up to a multiple of the budget and `cu_seqlens` of a length that depends on that
    alone. `longest` is the bound on a document's tokens. Raises nothing: any layout fits, at the next multiple.
    """
    total = -(-layout.num_tokens // token_budget) * token_budget
    fill = total - layout.num_tokens
    lengths = [*layout.lengths, *[FILL_DOCUMENT] * (fill // FILL_DOCUMENT)]
    if fill % FILL_DOCUMENT:
        lengths.append(fill % FILL_DOCUMENT)
    room = total // 16 + 2  # documents of 16 tokens on average; where there are more, the next power of two
    while room < len(lengths):
        room *= 2
    lengths += [0] * (room - len(lengths))
    full = Layout.from_lengths(lengths, layout.cu_seqlens.device)
    return Layout((), full.cu_seqlens, full.position_ids, full.document_ids, bound=max(longest, FILL_DOCUMENT))


class CompiledEncoder:
    """Calls `flat_forward(ids, layout, token_type_ids)` of an encoder, compiled, on shapes that never change."""

    def __init__(self, encoder, token_budget: int):
        if not encoder.config.unpad:
            raise InputError("compile needs a model that unpads: set unpad=True in its configuration")
        if token_budget < 1:
            raise InputError(f"token_budget must be at least 1, not {token_budget}")
        self.token_budget = token_budget
        self.longest = encoder.config.max_position_embeddings
        self.run = torch.compile(encoder.flat_forward, fullgraph=True, dynamic=False)

    def __call__(self, input_ids: Tensor, layout: Layout, token_type_ids: Tensor | None, backend: str) -> Tensor:
        possible = {"cpu": ("sdpa", "eager"), "cuda": ("varlen",)}.get(input_ids.device.type, ())
        if backend not in possible:
            raise InputError(
                f"the compiled path has no attention backend {backend!r} on {input_ids.device.type}; it runs sdpa and "
                "eager on a CPU, and varlen in bfloat16 or float16 on a GPU"
            )
        key = ("fixed", self.token_budget)
        if key not in layout.plans:
            layout.plans[key] = fixed_shapes(layout, self.token_budget, self.longest)
        fixed = layout.plans[key]
        fill = (0, fixed.num_tokens - layout.num_tokens)
        types = None if token_type_ids is None else F.pad(token_type_ids, fill)
        return self.run(F.pad(input_ids, fill), fixed, types, backend)[: layout.num_tokens]


# ---- attention over documents whose number and lengths the compiler must not see -----------------------------------


@torch.library.custom_op("modernbert_edu::documents", mutates_args=())
def documents(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention document by document on a CPU: (T, H, K) three times -> (T, H, K), and log-sum-exps (T, H).

    To the compiler it is one opaque operation, whatever the lengths.
    """
    out, lse = torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(q.shape[:2])
    lengths = cu_seqlens.diff().tolist()
    for qd, kd, vd, out_d, lse_d in zip(*(x.split(lengths) for x in (q, k, v, out, lse)), strict=True):
        if qd.shape[0]:
            o, e = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *(x[None].transpose(1, 2) for x in (qd, kd, vd)), scale=scale
            )
            out_d.copy_(o[0].transpose(0, 1))
            lse_d.copy_(e[0].transpose(0, 1))
    return out, lse


@documents.register_fake
def _(q, k, v, cu_seqlens, scale):
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(q.shape[:2])


@torch.library.custom_op("modernbert_edu::documents_backward", mutates_args=())
def documents_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_seqlens: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
    lengths = cu_seqlens.diff().tolist()
    parts = zip(*(x.split(lengths) for x in (grad, q, k, v, out, lse, *grads)), strict=True)
    for *inputs, lse_d, dq, dk, dv in parts:
        if inputs[0].shape[0]:
            done = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *(x[None].transpose(1, 2) for x in inputs), lse_d.t()[None].contiguous(), 0.0, False, scale=scale
            )
            for target, gradient in zip((dq, dk, dv), done, strict=True):
                target.copy_(gradient[0].transpose(0, 1))
    return tuple(grads)


@documents_backward.register_fake
def _(grad, q, k, v, out, lse, cu_seqlens, scale):
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))


def _keep(ctx, inputs, output):
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx, grad_out, grad_lse):
    q, k, v, cu_seqlens, out, lse = ctx.saved_tensors
    return *documents_backward(grad_out, q, k, v, out, lse, cu_seqlens, ctx.scale), None, None


documents.register_autograd(_backward, setup_context=_keep)
