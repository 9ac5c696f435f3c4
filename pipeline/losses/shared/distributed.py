"""What the ranks of a distributed training exchange; without one, every function returns what it was given.

Every rank computes the loss of the global batch: sums run over all ranks, and what is drawn at random is drawn for all
images, by the same generator everywhere, of which each rank takes its own part. All exchanges have their true
derivatives, those of the sum of all ranks' losses. The mean over the ranks of the parameters' gradients, which is what
`DistributedDataParallel` takes, so is the gradient of one process that sees the whole batch.

All ranks have as many images, and one after the other they are the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of ranks; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_rank() -> int:
    """Number of this rank, from 0; 0 without distributed training."""
    return dist.get_rank() if world_size() > 1 else 0


def own_part(whole: Tensor) -> Tensor:
    """This rank's part along dimension 0 of what was drawn or gathered for all of them."""
    return whole if world_size() == 1 else whole.chunk(world_size())[own_rank()]


def gather_batch(local: Tensor) -> Tensor:
    """The tensors of all ranks one after the other along dimension 0, the same on every rank. No gradient.

    Args:
        local: `[B,...]`, of the same shape on every rank.

    Returns:
        `[R*B,...]` for R ranks, in their order.
    """
    if world_size() == 1:
        return local
    parts = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


def gather_rows(local: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all ranks one after the other, the same on every rank, with gradient.

    Args:
        local: `[n,...]` with a number of rows of its own on every rank, also none.
        counts: number of rows of each rank.

    Returns:
        `[N,...]` for N rows in all.
    """
    if world_size() == 1:
        return local
    start = sum(counts[: own_rank()])
    whole = local.new_zeros(sum(counts), *local.shape[1:])
    whole[start : start + len(local)] = local
    return sum_over_ranks(whole)


def largest_over_ranks(local: Tensor) -> Tensor:
    """The elementwise maximum of `local`, of one shape on every rank. No gradient."""
    if world_size() == 1:
        return local
    largest = local.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest


def any_over_ranks(local: Tensor) -> Tensor:
    """Where `local`, bool and of one shape on every rank, is true on any of them."""
    return local if world_size() == 1 else largest_over_ranks(local.to(torch.uint8)).bool()


def mean_over_ranks(local: Tensor, count: Tensor) -> Tensor:
    """The mean over all ranks' members of what `local` is the mean of on this rank, with gradient.

    Args:
        local: mean over `count` members; a differentiable 0 without any.
        count: 0-d, how many there are on this rank.
    """
    if world_size() == 1:
        return local
    return sum_over_ranks(local * count) / sum_over_ranks(count).clamp(min=1)


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
