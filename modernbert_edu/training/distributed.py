"""More than one device: what a training loop has to know of it.

`torchrun` starts the same program once per device and tells each its rank. Every process computes its own share of
each batch; their gradients are averaged (DDP), or weights, gradients and optimizer state are cut up as well and each
process keeps a share of them (FSDP2, for models that do not fit otherwise).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process among all: `rank` 0 ... `world` - 1; rank 0 writes and prints."""

    rank: int = 0
    world: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, numbers: Sequence[float], device: torch.device) -> list[float]:
        """Each number summed over all processes, in float64."""
        if self.world == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.tolist()

    def agree(self, value):
        """The first process's value, for all."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value) -> list:
        """Every process's value, in the order of their ranks, for all."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def processes(device: torch.device, sharded: bool = False) -> Iterator[tuple[Processes, torch.device]]:
    """Join the group that torchrun describes in the environment: (this process, its device); alone without torchrun."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if "RANK" not in os.environ:
        if sharded:
            raise InputError("--shard divides a model among processes; start it with torchrun --nproc-per-node N")
        yield Processes(), device
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", rank))
        if local >= torch.cuda.device_count():
            raise InputError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world, sharded), device
        dist.barrier()  # all leave together: one that still talks to a process that is gone ends in an abort
    finally:
        dist.destroy_process_group()


def wrap(model: nn.Module, device: torch.device, group: Processes) -> nn.Module:
    """The model as the group trains it: itself, in DDP, or cut up by FSDP2 layer by layer."""
    if group.sharded:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (group.world,))
        for block in model.get_submodule(_path_of_layers(model)):
            fully_shard(block, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    if group.world > 1:
        return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    return model


def _path_of_layers(model: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if isinstance(module, nn.ModuleList))


@contextlib.contextmanager
def gradients_stay(model: nn.Module, group: Processes) -> Iterator[None]:
    """Gradients are added up here and not exchanged: for all microbatches of a step but the last."""
    if group.sharded:
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)
    elif group.world > 1:
        with model.no_sync():
            yield
    else:
        yield


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shares, on the CPU's side of any group. Every process must call it."""
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A copy of `tensor` on the parameter's device, cut up as the parameter is."""
    tensor = tensor.to(parameter.device, copy=True)
    if not hasattr(parameter, "full_tensor") or tensor.dim() == 0:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
