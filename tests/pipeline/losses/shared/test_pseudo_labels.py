"""A teacher's word as labels, and the loss held to it: by a slow reference in float64, and where there is nothing."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.shared.pseudo_labels import PseudoLabels, mix, pseudo_label_loss, pseudo_labels
from pipeline.losses.shared.resolution import NO_CLASS


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_probabilities(logits: Tensor, image: int, row: int, column: int, size: tuple[int, int]) -> list[float]:
    """Softmax of one pixel of the upsampled logits, number by number."""
    upsampled = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[image, :, row, column].tolist()
    exponentials = [math.exp(value) for value in upsampled]
    return [value / sum(exponentials) for value in exponentials]


def everywhere(images: int = 2, height: int = 6, width: int = 8) -> Tensor:
    return torch.ones(images, height, width, dtype=torch.bool)


@pytest.mark.parametrize("size", [(6, 8), (12, 16)])
def test_loss_and_labels_are_those_of_the_definition(size: tuple[int, int]) -> None:
    teacher, student = 2 * noise(2, 5, 6, 8), noise(2, 5, 6, 8, seed=1).requires_grad_()
    inside = everywhere(2, *size)
    inside[1, :, -3:] = False
    target = pseudo_labels(teacher, inside, confidence=0.6, unlikely_rank=2)
    total, count = 0.0, 0
    for image in range(2):
        for row in range(size[0]):
            for column in range(size[1]):
                said = slow_probabilities(teacher, image, row, column, size)
                trusted = bool(inside[image, row, column]) and max(said) >= 0.6
                expected = said.index(max(said)) if trusted else NO_CLASS
                assert target.classes[image, row, column] == expected
                assert target.unlikely is not None
                for label, probability in enumerate(said):
                    beaten_by = sum(other > probability for other in said)
                    unlikely = bool(inside[image, row, column]) and not trusted and beaten_by >= 2
                    assert bool(target.unlikely[image, label, row, column]) == unlikely
                count += bool(inside[image, row, column])
                if trusted:
                    total -= math.log(slow_probabilities(student.detach(), image, row, column, size)[expected])
    loss = pseudo_label_loss(student, target)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(total / count, rel=1e-12)
    assert 0 < (target.classes != NO_CLASS).sum() < inside.sum(), "the example has both"
    assert torch.autograd.gradcheck(lambda logits: pseudo_label_loss(logits, target), (student,))


def test_nothing_confident_no_image_or_nothing_but_padding_is_an_exact_zero_with_a_gradient() -> None:
    sure = pseudo_labels(noise(2, 5, 6, 8), everywhere(), confidence=0.0, unlikely_rank=None)
    assert (sure.classes != NO_CLASS).all() and sure.unlikely is None
    batches = {
        "nothing confident": pseudo_labels(0 * noise(2, 5, 6, 8), everywhere(), confidence=0.9, unlikely_rank=None),
        "padding": pseudo_labels(9 * noise(2, 5, 6, 8), ~everywhere(), confidence=0.0, unlikely_rank=None),
        "no image": pseudo_labels(noise(0, 5, 6, 8), everywhere(0), confidence=0.5, unlikely_rank=1),
    }
    for name, target in batches.items():
        logits = noise(len(target.classes), 5, 6, 8).requires_grad_()
        loss = pseudo_label_loss(logits, target)
        assert loss.item() == 0, name
        loss.backward()
        assert logits.grad is not None and logits.grad.eq(0).all(), name


def test_one_class_that_student_and_teacher_are_certain_of_costs_nothing() -> None:
    logits = torch.zeros(2, 5, 6, 8, dtype=torch.float64)
    logits[:, 3] = 1000
    target = pseudo_labels(logits, everywhere(), confidence=0.95, unlikely_rank=None)
    assert (target.classes == 3).all()
    student = logits.clone().requires_grad_()
    loss = pseudo_label_loss(student, target)
    loss.backward()
    assert loss.item() == 0 and student.grad is not None and student.grad.eq(0).all()


def test_half_precision_is_computed_in_float32() -> None:
    target = pseudo_labels(noise(2, 5, 6, 8).bfloat16(), everywhere(), confidence=0.0, unlikely_rank=None)
    assert pseudo_label_loss(noise(2, 5, 6, 8, seed=1).bfloat16(), target).dtype == torch.float32


def test_boxes_are_filled_from_the_next_crop_alike_in_images_and_labels() -> None:
    boxes = torch.zeros(3, 6, 8, dtype=torch.bool)
    boxes[0, 1:3, 2:5] = True
    boxes[2, :, :4] = True
    values = torch.arange(3)[:, None, None].expand(3, 6, 8)
    mixed = mix(values, boxes)
    assert (mixed[0][boxes[0]] == 1).all() and (mixed[0][~boxes[0]] == 0).all()
    assert (mixed[1] == 1).all()
    assert (mixed[2][boxes[2]] == 0).all() and (mixed[2][~boxes[2]] == 2).all()
    whole = PseudoLabels(values, values == 1, (values == 2)[:, None].expand(3, 4, 6, 8)).mixed(boxes)
    assert torch.equal(whole.classes, mixed) and torch.equal(whole.inside, mixed == 1)
    assert whole.unlikely is not None and torch.equal(whole.unlikely[:, 3], mixed == 2)
