"""The fewest layers that have to stay in floating point, given how sensitive each is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import ModelProto

MOST_RETURNS = 32  # trials, at most, of putting kept layers into INT8 again

# Layers in floating point -> loss of mIoU in points, and the graph that has it.
Measure = Callable[[Sequence[str]], tuple[float, ModelProto]]


@dataclass(frozen=True)
class LayerChoice:
    """One set of layers in floating point, measured.

    Attributes:
        kept: layers that stay in floating point, the most sensitive first.
        drop_points: loss of mIoU, in points.
        model: the graph with every other layer in INT8.
    """

    kept: tuple[str, ...]
    drop_points: float
    model: ModelProto


class Trials:
    """Measures choices and remembers the best: within the limit the fewest layers, beyond it the smallest loss."""

    def __init__(self, measure: Measure, limit_points: float) -> None:
        self._measure = measure
        self._limit_points = limit_points
        self._rank: tuple[float, ...] = (math.inf,)
        self.count = 0
        self.best = LayerChoice((), math.inf, ModelProto())

    def within(self, kept: Sequence[str]) -> bool:
        """Whether the loss is within the limit with these layers in floating point."""
        self.count += 1
        drop, model = self._measure(kept)
        within = drop <= self._limit_points
        rank = (0, len(kept), drop) if within else (1, drop, len(kept))
        if rank < self._rank:
            self._rank = rank
            self.best = LayerChoice(tuple(kept), drop, model)
        return within


def keep_fewest(trials: Trials, order: Sequence[str]) -> None:
    """Find the fewest layers to keep, given that none is too few; the result is `trials.best`.

    1, 2, 4... of the most sensitive layers are kept until the loss is within the limit, and from there the fewest, by
    bisection. Then layers return to INT8 where the loss stays within the limit all the same, half of them at a time, a
    quarter, and so on to single ones: what hurts alone need not hurt beside others in floating point. That makes at
    most twice the logarithm of the number of layers and `MOST_RETURNS` trials. They are bounded by number, not by time,
    which would make the result depend on the machine.

    One layer stays in INT8 at least. When not even that is within the limit, the best is the choice with the smallest
    loss.

    Args:
        trials: has measured that keeping none is beyond the limit.
        order: every layer, the most sensitive first.
    """
    most = len(order) - 1  # with every layer in floating point it would be no INT8 file
    low, high = 0, min(1, most)
    while low < high and not trials.within(order[:high]):
        low, high = high, min(2 * high, most)
    if low == high:
        return
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if trials.within(order[:middle]) else (middle, high)
    _return_spare(trials)


def _return_spare(trials: Trials) -> None:
    """Put kept layers into INT8 again where the loss stays within the limit, the least sensitive first."""
    left = MOST_RETURNS
    size = len(trials.best.kept) // 2
    while size:
        candidates = trials.best.kept[::-1]
        for start in range(0, len(candidates), size):
            spare = candidates[start : start + size]
            remaining = [layer for layer in trials.best.kept if layer not in spare]
            if not remaining or not left:
                break
            trials.within(remaining)
            left -= 1
        size //= 2
