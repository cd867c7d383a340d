"""The mean of several checkpoints' weights.

The published ModernBERT-base is such a mean: its final weights and three earlier ones of the decay phase. For the large
model no mean was better than the best single checkpoint (Warner et al. 2024). The mean has the names, shapes and dtypes
of its parts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class _Source:
    """Weights of which one tensor at a time can be had."""

    name: str
    names: frozenset[str]
    read: Callable[[str], Tensor]


def average_weights(sources: Sequence[Mapping[str, Tensor] | str | Path]) -> dict[str, Tensor]:
    """The mean of state dicts, or of safetensors files, name by name: summed in float64, then back to each dtype.

    Files are read one tensor at a time, so the memory needed is that of one model however many there are. Tensors of
    whole numbers cannot be averaged and must be equal in all.
    Raises `InputError` where there is nothing to average, where a file does not open, and where names, shapes or dtypes
    differ.
    """
    if not sources:
        raise InputError("there are no checkpoints to average; name at least one")
    with contextlib.ExitStack() as files:
        opened = [_open(source, number, files) for number, source in enumerate(sources, start=1)]
        first = opened[0]
        for other in opened[1:]:
            _check_names(first, other)
        return {name: _mean(name, opened) for name in sorted(first.names)}


def _open(source: Mapping[str, Tensor] | str | Path, number: int, files: contextlib.ExitStack) -> _Source:
    if isinstance(source, Mapping):
        return _Source(f"state dict {number}", frozenset(source), lambda name: source[name].detach())
    from safetensors import SafetensorError, safe_open

    try:
        file = files.enter_context(safe_open(str(source), framework="pt"))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{source} is not a whole safetensors file ({error}); leave it out or save it anew") from None
    return _Source(str(source), frozenset(file.keys()), file.get_tensor)


def _check_names(first: _Source, other: _Source) -> None:
    different = sorted(first.names ^ other.names)
    if different:
        holder = first if different[0] in first.names else other
        raise InputError(
            f"{len(different)} names are not in both {first.name} and {other.name} (first: {different[0]}, only in "
            f"{holder.name}); average checkpoints of one model"
        )


def _mean(name: str, sources: Sequence[_Source]) -> Tensor:
    """The mean of one tensor. Only it and one more are in memory at a time."""
    first = sources[0].read(name)
    total = first.to(torch.float64, copy=True)
    for source in sources[1:]:
        tensor = source.read(name)
        if (tensor.shape, tensor.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{name} is {_describe(first)} in {sources[0].name} and {_describe(tensor)} in {source.name}; "
                "average checkpoints of one model"
            )
        if not first.is_floating_point():
            if not torch.equal(tensor, first):
                raise InputError(f"{name} holds whole numbers that differ between the checkpoints; they have no mean")
            continue
        total += tensor
    return (total / len(sources)).to(first.dtype) if first.is_floating_point() else first.clone()


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
