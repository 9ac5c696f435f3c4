"""Cross entropy of the hardest pixels (online hard example mining).

Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining", CVPR 2016, arXiv
1604.03540; for segmentation, with a threshold and a minimum, Wu et al., "Bridging Category-level and Instance-level
Semantic Image Segmentation", 2016, arXiv 1605.06885, section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.losses.shared.distributed import gather_batch
from pipeline.losses.supervised.pixel_mean import pixel_weights, weighted_mean
from pipeline.losses.supervised.term import LabelledLogits, SupervisedConfig, SupervisedTerm
from serving.contract.schema import Require


@dataclass(frozen=True)
class OhemCrossEntropyConfig(SupervisedConfig):
    """Settings of the cross entropy of the hardest pixels.

    Attributes:
        threshold: pixels whose label has at most this probability are hard.
        min_share: share of the batch's pixels that count at least: the hardest, should fewer be hard.
    """

    threshold: float = 0.7
    min_share: float = 0.1

    def check(self, require: Require) -> None:
        """See `SupervisedConfig.check`."""
        super().check(require)
        require(0 < self.threshold <= 1, f"threshold: expected in (0, 1], got {self.threshold}")
        require(0 <= self.min_share <= 1, f"min_share: expected in [0, 1], got {self.min_share}")


class OhemCrossEntropy(SupervisedTerm):
    """Cross entropy averaged over the pixels whose label is improbable, and over the hardest if those are too few."""

    Config: ClassVar[type[OhemCrossEntropyConfig]] = OhemCrossEntropyConfig
    config: OhemCrossEntropyConfig

    def __call__(self, batch: LabelledLogits) -> Tensor:
        """See `SupervisedTerm.__call__`."""
        log_likelihoods = batch.log_likelihoods
        # Unlabelled pixels are the easiest. How many pixels there are is known without asking the device.
        known = log_likelihoods.detach().masked_fill(~batch.labelled, 1)
        limit = math.log(self.config.threshold)
        hard = known <= limit
        if self.config.min_share:
            of_all = gather_batch(known).flatten()
            hard |= known <= of_all.kthvalue(math.ceil(self.config.min_share * len(of_all))).values
        weights = pixel_weights(batch, self.supervision.class_weights)
        return weighted_mean(-log_likelihoods, weights * hard)
