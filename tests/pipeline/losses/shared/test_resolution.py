"""Nearest-neighbour resizing of class maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.shared.resolution import nearest, predicted_classes


@pytest.mark.parametrize("size", [(4, 6), (8, 12), (3, 5), (1, 1), (17, 29), (16, 24)])
def test_equals_pytorchs_exact_nearest(size: tuple[int, int]) -> None:
    labels = torch.arange(2 * 16 * 24).reshape(2, 16, 24)
    expected = F.interpolate(labels[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
    assert torch.equal(nearest(labels, size), expected)


def test_takes_the_pixel_at_the_cells_centre() -> None:
    labels = torch.arange(8).expand(1, 8, 8)
    assert nearest(labels, (2, 2))[0, 0].tolist() == [2, 6]


def test_predictions_are_the_largest_logits() -> None:
    logits = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    predictions = predicted_classes(logits)
    assert torch.equal(predictions, logits.argmax(1))
    assert not predictions.requires_grad
