"""The baseline: it adds nothing to the cross entropy that every method trains with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.losses.shared.term import LossTerm, TermOutput
from pipeline.models.network.head import Taps, TraineeOutput


@dataclass(frozen=True)
class CrossEntropyConfig:
    """The baseline has no settings of its own; as it is no `TermConfig`, training never calls the term."""


class CrossEntropy(LossTerm):
    """The baseline: the segmentation cross entropy alone. It taps nothing and adds an exact 0."""

    Config: ClassVar[type[CrossEntropyConfig]] = CrossEntropyConfig
    taps: ClassVar[Taps] = Taps.NONE

    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> TermOutput:
        """An exact 0 and no anchors; the loop adds the cross entropy itself, for this and every other method."""
        zero = torch.zeros((), device=output.logits.main.device)
        return TermOutput(loss=zero, statistics={"anchors": zero})
