"""Tensors of which every process holds a part: the part here, and tensors shared out in the same way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether other processes hold parts of it."""
    return isinstance(tensor, DTensor)


@torch.no_grad()
def local_part(tensor: Tensor) -> Tensor:
    """The part of this process, in the same memory; of a plain tensor all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of it, gathered from all processes, which must all call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, part: Tensor) -> Tensor:
    """`part` as this process' part of something that is shared out as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return part
    part = part.to(tensor.to_local().device)
    return DTensor.from_local(
        part, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def shared_out_like(tensor: Tensor, value: Tensor) -> Tensor:
    """`value`, which every process has all of, shared out as `tensor` is; a plain one moves to its device."""
    if not isinstance(tensor, DTensor):
        return value.to(tensor.device)
    value = value.to(tensor.to_local().device)
    return distribute_tensor(value, tensor.device_mesh, tensor.placements, src_data_rank=None)


def sum_over_processes(values: Tensor, sharded: bool) -> Tensor:
    """Sums of what each process has of its parts; of what is not shared out there is nothing to add."""
    if sharded:
        distributed.all_reduce(values)
    return values


def any_sharded(tensors: Sequence[Tensor]) -> bool:
    """Whether one of them is."""
    return any(is_sharded(tensor) for tensor in tensors)
