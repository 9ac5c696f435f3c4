"""The focal loss against its equation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.losses.supervised.cross_entropy import segmentation_loss
from pipeline.losses.supervised.focal import Focal, FocalConfig
from pipeline.losses.supervised.term import LabelledLogits, Supervision
from pipeline.models.network.head import Logits


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 4, (2, 5, 6), generator=generator)
    labels[:, :2] = 255
    return logits, labels


def focal(logits: Tensor, labels: Tensor, gamma: float, class_weights: Tensor | None = None) -> Tensor:
    return Focal(FocalConfig(gamma=gamma), Supervision(255, class_weights))(LabelledLogits(Logits(logits), labels, 255))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_equation(gamma: float, weighted: bool) -> None:
    logits, labels = batch()
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64) if weighted else torch.ones(4).double()
    counts = labels != 255
    p = logits.softmax(1).permute(0, 2, 3, 1)[counts].gather(1, labels[counts][:, None])[:, 0]
    alpha = weights[labels[counts]]
    expected = (-alpha * (1 - p) ** gamma * p.log()).sum() / alpha.sum()
    results = [focal(logits, labels, gamma, weights if weighted else None), expected]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(*(torch.autograd.grad(r, logits, retain_graph=True)[0] for r in results))


def test_without_focus_it_is_the_cross_entropy() -> None:
    logits, labels = batch()
    torch.testing.assert_close(focal(logits, labels, 0.0), segmentation_loss(Logits(logits), labels, ignore_index=255))


def test_what_is_right_already_counts_less() -> None:
    """The paper's example: with gamma 2, p = 0.9 costs 100 times less, p = 0.968 1000 times."""
    for p, factor in ((0.9, 100), (0.968, 1000)):
        logits = torch.tensor([p, 1 - p], dtype=torch.float64).log()[None, :, None, None]
        labels = torch.zeros(1, 1, 1, dtype=torch.int64)
        ratio = focal(logits, labels, 0.0) / focal(logits, labels, 2.0)
        assert ratio.item() == pytest.approx(factor, rel=0.05)
