"""The segmentation cross entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.supervised.cross_entropy import segmentation_loss
from pipeline.models.network.head import Logits


def output_and_labels(dtype: torch.dtype = torch.float32) -> tuple[Logits, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=dtype, requires_grad=True)
    auxiliary = torch.randn(2, 3, 2, 3, generator=generator, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 3, (2, 8, 10), generator=generator)
    labels[:, :2] = 255
    return Logits(logits, (auxiliary,)), labels


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_pytorch_at_the_resolution_of_the_labels(weighted: bool) -> None:
    output, labels = output_and_labels()
    weights = torch.tensor([0.5, 1.0, 2.0]) if weighted else None

    def expected(logits: Tensor) -> Tensor:
        logits = F.interpolate(logits, size=(8, 10), mode="bilinear", align_corners=False)
        return F.cross_entropy(logits, labels, weight=weights, ignore_index=255)

    loss = segmentation_loss(output, labels, ignore_index=255, class_weights=weights, auxiliary_weight=0.4)
    torch.testing.assert_close(loss, expected(output.main) + 0.4 * expected(output.auxiliary[0]))


@pytest.mark.parametrize("weighted", [False, True])
def test_all_ignored_is_an_exact_differentiable_zero(weighted: bool) -> None:
    output, labels = output_and_labels()
    weights = torch.tensor([0.5, 1.0, 2.0]) if weighted else None
    loss = segmentation_loss(
        output, torch.full_like(labels, 255), ignore_index=255, class_weights=weights, auxiliary_weight=0.4
    )
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(output.main.grad, torch.zeros_like(output.main))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_under_autocast_are_summed_in_float32(dtype: torch.dtype) -> None:
    output, labels = output_and_labels(dtype)
    with torch.autocast("cpu", dtype=dtype):
        loss = segmentation_loss(output, labels, ignore_index=255, class_weights=None, auxiliary_weight=0.4)
    exact = Logits(output.main.double(), tuple(logits.double() for logits in output.auxiliary))
    assert loss.dtype == torch.float32
    wide = segmentation_loss(exact, labels, ignore_index=255, class_weights=None, auxiliary_weight=0.4)
    assert wide.dtype == torch.float64
    assert loss.item() == pytest.approx(wide.item(), rel=1e-6)
