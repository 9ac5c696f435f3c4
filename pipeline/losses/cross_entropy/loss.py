"""The baseline: it adds nothing to the cross entropy that every method trains with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.losses.shared.term import MethodLoss, MethodLossOutput
from pipeline.models.network.head import Taps, TraineeOutput


@dataclass(frozen=True)
class CrossEntropyConfig:
    """The baseline has no settings of its own."""


class CrossEntropy(MethodLoss):
    """The baseline: the segmentation cross entropy alone. It taps nothing and adds an exact 0."""

    Config: ClassVar[type[CrossEntropyConfig]] = CrossEntropyConfig
    taps: ClassVar[Taps] = Taps.NONE

    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> MethodLossOutput:
        """An exact 0 and no anchors; the loop adds the cross entropy itself, for this and every other method."""
        zero = torch.zeros((), device=output.logits.device)
        return MethodLossOutput(loss=zero, statistics={"anchors": zero})
