"""Ring buffers of embeddings per class, written without a loop over classes and without asking the device anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ClassRings(nn.Module):
    """Several ring buffers per class, each holding the newest rows written to it.

    All rows lie in one buffer, slot by slot, `[S,C,D]`: the rings one after the other, each slot with room for one row
    of every class, so that all keys are one contiguous matrix without copying. Every state lies in buffers and
    survives a resume; in distributed training nothing of it is broadcast.

    Args:
        sizes: rows per class of each ring; 0 for a ring that keeps nothing.
        num_classes: number of classes C.
        dim: D of a row.
    """

    rows: Tensor
    count: Tensor
    pointer: Tensor

    def __init__(self, sizes: Sequence[int], num_classes: int, dim: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.num_classes = num_classes
        self.register_buffer("rows", torch.zeros(sum(sizes), num_classes, dim))
        # rows written so far, up to the ring's size, and the slot that is written next, both counted within the ring
        self.register_buffer("count", torch.zeros(len(sizes), num_classes, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros(len(sizes), num_classes, dtype=torch.int64))

    def valid(self) -> Tensor:
        """`[S,C]` bool: the slots that hold a row. A ring fills from its first slot, so its count says it all."""
        return torch.cat(
            [
                torch.arange(size, device=self.count.device)[:, None] < count
                for size, count in zip(self.sizes, self.count, strict=True)
            ]
        )

    def fill(self) -> Tensor:
        """Share of the slots that hold a row: 0-d float32 in [0,1]."""
        return self.count.sum() / max(1, len(self.rows) * self.num_classes)

    @torch.no_grad()
    def write(self, ring: int, rows: Tensor, counts: Tensor) -> None:
        """Append rows to a ring, overwriting its oldest where a class has no room left.

        Args:
            ring: index in `sizes`.
            rows: `[G,C,K,D]` float; of each group and class the first `counts` rows are written, groups in order.
            counts: `[G,C]` int64 in [0,K].
        """
        groups, _, most, _ = rows.shape
        size = self.sizes[ring]
        # Every class has as many turns as the fullest could need; a turn without a row writes back what its slot holds.
        # No two turns of a class share a slot, since there are at most as many turns as slots.
        turns = min(groups * most, size)
        if turns == 0:
            return
        ends = counts.cumsum(0)
        written = ends[-1]
        turn = torch.arange(turns, device=counts.device)[:, None] + (written - turns).clamp(min=0)  # [turns,C]
        group = (turn[:, None] >= ends).sum(1).clamp(max=groups - 1)
        rank = (turn - (ends - counts).gather(0, group)).clamp(max=most - 1)
        classes = torch.arange(self.num_classes, device=counts.device)
        slot = sum(self.sizes[:ring]) + (self.pointer[ring] + turn) % size
        new = rows[group, classes, rank].to(self.rows.dtype)
        self.rows[slot, classes] = new.where((turn < written)[..., None], self.rows[slot, classes])
        self.pointer[ring] = (self.pointer[ring] + written) % size
        self.count[ring] = (self.count[ring] + written).clamp(max=size)
