"""Keeping less for the backward pass: what is cheap to compute again is not kept.

Between forward and backward, autograd holds every tensor that some gradient needs. Most of those bytes are results of
norms, activations and rotations: they cost a fraction of a matrix product to make, and are as large as its output.
Inside `recompute` they are dropped and made again when the backward pass comes by (Chen et al. 2016, "Training deep
nets with sublinear memory cost", applied to the cheap parts only).

torch's checkpoint stops as soon as the last tensor that is needed has been made. A matrix product at the end of a
region needs its input, not its output, so it is never computed twice.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute(function: Callable[[Tensor], Tensor], x: Tensor, *, random: bool = False) -> Tensor:
    """function(x), of which only x is kept for the backward pass.

    `random` says that the function draws random numbers (dropout), which must then come out the same again. Without
    gradients nothing is kept anyway, and a compiler decides for itself what to keep: both just call the function.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(x)
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=random)
