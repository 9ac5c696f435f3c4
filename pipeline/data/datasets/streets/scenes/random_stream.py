"""Random numbers that are the same on every machine and with every version of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

Colour = tuple[float, float, float]
"""Red, green, blue reflectances, about 0 to 1."""


class RandomStream:
    """Random choices from the raw bits of PCG64 (`Generator`'s distributions may change between NumPy's versions).

    Args:
        key: whole numbers >= 0; equal keys give equal streams, different keys independent ones.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return self.uniform() < probability

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`."""
        return items[self.integer(0, len(items) - 1)]

    def weighted(self, items: Sequence[tuple[T, float]]) -> T:
        """One of `(item, weight)`; the weights sum to 1."""
        left = self.uniform()
        for item, weight in items:
            left -= weight
            if left < 0:
                return item
        return items[-1][0]

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """`count` uniform bytes."""
        words = np.asarray(self._bits.random_raw((count + 7) // 8), dtype="<u8")
        return words.view(np.uint8)[:count]
