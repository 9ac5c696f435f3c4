"""The boundary-weighted cross entropy: where boundaries are, how far a pixel is from one, and what that weighs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from pipeline.losses.supervised.boundary_cross_entropy import (
    BoundaryCrossEntropy,
    BoundaryCrossEntropyConfig,
    touches_another_class,
)
from pipeline.losses.supervised.cross_entropy import segmentation_loss
from pipeline.losses.supervised.term import LabelledLogits, Supervision
from pipeline.models.network.head import Logits


def batch(seed: int = 0, size: tuple[int, int] = (24, 30)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, (2, -(-size[0] // 8), -(-size[1] // 8)), generator=generator)
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, : size[0], : size[1]].clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.05] = 255
    return logits, labels


def slow_touches(labels: np.ndarray) -> np.ndarray:
    height, width = labels.shape
    touches = np.zeros(labels.shape, dtype=bool)
    for y in range(height):
        for x in range(width):
            around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            inside = [labels[p] for p in around if 0 <= p[0] < height and 0 <= p[1] < width]
            touches[y, x] = labels[y, x] != 255 and any(n not in (255, labels[y, x]) for n in inside)
    return touches


def slow_weights(labels: Tensor, boundary_weight: float, sigma: float) -> Tensor:
    """1 + w0 exp(-d^2 / (2 sigma^2)) with scipy's distances, image by image."""
    maps = []
    for label_map in labels.numpy():
        touches = slow_touches(label_map)
        distance = distance_transform_edt(~touches) if touches.any() else np.full(touches.shape, np.inf)
        near = np.where(distance <= np.ceil(3 * sigma), np.exp(-(distance**2) / (2 * sigma**2)), 0)
        maps.append((1 + boundary_weight * near) * (label_map != 255))
    return torch.from_numpy(np.stack(maps))


def loss_of(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, **config: float) -> Tensor:
    term = BoundaryCrossEntropy(BoundaryCrossEntropyConfig(**config), Supervision(255, class_weights))
    return term(LabelledLogits(Logits(logits), labels, 255))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0, 9.0])
@pytest.mark.parametrize("boundary_weight", [0.0, 4.0])
@pytest.mark.parametrize("size", [(24, 30), (1, 17), (9, 1)])
def test_equals_the_equation(sigma: float, boundary_weight: float, size: tuple[int, int]) -> None:
    logits, labels = batch(size=size)
    weights = slow_weights(labels, boundary_weight, sigma)
    own = logits.log_softmax(1).gather(1, labels.where(labels != 255, 0)[:, None])[:, 0]
    results = [
        loss_of(logits, labels, sigma=sigma, boundary_weight=boundary_weight),
        -(weights * own).sum() / weights.sum(),
    ]
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-12)  # distances are float32
    torch.testing.assert_close(
        *(torch.autograd.grad(r, logits, retain_graph=True)[0] for r in results), rtol=1e-5, atol=1e-12
    )


def test_without_a_boundary_it_is_the_cross_entropy() -> None:
    logits, labels = batch()
    for plain in (torch.full_like(labels, 2), labels.where(labels == 255, 1)):
        expected = segmentation_loss(Logits(logits), plain, ignore_index=255)
        torch.testing.assert_close(loss_of(logits, plain), expected)
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    expected = segmentation_loss(Logits(logits), labels, ignore_index=255, class_weights=weights)
    torch.testing.assert_close(loss_of(logits, labels, weights, boundary_weight=0.0), expected)


def test_neither_the_image_border_nor_unlabelled_pixels_are_boundaries() -> None:
    labels = torch.zeros(1, 6, 6, dtype=torch.int64)
    labels[:, :, 3] = 255
    labels[:, :, 4:] = 1
    assert not touches_another_class(labels, labels != 255).any()
    labels[0, 2, 3] = 1
    touches = touches_another_class(labels, labels != 255)
    assert touches.nonzero().tolist() == [[0, 2, 2], [0, 2, 3]]
