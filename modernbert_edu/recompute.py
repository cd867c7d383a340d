"""Keeping less: for the backward pass, what is cheap to compute again; in inference, what a later token needs not.

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


RUN = 512  # tokens


def in_runs(function: Callable[[Tensor], Tensor], x_TD: Tensor) -> Tensor:
    """function(x), for a function that acts on every token alone, computed in runs of 512 tokens: (T, D) -> (T, D).

    For inference with long inputs on a CPU. The intermediates of the whole axis (an MLP's are several times as wide
    as its input) would be fetched from the operating system anew in every layer; those of a run are small enough for
    the allocator to hand out again, and for the cache to hold. With gradients everything is kept anyway.
    """
    short = x_TD.shape[0] <= 4 * RUN  # then the smaller matrix products would cost what the memory saves
    if short or torch.is_grad_enabled() or torch.compiler.is_compiling() or x_TD.device.type != "cpu":
        return function(x_TD)
    return torch.cat([function(run) for run in x_TD.split(RUN)])
