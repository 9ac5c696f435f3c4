"""A ring buffer of embeddings per class, written without a loop over classes and without asking the device anything."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ClassRing(nn.Module):
    """The newest `size` rows of every class.

    Rows are stored slot by slot, `[size,C,D]`, so that any range of slots is one contiguous matrix. All state lies in
    buffers and survives a resume; none of it is broadcast or averaged.

    Args:
        size: rows kept per class; 0 keeps nothing.
        num_classes: number of classes C.
        dim: D of a row.
    """

    rows: Tensor
    count: Tensor
    pointer: Tensor

    def __init__(self, size: int, num_classes: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.num_classes = num_classes
        self.register_buffer("rows", torch.zeros(size, num_classes, dim))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros(num_classes, dtype=torch.int64))

    def valid(self) -> Tensor:
        """`[size,C]` bool: the slots that hold a row. A ring fills from its first slot, so the count says it all."""
        return torch.arange(self.size, device=self.count.device)[:, None] < self.count

    @torch.no_grad()
    def write(self, rows: Tensor, counts: Tensor) -> None:
        """Append rows, overwriting the oldest where a class has no room left.

        Args:
            rows: `[G,C,K,D]` float; of each group and class the first `counts` rows are written, groups in order.
            counts: `[G,C]` int64 in [0,K].
        """
        groups, _, most, _ = rows.shape
        # Every class has as many turns as the fullest could need. A turn without a row writes back what its slot
        # holds: slots of one class never coincide, since there are at most as many turns as slots.
        turns = min(groups * most, self.size)
        if turns == 0:
            return
        ends = counts.cumsum(0)
        written = ends[-1]
        turn = torch.arange(turns, device=counts.device)[:, None] + (written - turns).clamp(min=0)  # [turns,C]
        live = turn < written
        group = (turn[:, None] >= ends).sum(1).clamp(max=groups - 1)
        rank = (turn - (ends - counts).gather(0, group)).clamp(max=most - 1)
        classes = torch.arange(self.num_classes, device=counts.device)
        slot = (self.pointer + turn) % self.size
        new = rows[group, classes, rank].to(self.rows.dtype)
        self.rows[slot, classes] = new.where(live[..., None], self.rows[slot, classes])
        self.pointer.copy_((self.pointer + written) % self.size)
        self.count.copy_((self.count + written).clamp(max=self.size))
