"""Rotary position embedding (Su et al. 2021): a token's position is the angle by which its q and k are turned.

A head of size K is K/2 pairs. Pair i turns by `position * theta ** (-2i / K)`, so the dot product of a turned query
and a turned key depends on the difference of their positions only.

Convention: pair i is (x[i], x[i + K/2]), the two *halves* of the head (GPT-NeoX, Llama in transformers, ModernBERT).
The RoFormer paper pairs neighbours (x[2i], x[2i + 1]). The two differ by a fixed permutation of the head, which a
model trained from scratch never notices; weights trained with one are wrong under the other.

Shapes: T tokens, H heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_angles(position_ids: Tensor, theta: float, head_size: int) -> Tensor:
    """Angles in radians, (T, K/2), always in float32: position times theta ** (-2i / K) (RoFormer, equation 15)."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=position_ids.device) / head_size
    inverse_frequencies = 1.0 / theta**exponents
    return position_ids.float()[:, None] * inverse_frequencies


def rotary_tables(position_ids: Tensor, theta: float, head_size: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles, each (T, K/2) in float32. Made once per batch and theta, shared by the layers."""
    angles = rotary_angles(position_ids, theta, head_size)
    return angles.cos(), angles.sin()


def apply_rope(x_THK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of every head by its token's angles: (T, H, K) -> (T, H, K).

    Half-precision inputs are turned in float32 and rounded once at the end: bfloat16 has 8 bits of mantissa, too few
    to tell neighbouring positions apart at 8,192.
    """
    if torch.compiler.is_compiling():  # the compiler fuses the formula, and its derivative, by itself
        work = torch.promote_types(x_THK.dtype, torch.float32)
        a, b = x_THK.to(work).chunk(2, dim=-1)
        cos, sin = cos[:, None, :], sin[:, None, :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x_THK.dtype)
    return Rotation.apply(x_THK, cos, sin)


class Rotation(torch.autograd.Function):
    """The gradient of a rotation is the rotation back, so only the angles are kept for it, not the vectors."""

    @staticmethod
    def forward(ctx, x_THK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate(x_THK, cos, sin)

    @staticmethod
    def backward(ctx, grad_THK: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate(grad_THK, cos, -sin), None, None


def rotate(x_THK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[a, b] -> [a cos - b sin, b cos + a sin], written into one new tensor: (T, H, K) -> (T, H, K)."""
    work = torch.promote_types(x_THK.dtype, torch.float32)
    cos, sin = cos[:, None, :].to(work), sin[:, None, :].to(work)  # the same for every head
    a, b = x_THK.to(work).chunk(2, dim=-1)
    turned = torch.empty(x_THK.shape, dtype=work, device=x_THK.device)
    first, second = turned.chunk(2, dim=-1)
    torch.mul(a, cos, out=first).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=second).addcmul_(a, sin)
    return turned.to(x_THK.dtype)
