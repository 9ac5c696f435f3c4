"""Total variation of the prediction inside objects: neighbours of one label should be predicted alike.

Rudin, Osher and Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60, 1992, here between
pixels that share their label alone, so that borders stay sharp.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.losses.shared.resolution import nearest
from pipeline.losses.shared.term import LossTerm, TermConfig, TermOutput
from pipeline.models.network.head import TraineeOutput


class TotalVariation(LossTerm):
    """The mean absolute difference of the class probabilities of neighbouring cells with one label, in [0, 2]."""

    Config: ClassVar[type[TermConfig]] = TermConfig

    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> TermOutput:
        """See `LossTerm.forward`; no statistics."""
        logits = output.logits.main.float()
        probabilities = logits.softmax(dim=1)  # [B,C,h,w]
        cells = nearest(labels, (logits.shape[2], logits.shape[3]))  # [B,h,w]
        total, pairs = logits.new_zeros(()), logits.new_zeros(())
        for axis in (1, 2):
            here, there = cells.narrow(axis, 0, cells.shape[axis] - 1), cells.narrow(axis, 1, cells.shape[axis] - 1)
            alike = (here == there) & (here != self.ignore_index)
            difference = probabilities.diff(dim=axis + 1).abs().sum(dim=1)
            total = total + (difference * alike).sum()
            pairs = pairs + alike.sum()
        return TermOutput(total / pairs.clamp(min=1))
