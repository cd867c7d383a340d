"""Layer norm, and where it stands: after each residual sum (BERT) or before each sublayer (ModernBERT).

Post-norm (Vaswani et al. 2017, section 3.1):   x <- norm(x + f(x))
Pre-norm  (Xiong et al. 2020, figure 1b):       x <- x + f(norm(x))

A sublayer f is given in two steps, its first linear layer and the rest, for the sake of memory: in pre-norm the
normalised input is wanted by that one matrix product only, so it is made again in the backward pass and not kept.

In post-norm every layer rescales the residual stream, so the gradient of an early layer passes through all later
norms. In pre-norm the stream itself is never touched: a sum runs from the embedding to the last layer, and one final
norm closes it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .config import EncoderConfig
from .recompute import recompute


def build_norm(config: EncoderConfig) -> nn.LayerNorm:
    """A layer norm over the hidden size; ModernBERT's has a weight but no bias (paper, section 2.1.1)."""
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.bias)


Step = Callable[[Tensor], Tensor]


def post_norm(x: Tensor, norm: Step, first: Step, rest: Step) -> Tensor:
    """norm(x + f(x)) with f(x) = rest(first(x)); shapes (..., D) -> (..., D)."""
    return norm(x + rest(first(x)))


def pre_norm(x: Tensor, norm: Step, first: Step, rest: Step) -> Tensor:
    """x + f(norm(x)) with f(x) = rest(first(x)); shapes (..., D) -> (..., D)."""
    return x + rest(recompute(lambda x: first(norm(x)), x))


RESIDUAL = {"post": post_norm, "pre": pre_norm}


def layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm spelled out (Ba et al. 2016, equation 4), for lessons and tests; shapes (..., D) -> (..., D)."""
    mean = x.mean(dim=-1, keepdim=True)
    variance = (x - mean).pow(2).mean(dim=-1, keepdim=True)  # the biased one: divided by D, not D - 1
    y = (x - mean) / torch.sqrt(variance + eps) * weight
    return y if bias is None else y + bias
