"""The segmentation cross entropy that every method trains with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.losses.shared.distributed import sum_over_ranks
from pipeline.losses.shared.likelihood import negative_log_likelihood
from pipeline.losses.supervised.term import (
    LabelledLogits,
    SupervisedConfig,
    SupervisedTerm,
    Supervision,
    log_probabilities_at,
)
from pipeline.models.network.head import Logits


@dataclass(frozen=True)
class CrossEntropyTermConfig(SupervisedConfig):
    """The cross entropy has no settings but its weight."""


class CrossEntropyTerm(SupervisedTerm):
    """Cross entropy of the logits, upsampled to the labels, plus that of each auxiliary classifier.

    The mean is over labelled pixels (weighted by the class weights where there are any).
    """

    Config: ClassVar[type[CrossEntropyTermConfig]] = CrossEntropyTermConfig

    def __call__(self, batch: LabelledLogits) -> Tensor:
        """See `SupervisedTerm.__call__`."""
        weights = self.supervision.class_weights
        if weights is None:
            normaliser = batch.labelled.sum()
        else:
            padded = torch.cat([weights, weights.new_zeros(1)])
            normaliser = padded[batch.labels.where(batch.labelled, len(weights))].sum()
        # Without a labelled pixel the sum is 0 whatever it is divided by; any other normaliser stays as it is.
        normaliser = sum_over_ranks(normaliser)
        normaliser = normaliser.where(normaliser > 0, 1)
        total = self._sum(batch.log_probabilities, batch.labels)
        for logits in batch.logits.auxiliary:
            log_probabilities = log_probabilities_at(logits, batch.labels)
            total = total + self.supervision.auxiliary_weight * self._sum(log_probabilities, batch.labels)
        return sum_over_ranks(total) / normaliser

    def _sum(self, log_probabilities: Tensor, labels: Tensor) -> Tensor:
        weights, ignore_index = self.supervision.class_weights, self.supervision.ignore_index
        return negative_log_likelihood(log_probabilities, labels, weight=weights, ignore_index=ignore_index)


def segmentation_loss(
    logits: Logits,
    labels: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None = None,
    auxiliary_weight: float = 0.4,
) -> Tensor:
    """The cross entropy of one batch, whatever autocast says: `CrossEntropyTerm` as a function.

    Args:
        logits: main `[B,C,h,w]` and auxiliary, each at its own resolution.
        labels: `[B,H,W]` int64.
        ignore_index: label that counts nowhere.
        class_weights: `[C]` float, or None for equal weights.
        auxiliary_weight: factor of every auxiliary classifier's cross entropy.

    Returns:
        Scalar, float32 or wider; an exact, differentiable 0 when every pixel is ignored.
    """
    term = CrossEntropyTerm(CrossEntropyTermConfig(), Supervision(ignore_index, class_weights, auxiliary_weight))
    with torch.autocast(labels.device.type, enabled=False):
        return term(LabelledLogits(logits, labels, ignore_index))
