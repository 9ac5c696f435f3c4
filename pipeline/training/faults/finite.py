"""Notices the first iteration whose loss or gradient is not finite, and keeps what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from serving.contract.files import write_json


def keep_not_finite(folder: Path, iteration: int, images: Sequence[str], means: Mapping[str, float]) -> Path:
    """Write what is known of a batch that a loss or gradient was not finite on, whole or not at all.

    Every rank that sees it writes it, since others need not: all name the whole batch.

    Args:
        folder: of the branch's states.
        iteration: from 0.
        images: of the global batch, as reports call them.
        means: of the losses and statistics since the last report.

    Returns:
        The file.

    Raises:
        UserError: it cannot be written.
    """
    path = folder / "not_finite.json"
    shown = {name: str(value) for name, value in means.items()}  # JSON has neither NaN nor infinity
    write_json(path, {"iteration": iteration + 1, "images": list(images), "means": shown})
    return path


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
