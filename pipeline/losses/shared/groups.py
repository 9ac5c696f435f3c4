"""Groups of pixels found by one sort: how long each is and where it starts, without asking the device how many."""

from __future__ import annotations

import torch
from torch import Tensor


def runs(values: Tensor) -> Tensor:
    """Number each run of equal values in a sorted `[P]`: 0, 0, 1, 2, 2, ..."""
    starts = torch.ones_like(values, dtype=torch.int64)
    starts[1:] = values[1:] != values[:-1]
    return starts.cumsum(0) - 1


def count_members(group: Tensor, members: Tensor, groups: int) -> Tensor:
    """How many of each group's entries are members.

    Args:
        group: `[P]` int64 in [0, groups).
        members: `[P]` bool.
        groups: number of groups.

    Returns:
        `[groups]` int64.
    """
    return torch.zeros(groups, dtype=torch.int64, device=group.device).scatter_add_(0, group, members.long())


def first_true(mask: Tensor, count: int) -> Tensor:
    """Positions of the `count` true entries of `mask [P]`, in order; `nonzero` would ask the device how many."""
    rank = mask.cumsum(0) - 1
    positions = torch.empty(count + 1, dtype=torch.int64, device=mask.device)
    return positions.scatter_(0, rank.where(mask, count), torch.arange(len(mask), device=mask.device))[:count]
