"""What changes during a training besides the weights: everything that a resume must restore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.training.averaging import WeightAverage


@dataclass
class TrainingProgress:
    """How far a training is.

    Attributes:
        iteration: finished iterations.
        contrast_steps: iterations whose loss had the method's loss term.
        anchors: anchors over all of them, up to the last report of metrics.
        best_miou: best validation mIoU so far, in [0,1]; -1 before the first validation.
        best_iteration: finished iterations when it was reached.
        reported: whether metrics and validation that fall due after `iteration` are done.
        left_out: pair that could not be read -> why; at most `skip_budget`.
    """

    iteration: int = 0
    contrast_steps: int = 0
    anchors: float = 0.0
    best_miou: float = -1.0
    best_iteration: int = 0
    reported: bool = True
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass
class RunningMeans:
    """Means of 0-d tensors, summed on their device so that a step never waits for it."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """Add one value of `name`."""
        value = value.detach().double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def add_all(self, values: Mapping[str, Tensor]) -> None:
        """Add one value of each name."""
        for name, value in values.items():
            self.add(name, value)

    def means(self) -> dict[str, float]:
        """The means so far. Waits for the device."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}

    def clear(self) -> None:
        """Start afresh."""
        self.sums, self.counts = {}, {}


@dataclass
class TrainingState:
    """What changes during a training besides the weights.

    Attributes:
        optimizer: of the trainee's parameters.
        progress: how far it is.
        average: of the weights, where the method ships one instead of the last.
        means: of the metrics since they were last reported.
    """

    optimizer: torch.optim.Optimizer
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    average: WeightAverage | None = None
    means: RunningMeans = field(default_factory=RunningMeans)
