"""Lovasz-softmax against its definition as an extension of a set function."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.losses.supervised.lovasz import Lovasz, LovaszConfig, jaccard_weights
from pipeline.losses.supervised.term import LabelledLogits, Supervision
from pipeline.models.network.head import Logits


def one_minus_iou(wrong: set[int], members: set[int]) -> float:
    """1 - IoU of a class when just these pixels are wrong: members that are missed, others that are taken for it."""
    union = members | wrong
    return 1 - len(members - wrong) / len(union) if union else 0.0


def slow_extension(errors: Tensor, members: Tensor) -> Tensor:
    """The Lovasz extension by definition (equation 8), one pixel at a time, left to autograd."""
    own = set(members.nonzero().flatten().tolist())
    total, wrong = errors.sum() * 0, set()
    for pixel in sorted(range(len(errors)), key=lambda pixel: -errors[pixel].item()):
        before = one_minus_iou(wrong, own)
        wrong = wrong | {pixel}
        total = total + errors[pixel] * (one_minus_iou(wrong, own) - before)
    return total


def slow_lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits and labels at one resolution."""
    counts = labels != 255
    probabilities = logits.softmax(1).permute(0, 2, 3, 1)[counts]
    truth = labels[counts]
    losses = []
    for label in sorted(set(truth.tolist())):
        members = (truth == label).to(logits.dtype)
        losses.append(slow_extension((members - probabilities[:, label]).abs(), members))
    return torch.stack(losses).mean()


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    return Lovasz(LovaszConfig(), Supervision(255))(LabelledLogits(Logits(logits), labels, 255))


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(2, 4, 4, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(0, 4 - seed % 3, (2, 4, 5), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    results = [loss(logits, labels) for loss in (lovasz, slow_lovasz)]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(*(torch.autograd.grad(result, logits)[0] for result in results), rtol=1e-9, atol=1e-13)


def test_at_hard_predictions_it_is_one_minus_iou() -> None:
    """The extension agrees with the set function where every error is 0 or 1: here for all 2^6 sets of wrong pixels."""
    members = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    own = {0, 1, 5}
    for wrong in itertools.product((0.0, 1.0), repeat=6):
        errors = torch.tensor([wrong], dtype=torch.float64)
        value = (errors * jaccard_weights(errors, members)).sum().item()
        assert value == pytest.approx(one_minus_iou(set(np.flatnonzero(wrong).tolist()), own), abs=1e-12)


def test_it_is_convex_in_the_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    members = (torch.rand(1, 9, generator=generator) < 0.4).double()

    def extension(errors: Tensor) -> float:
        return float((errors * jaccard_weights(errors, members)).sum())

    for _ in range(50):
        first, second = torch.rand(2, 1, 9, generator=generator, dtype=torch.float64)
        assert extension((first + second) / 2) <= (extension(first) + extension(second)) / 2 + 1e-12


def test_it_works_where_the_logits_are() -> None:
    logits = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 16, 24))
    torch.testing.assert_close(lovasz(logits, labels), slow_lovasz(logits, labels[:, 2::4, 2::4]))
