"""Cross entropy of the hardest pixels: which they are, and what is made of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.losses.supervised.cross_entropy import segmentation_loss
from pipeline.losses.supervised.ohem_cross_entropy import OhemCrossEntropy, OhemCrossEntropyConfig
from pipeline.losses.supervised.term import LabelledLogits, Supervision
from pipeline.models.network.head import Logits


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 4, (2, 5, 6), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    return logits, labels


def ohem(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, **config: float) -> Tensor:
    term = OhemCrossEntropy(OhemCrossEntropyConfig(**config), Supervision(255, class_weights))
    return term(LabelledLogits(Logits(logits), labels, 255))


def slow_ohem(logits: Tensor, labels: Tensor, weights: Tensor, threshold: float, min_share: float) -> Tensor:
    """By definition: sort the labelled pixels by the probability of their label, and take from the front."""
    counts = labels != 255
    p = logits.softmax(1).permute(0, 2, 3, 1)[counts].gather(1, labels[counts][:, None])[:, 0]
    hardest = p.argsort()
    fewest = math.ceil(min_share * labels.numel())
    taken = [pixel for place, pixel in enumerate(hardest.tolist()) if p[pixel] <= threshold or place < fewest]
    if not taken:
        return logits.sum() * 0
    alpha = weights[labels[counts]][taken]
    return (-alpha * p[taken].log()).sum() / alpha.sum()


@pytest.mark.parametrize("threshold", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("min_share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_definition(threshold: float, min_share: float, weighted: bool) -> None:
    logits, labels = batch()
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64) if weighted else torch.ones(4).double()
    given = weights if weighted else None
    results = [
        ohem(logits, labels, given, threshold=threshold, min_share=min_share),
        slow_ohem(logits, labels, weights, threshold, min_share),
    ]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(*(torch.autograd.grad(result, logits)[0] for result in results))


def test_of_all_pixels_it_is_the_cross_entropy() -> None:
    logits, labels = batch()
    expected = segmentation_loss(Logits(logits), labels, ignore_index=255)
    torch.testing.assert_close(ohem(logits, labels, min_share=1.0), expected)
    torch.testing.assert_close(ohem(logits, labels, threshold=1.0, min_share=0.0), expected)


def test_easy_pixels_get_no_gradient() -> None:
    logits, labels = batch()
    ohem(logits, labels, threshold=0.3, min_share=0.0).backward()
    counts = labels != 255
    p = logits.detach().softmax(1).gather(1, labels.where(counts, 0)[:, None])[:, 0]
    hard = counts & (p <= 0.3)
    assert hard.any() and (counts & ~hard).any()
    assert torch.equal(logits.grad.abs().sum(1) > 0, hard)


def test_fewer_labelled_pixels_than_the_minimum_are_all_taken() -> None:
    logits, labels = batch()
    few = torch.full_like(labels, 255)
    few[0, 2, 3] = 1
    expected = segmentation_loss(Logits(logits), few, ignore_index=255)
    torch.testing.assert_close(ohem(logits, few, threshold=1e-9, min_share=0.5), expected)
