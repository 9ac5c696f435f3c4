"""The focal loss: pixels that are right already count less.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, arXiv 1708.02002, equation 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.losses.supervised.pixel_mean import pixel_weights, weighted_mean
from pipeline.losses.supervised.term import LabelledLogits, SupervisedConfig, SupervisedTerm
from serving.contract.schema import Require


@dataclass(frozen=True)
class FocalConfig(SupervisedConfig):
    """Settings of the focal loss.

    Attributes:
        gamma: exponent of 1 - p; 0 is the cross entropy.
    """

    gamma: float = 2.0

    def check(self, require: Require) -> None:
        """See `SupervisedConfig.check`."""
        super().check(require)
        require(self.gamma >= 0, f"gamma: expected at least 0, got {self.gamma}")


class Focal(SupervisedTerm):
    """-(1 - p)^gamma log p of the probability p of each pixel's label, averaged over the labelled pixels.

    The paper's alpha are the class weights, where there are any: the mean is weighted by them.
    """

    Config: ClassVar[type[FocalConfig]] = FocalConfig
    config: FocalConfig

    def __call__(self, batch: LabelledLogits) -> Tensor:
        """See `SupervisedTerm.__call__`."""
        log_likelihoods = batch.log_likelihoods
        # expm1 keeps 1 - p exact near p = 1; the clamp keeps its power's derivative finite at 0 for gamma below 1
        wrong = -torch.expm1(log_likelihoods)
        focus = wrong.clamp(min=torch.finfo(wrong.dtype).tiny).pow(self.config.gamma)
        return weighted_mean(-focus * log_likelihoods, pixel_weights(batch, self.supervision.class_weights))
