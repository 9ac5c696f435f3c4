"""Lovasz-softmax: a convex surrogate of 1 - IoU.

Berman et al., "The Lovasz-Softmax loss: a tractable surrogate for the optimization of the intersection-over-union
measure in neural networks", CVPR 2018, arXiv 1705.08790, equations 8 to 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.losses.shared.class_products import class_indicators
from pipeline.losses.shared.distributed import any_over_ranks, gather_batch, own_part, sum_over_ranks
from pipeline.losses.shared.resolution import nearest
from pipeline.losses.supervised.term import LabelledLogits, SupervisedConfig, SupervisedTerm, log_probabilities_at


@dataclass(frozen=True)
class LovaszConfig(SupervisedConfig):
    """The Lovasz-softmax loss has no settings but its weight."""


class Lovasz(SupervisedTerm):
    """The Lovasz extension of 1 - IoU at the errors of the probabilities, averaged over the classes present.

    It is computed where the logits are, on the labels nearest to the cells' centres: it sorts every class's errors over
    the whole batch, which at the resolution of the labels would cost more than the network.
    """

    Config: ClassVar[type[LovaszConfig]] = LovaszConfig
    config: LovaszConfig

    def __call__(self, batch: LabelledLogits) -> Tensor:
        """See `SupervisedTerm.__call__`."""
        logits = batch.logits.main
        labels = nearest(batch.labels, (logits.shape[2], logits.shape[3]))
        labelled = labels != batch.ignore_index
        probabilities = log_probabilities_at(logits, labels).exp()
        members = class_indicators(labels.where(labelled, -1), probabilities.shape[1], probabilities.dtype)
        members = members.transpose(0, 1).flatten(1)  # [C,P]
        # An unlabelled pixel makes no error: it is sorted last, where errors of 0 add nothing whatever their weight.
        errors = (members - probabilities.transpose(0, 1).flatten(1)).abs() * labelled.flatten()
        of_all = jaccard_weights(gather_batch(errors.detach().T).T, gather_batch(members.T).T)
        weights = own_part(of_all.T).T
        present = any_over_ranks(members.amax(dim=1) > 0).to(members.dtype)
        return (sum_over_ranks((errors * weights).sum(dim=1)) * present).sum() / present.sum().clamp(min=1)


def jaccard_weights(errors: Tensor, members: Tensor) -> Tensor:
    """Gradient of the Lovasz extension of 1 - IoU: what each pixel's error weighs, by its place in their order.

    With the errors in descending order, the k-th weighs by how much 1 - IoU grows when that pixel is wrong too. The
    extension itself is the sum of the errors with these weights.

    Args:
        errors: `[C,P]` float.
        members: `[C,P]` of the same dtype, 1 where the pixel is of the class, else 0.

    Returns:
        `[C,P]`.
    """
    order = errors.argsort(dim=1, descending=True)
    wrong_members = members.gather(1, order).cumsum(1)
    size = members.sum(dim=1, keepdim=True)
    count = torch.arange(1, errors.shape[1] + 1, dtype=errors.dtype, device=errors.device)
    lost = 1 - (size - wrong_members) / (size + count - wrong_members)
    lost[:, 1:] = lost[:, 1:] - lost[:, :-1]
    return torch.empty_like(errors).scatter_(1, order, lost)
