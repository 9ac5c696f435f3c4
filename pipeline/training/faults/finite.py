"""Notices the first iteration whose loss or gradient is not finite."""

from __future__ import annotations

import torch
from torch import Tensor


class FiniteWatch:
    """Remembers the first iteration with a value that is not finite.

    Args:
        device: of the values.
        deferred: only `first` waits for the device, as on a GPU; else `add` tells at once.
    """

    def __init__(self, device: torch.device, *, deferred: bool) -> None:
        self._deferred = deferred
        self._first = torch.full((), -1, dtype=torch.int64, device=device)

    def add(self, value: Tensor, iteration: int) -> bool:
        """Look at a 0-d value of an iteration (from 0); false where it is known not to be finite."""
        broken = ~torch.isfinite(value.detach())
        if not self._deferred:
            if broken.item():
                self._first.fill_(iteration)
                return False
            return True
        self._first = torch.where(broken & (self._first < 0), iteration, self._first)
        return True

    def first(self) -> int | None:
        """The first iteration (from 0) with a value that was not finite, or None. Waits for the device."""
        first = int(self._first)
        return None if first < 0 else first
