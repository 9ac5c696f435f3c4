"""Soft Dice: the overlap of each class's probabilities with its pixels, over the whole batch.

Milletari et al., "V-Net", 3DV 2016, arXiv 1606.04797, equation in section 3; Sudre et al., "Generalised Dice overlap as
a deep learning loss function for highly unbalanced segmentations", DLMIA 2017, arXiv 1707.03237, equation 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.losses.shared.distributed import sum_over_ranks
from pipeline.losses.supervised.term import LabelledLogits, SupervisedConfig, SupervisedTerm


@dataclass(frozen=True)
class DiceConfig(SupervisedConfig):
    """Settings of the soft Dice loss.

    Attributes:
        form: `mean` takes the mean over the classes present of V-Net's 1 - 2 sum(p g) / (sum(p^2) + sum(g^2));
            `generalised` takes Sudre's 1 - 2 sum_c w_c sum(p g) / sum_c w_c sum(p + g), w_c = 1 / sum(g)^2.
    """

    form: Literal["mean", "generalised"] = "mean"


class Dice(SupervisedTerm):
    """1 - Dice of the softmax probabilities p and the one-hot labels g, over the labelled pixels of the batch.

    A class without a pixel in the batch is left out: its overlap is 0 whatever the network says.
    """

    Config: ClassVar[type[DiceConfig]] = DiceConfig
    config: DiceConfig

    def __call__(self, batch: LabelledLogits) -> Tensor:
        """See `SupervisedTerm.__call__`."""
        generalised = self.config.form == "generalised"
        outputs = _SoftDice.apply(batch.log_probabilities, batch.class_index, batch.labelled, generalised)  # type: ignore[no-untyped-call]
        loss: Tensor = outputs[0]
        return loss


class _SoftDice(Function):
    """Both forms are functions of three sums per class, so that few passes over the probabilities give the gradient."""

    @staticmethod
    def forward(
        log_probabilities: Tensor, classes: Tensor, labelled: Tensor, generalised: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        # The area sums p, or p^2, over the labelled pixels: e^(a log p + b), b = -inf where a pixel does not count.
        power = 1 if generalised else 2
        barred = torch.zeros_like(labelled, dtype=log_probabilities.dtype).masked_fill_(~labelled, -torch.inf)
        powers = torch.add(barred[:, None], log_probabilities, alpha=power).exp_()
        own = log_probabilities.gather(1, classes[:, None]).add_(barred[:, None]).exp_()
        nothing, flat = own.new_zeros(log_probabilities.shape[1]), classes.flatten()
        overlap = sum_over_ranks(nothing.scatter_add(0, flat, own.flatten()))
        size = sum_over_ranks(nothing.scatter_add(0, flat, labelled.flatten().to(own.dtype)))
        area = sum_over_ranks(powers.sum((0, 2, 3)))
        present = (size > 0).to(size.dtype)
        if generalised:
            weight = present / size.square().clamp(min=1)
            top, bottom = 2 * (weight * overlap).sum(), (weight * (area + size)).sum()
            bottom = bottom.where(bottom > 0, 1)
            loss = present.amax() - top / bottom
            by_overlap, by_area = -2 * weight / bottom, weight * top / bottom.square()
        else:
            share = present / present.sum().clamp(min=1)
            bottom = (area + size).where(present > 0, 1)
            loss = (share * (1 - 2 * overlap / bottom)).sum()
            by_overlap, by_area = -2 * share / bottom, 2 * share * overlap / bottom.square()
        # d / d log p: the power comes down, the exponential stays
        return loss, powers, own, by_overlap, power * by_area

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[1], *output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        classes, powers, own, by_overlap, by_area = ctx.saved_tensors
        loss_gradient = sum_over_ranks(loss_gradient)  # the loss of every rank depends on these pixels
        gradient = powers * (by_area * loss_gradient)[:, None, None]
        by_own = own * (by_overlap * loss_gradient)[classes][:, None]
        return gradient.scatter_add_(1, classes[:, None], by_own), None, None, None
