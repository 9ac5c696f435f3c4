"""The term pixel_contrast within a batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses.pixel_contrast.loss import PixelContrast, PixelContrastConfig
from pipeline.losses.shared.info_nce import info_nce
from pipeline.losses.shared.sampling import sample_anchors
from pipeline.losses.shared.term import TermOutput
from pipeline.models.network.head import Logits, Taps, TraineeOutput


def batch(labels: Tensor, seed: int = 0, dimension: int = 8) -> TraineeOutput:
    generator = torch.Generator().manual_seed(seed)
    size = (len(labels), dimension, labels.shape[1] // 4, labels.shape[2] // 4)
    embeddings = F.normalize(torch.randn(size, generator=generator), dim=1).requires_grad_()
    return TraineeOutput(Logits(torch.randn(size[0], 3, *size[2:], generator=generator)), (embeddings,))


def labels_of(images: int = 2, classes: int = 3) -> Tensor:
    return torch.randint(0, classes, (images, 32, 40), generator=torch.Generator().manual_seed(5))


def run(output: TraineeOutput, labels: Tensor, **config: object) -> TermOutput:
    config = {"max_views": 4, "max_samples": 64, **config}
    term = PixelContrast(PixelContrastConfig(**config), num_classes=3, ignore_index=255, training_images=10)
    return term(output, labels, heads=nn.ModuleDict(), generator=torch.Generator().manual_seed(3))


def test_is_info_nce_of_the_sampled_anchors() -> None:
    labels = labels_of()
    output = batch(labels)
    small = F.interpolate(labels[:, None].float(), size=(8, 10), mode="nearest-exact")[:, 0].long()
    generator = torch.Generator().manual_seed(3)
    anchors = sample_anchors(
        small, output.logits.main.argmax(1), max_samples=64, max_views=4, ignore_index=255, generator=generator
    )
    rows = output.embeddings[0].flatten(2)[anchors.image, :, anchors.pixel]
    expected = info_nce(rows, anchors.label, temperature=0.1, base_temperature=0.07)
    result = run(output, labels)
    torch.testing.assert_close(result.loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(result.loss, output.embeddings)[0], torch.autograd.grad(expected, output.embeddings)[0]
    )
    assert result.statistics["anchors"].item() == len(anchors) == 24
    assert result.statistics["hard_share"].item() == pytest.approx(0.5)
    assert result.statistics["class_share"].item() == 1


def test_statistics_stay_on_the_device_and_off_the_graph() -> None:
    labels = labels_of()
    for value in run(batch(labels), labels).statistics.values():
        assert value.shape == ()
        assert not value.requires_grad


@pytest.mark.parametrize(
    "labels",
    [
        torch.full((2, 32, 40), 255),  # all ignored
        torch.zeros(2, 32, 40, dtype=torch.int64),  # one class
        torch.zeros(1, 32, 40, dtype=torch.int64),  # one image
        torch.full((2, 32, 40), 255).index_fill(2, torch.tensor([2, 6]), 1),  # few pixels of one class
    ],
)
def test_degenerate_labels_give_an_exact_differentiable_zero(labels: Tensor) -> None:
    output = batch(labels)
    result = run(output, labels, max_views=20)
    assert result.loss.item() == 0
    (gradient,) = torch.autograd.grad(result.loss, output.embeddings)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert all(value.isfinite() for value in result.statistics.values())


def test_gradient_reaches_the_backbone() -> None:
    labels = labels_of()
    image = torch.randn(2, 3, 8, 10)
    backbone, projection = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 1)
    features = backbone(image)
    output = TraineeOutput(Logits(features[:, :3]), (F.normalize(projection(features), dim=1),))
    run(output, labels).loss.backward()
    for module in (backbone, projection):
        assert module.weight.grad.abs().sum() > 0


def test_taps_and_bad_settings() -> None:
    assert PixelContrast.taps is Taps.HEAD_INPUT
    with pytest.raises(ValueError, match="temperature: expected above 0, got 0\nmax_views"):
        PixelContrastConfig(temperature=0, max_views=0)
