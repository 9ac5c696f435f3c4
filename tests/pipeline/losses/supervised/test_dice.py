"""Soft Dice against its equations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.supervised.dice import Dice, DiceConfig
from pipeline.losses.supervised.term import LabelledLogits, Supervision
from pipeline.models.network.head import Logits


def slow_dice(logits: Tensor, labels: Tensor, form: str) -> Tensor:
    """By definition, class by class, left to autograd. Logits and labels at one resolution."""
    counts = labels != 255
    probabilities = logits.softmax(1).permute(0, 2, 3, 1)[counts]
    truth = labels[counts]
    tops, bottoms, losses = [], [], []
    for label in sorted(set(truth.tolist())):
        p, g = probabilities[:, label], (truth == label).to(logits.dtype)
        if form == "mean":  # V-Net
            losses.append(1 - 2 * (p * g).sum() / ((p**2).sum() + (g**2).sum()))
        else:  # Sudre et al., equation 1
            weight = 1 / g.sum() ** 2
            tops.append(weight * (p * g).sum())
            bottoms.append(weight * (p + g).sum())
    if form == "mean":
        return sum(losses) / len(losses)
    return 1 - 2 * sum(tops) / sum(bottoms)


def dice(logits: Tensor, labels: Tensor, form: str) -> Tensor:
    return Dice(DiceConfig(form=form), Supervision(255))(LabelledLogits(Logits(logits), labels, 255))


@pytest.mark.parametrize("form", ["mean", "generalised"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_equations(form: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 5, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 5 - seed % 3, (2, 6, 7), generator=generator)  # some classes are absent
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    results = [loss(logits, labels, form) for loss in (dice, slow_dice)]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(result, logits)[0] for result in results]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("form", "expected"), [("mean", 0.18), ("generalised", 0.293)])
def test_a_rare_class_counts_however_few_pixels_it_has(form: str, expected: float) -> None:
    """Half of a class that fills a tenth of the image is lost: 5 % of the pixels, much more of the loss."""
    labels = torch.zeros(1, 10, 10, dtype=torch.int64)
    labels[:, :, 9] = 1
    predicted = labels.clone()
    predicted[:, :5, 9] = 0
    logits = 50 * F.one_hot(predicted, 2).permute(0, 3, 1, 2).double()
    assert dice(logits, labels, form).item() == pytest.approx(expected, abs=0.005)


def test_labels_may_be_finer_than_logits() -> None:
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 16, 20))
    upsampled = F.interpolate(logits, size=(16, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(dice(logits, labels, "mean"), slow_dice(upsampled, labels, "mean"))
