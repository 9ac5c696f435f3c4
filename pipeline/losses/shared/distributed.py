"""What the ranks of a distributed training exchange; without one, every function returns what it was given."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of ranks; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_batch(local: Tensor) -> Tensor:
    """The tensors of all ranks one after the other along dimension 0, the same on every rank. No gradient.

    Args:
        local: `[B,...]`, of the same shape on every rank.

    Returns:
        `[R*B,...]` for R ranks, in their order.
    """
    if world_size() == 1:
        return local
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


def sum_over_ranks(local: Tensor) -> Tensor:
    """The sum of `local`, of one shape on every rank; each rank's share receives the gradients of all ranks' losses."""
    if world_size() == 1:
        return local
    total: Tensor = _SumOverRanks.apply(local)  # type: ignore[no-untyped-call]
    return total


class _SumOverRanks(Function):
    @staticmethod
    def forward(local: Tensor) -> Tensor:
        total = local.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
