"""What the ranks of a training tell one another beside losses and gradients; alone, each tells itself."""

from __future__ import annotations

import os
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from pipeline.losses.shared.distributed import any_over_ranks, own_rank, sum_over_ranks, world_size
from serving.contract.errors import UserError

T = TypeVar("T")


def own_positions(batch_size: int) -> range:
    """The positions of the global batch that this rank makes: the parts of all ranks, in their order, are the batch.

    Raises:
        UserError: it cannot be shared out evenly.
    """
    require_even_parts(batch_size, world_size())
    size = batch_size // world_size()
    return range(own_rank() * size, (own_rank() + 1) * size)


def require_even_parts(batch_size: int, processes: int) -> None:
    """Refuse a batch that ranks cannot share evenly. Raises UserError."""
    if batch_size % processes:
        raise UserError(
            f"train.processes: {processes} processes cannot share a batch of {batch_size} images evenly; set "
            f"train.batch_size (and unlabelled_batch_size) to a multiple of {processes}, such as "
            f"{-(-batch_size // processes) * processes}"
        )


def own_device(device: torch.device) -> torch.device:
    """Where this rank computes: on CUDA each rank of a machine has the GPU of its own number.

    Raises:
        UserError: the machine has fewer GPUs than ranks.
    """
    if device.type != "cuda" or world_size() == 1:
        return device
    require_gpus(device, ranks_here())
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own


def require_gpus(device: torch.device, processes: int) -> None:
    """Refuse more processes than there are GPUs, where they train on GPUs. Raises UserError."""
    if device.type == "cuda" and processes > torch.cuda.device_count():
        raise UserError(
            f"train.processes: {processes} on this machine, but torch sees {torch.cuda.device_count()} CUDA devices, "
            "and each process needs its own; lower it, or set train.device to cpu"
        )


def ranks_here() -> int:
    """How many ranks share this machine; 1 without ranks."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world_size() > 1 else 1


def from_first(value: T) -> T:
    """The first rank's value, on every rank. Only what a rank of this very training made is unpickled."""
    if world_size() == 1:
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    shared: T = values[0]
    return shared


def union_of_ranks(entries: dict[str, str]) -> dict[str, str]:
    """The entries of all ranks; of two with one key, the first rank's."""
    if world_size() == 1:
        return entries
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, entries)
    return {key: value for each in reversed(found) for key, value in each.items()}


def any_rank(asked: bool) -> bool:
    """Whether any rank says yes; the same answer on all of them."""
    return bool(any_over_ranks(torch.tensor([asked])))


def summed(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of all ranks' counts, of one shape on every rank."""
    total: NDArray[np.int64] = sum_over_ranks(torch.from_numpy(counts)).numpy()
    return total
