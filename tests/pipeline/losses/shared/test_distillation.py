"""Distillation: by slow references in float64, its gradients, and batches with nothing to learn from."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.shared.distillation import logit_distillation, similarity_distillation

SAMPLING = {"temperature": 0.2, "max_samples": 1024, "max_views": 64}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_labels() -> Tensor:
    labels = torch.randint(-1, 4, (2, 4, 6), generator=torch.Generator().manual_seed(5))
    assert (labels < 0).any() and (labels >= 0).any()
    return labels


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def divergence(wanted: list[float], found: list[float]) -> float:
    p, q = softmax(wanted), softmax(found)
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def similarity(student: Tensor, teacher: Tensor, labels: Tensor, **settings: float) -> Tensor:
    values = {**SAMPLING, **settings}
    generator = torch.Generator().manual_seed(0)
    logits = noise(len(labels), 4, *student.shape[-2:], seed=3)
    return similarity_distillation(student, teacher, labels, logits, generator=generator, **values)


@pytest.mark.parametrize("teacher_size", [(4, 6), (2, 3), (8, 12)])
def test_logits_by_definition(teacher_size: tuple[int, int]) -> None:
    student, teacher, labels = noise(2, 5, 4, 6).requires_grad_(), noise(2, 5, *teacher_size, seed=1), some_labels()
    at_cells = F.interpolate(teacher, size=(4, 6), mode="bilinear", align_corners=False)
    terms = [
        divergence((at_cells[b, :, y, x] / 3).tolist(), (student.detach()[b, :, y, x] / 3).tolist())
        for b, y, x in (labels >= 0).nonzero().tolist()
    ]
    loss = logit_distillation(student, teacher, labels, temperature=3.0)
    assert loss.item() == pytest.approx(9 * sum(terms) / len(terms), rel=1e-10)
    assert torch.autograd.gradcheck(lambda s: logit_distillation(s, teacher, labels, temperature=3.0), (student,))


@pytest.mark.parametrize("teacher_size", [(4, 6), (2, 3)])
def test_similarities_by_definition(teacher_size: tuple[int, int]) -> None:
    student, teacher, labels = noise(2, 5, 4, 6).requires_grad_(), noise(2, 9, *teacher_size, seed=1), some_labels()
    at_cells = F.interpolate(teacher, size=(4, 6), mode="bilinear", align_corners=False)
    pixels = (labels >= 0).nonzero().tolist()

    def similarities(features: Tensor, i: int) -> list[float]:
        def row(pixel: list[int]) -> Tensor:
            return features.detach()[pixel[0], :, pixel[1], pixel[2]]

        return [
            (row(pixels[i]) @ row(other) / (row(pixels[i]).norm() * row(other).norm())).item() / 0.2
            for j, other in enumerate(pixels)
            if j != i
        ]

    terms = [divergence(similarities(at_cells, i), similarities(student, i)) for i in range(len(pixels))]
    loss = similarity(student, teacher, labels)
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-10)
    assert torch.autograd.gradcheck(lambda s: similarity(s, teacher, labels), (student,))


def test_a_student_that_says_the_same_loses_nothing() -> None:
    logits, labels = noise(2, 5, 4, 6), some_labels()
    student = logits.clone().requires_grad_()
    loss = logit_distillation(student, logits, labels, temperature=2.0)
    loss.backward()
    assert loss.item() == 0 and student.grad is not None and student.grad.abs().max() < 1e-15
    turned = torch.linalg.qr(noise(5, 5, seed=2)).Q
    assert similarity(torch.einsum("de,behw->bdhw", turned, logits), logits, labels).item() == pytest.approx(
        0, abs=1e-12
    )


def test_few_samples_are_taken_and_void_is_not() -> None:
    student, teacher, labels = noise(2, 5, 4, 6).requires_grad_(), noise(2, 9, 4, 6, seed=1), some_labels()
    similarity(student, teacher, labels, max_samples=10, max_views=3).backward()
    assert student.grad is not None
    reached = student.grad.abs().sum(1) > 0
    assert 3 <= reached.sum() <= 10 and not (reached & (labels < 0)).any()


@pytest.mark.parametrize("batch", ["all void", "one pixel", "two pixels", "no image"])
def test_nothing_to_learn_from_is_an_exact_zero_with_a_gradient(batch: str) -> None:
    images = 0 if batch == "no image" else 2
    labels = torch.full((images, 4, 6), -1)
    if batch.endswith(("pixel", "pixels")):
        labels[0, 0, 0] = 1
        labels[1, 2, 3] = 3 if batch == "two pixels" else -1
    features = noise(images, 5, 4, 6).requires_grad_()
    loss = similarity(features, noise(images, 9, 4, 6, seed=1), labels)
    loss.backward()
    assert loss.item() == 0 and features.grad is not None and features.grad.eq(0).all()
    if batch in ("all void", "no image"):
        logits = noise(images, 5, 4, 6).requires_grad_()
        loss = logit_distillation(logits, noise(images, 5, 4, 6, seed=1), labels, temperature=2.0)
        loss.backward()
        assert loss.item() == 0 and logits.grad is not None and logits.grad.eq(0).all()


def test_one_class_and_half_precision_are_finite_and_float32() -> None:
    labels = torch.zeros(2, 4, 6, dtype=torch.int64)
    features = noise(2, 5, 4, 6).bfloat16().requires_grad_()
    for loss in (
        similarity(features, noise(2, 9, 4, 6, seed=1).bfloat16(), labels),
        logit_distillation(features, noise(2, 5, 4, 6, seed=1).bfloat16(), labels, temperature=2.0),
    ):
        assert loss.dtype == torch.float32 and loss.isfinite() and loss > 0
        loss.backward()
    assert features.grad is not None and features.grad.isfinite().all()
