"""How much memory a training step needs.

Nearly all of it is what the forward pass keeps for the backward pass. On a GPU torch's allocator knows the peak. On a
CPU nobody counts, so we listen to autograd: every tensor that it saves passes through a hook, and we add up the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..errors import InputError
from .speed import model_mode, synchronise, training_call


@dataclass(frozen=True)
class Memory:
    """Bytes, and in words how they were counted."""

    bytes: int
    how: str


@dataclass(frozen=True)
class PeakMemory:
    """Bytes that tensors held on a GPU before a call, and at its highest point."""

    before: int
    peak: int

    @property
    def added(self) -> int:
        """What the call itself needed: without the weights and whatever else was there."""
        return self.peak - self.before


def bytes_saved_for_backward(forward: Callable[[], object], exclude: Iterable[Tensor] = ()) -> int:
    """Bytes that autograd keeps alive between the forward and the backward pass. The same on every run.

    A storage counts once and whole: q, k and v are three views of one tensor, and saving a slice keeps all of it.
    Storages of the tensors in `exclude` do not count: parameters, say, which are in memory anyway.
    """
    excluded = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            # Holding the storage keeps its address taken. Else a tensor that is saved and freed again during the
            # forward pass (activation checkpointing, a discarded branch) could lend its address to the next one.
            saved[storage.data_ptr()] = storage
        return tensor.detach()  # returning the tensor itself would tie it to its own graph in a cycle

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in saved.values())


def peak_memory(forward_backward: Callable[[], object], device: torch.device | str) -> PeakMemory:
    """The peak of torch's CUDA allocator during a call. The call runs twice, the first time unmeasured.

    Raises `InputError` for a device other than CUDA, where torch does not count.
    """
    device = torch.device(device)
    if device.type != "cuda":
        raise InputError(f"torch counts allocated memory on CUDA only, not on {device}; use bytes_saved_for_backward")
    forward_backward()  # the first call also allocates cuBLAS's workspace, which then stays
    synchronise(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    forward_backward()
    synchronise(device)
    return PeakMemory(before, torch.cuda.max_memory_allocated(device))


def training_memory(model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor) -> Memory:
    """What one training step (forward and backward, no optimizer) needs beside the model and the batch.

    On CUDA the allocator's peak, gradients included; elsewhere the bytes saved for backward, gradients not included.
    The two are different quantities: compare models within one of them. `how` says which.
    """
    if input_ids.device.type == "cuda":
        peak = peak_memory(training_call(model, input_ids, attention_mask, labels), input_ids.device)
        return Memory(peak.added, "peak allocated during forward and backward, above what was allocated before")
    batch = [tensor for tensor in (input_ids, attention_mask, labels) if tensor is not None]
    with model_mode(model, training=True):
        saved = bytes_saved_for_backward(
            lambda: model(input_ids, attention_mask, labels=labels),
            exclude=[*model.parameters(), *model.buffers(), *batch],
        )
    return Memory(saved, "tensors kept for the backward pass, each storage once, without parameters")
