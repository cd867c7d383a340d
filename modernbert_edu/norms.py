"""Layer norm, and where it stands: after each residual sum (BERT) or before each sublayer (ModernBERT).

Post-norm (Vaswani et al. 2017, section 3.1):   x <- norm(x + f(x))
Pre-norm  (Xiong et al. 2020, figure 1b):       x <- x + f(norm(x))

In post-norm every layer rescales the residual stream, so the gradient of an early layer passes through all later
norms. In pre-norm the stream itself is never touched: a sum runs from the embedding to the last layer, and one final
norm closes it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .config import EncoderConfig


def build_norm(config: EncoderConfig) -> nn.LayerNorm:
    """A layer norm over the hidden size; ModernBERT's has a weight but no bias (paper, section 2.1.1)."""
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.bias)


def post_norm(x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """norm(x + f(x)); shapes (..., D) -> (..., D)."""
    return norm(x + sublayer(x))


def pre_norm(x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """x + f(norm(x)); shapes (..., D) -> (..., D)."""
    return x + sublayer(norm(x))


RESIDUAL = {"post": post_norm, "pre": pre_norm}


def layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm spelled out (Ba et al. 2016, equation 4), for lessons and tests; shapes (..., D) -> (..., D)."""
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).pow(2).mean(dim=-1, keepdim=True)  # the biased one: divided by D, not D - 1
    y = (x - mean) / torch.sqrt(variance + eps) * weight
    return y if bias is None else y + bias
