"""What every supervised term must bear: degenerate batches, half precision, exact gradients, no waiting."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.supervised import SUPERVISED
from pipeline.losses.supervised.term import LabelledLogits, SupervisedConfig, SupervisedTerm, Supervision
from pipeline.models.network.head import Logits
from serving.contract.schema import Problems, build

CLASSES, IGNORED = 4, 255
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "cross_entropy": ("cross_entropy", {}),
    "dice": ("dice", {}),
    "generalised dice": ("dice", {"form": "generalised"}),
    "lovasz": ("lovasz", {}),
    "ohem_cross_entropy": ("ohem_cross_entropy", {}),
    "ohem_cross_entropy of all": ("ohem_cross_entropy", {"min_share": 1.0}),
    "ohem_cross_entropy by threshold": ("ohem_cross_entropy", {"min_share": 0.0}),
    "focal": ("focal", {}),
    "focal with a small gamma": ("focal", {"gamma": 0.5}),
    "boundary_cross_entropy": ("boundary_cross_entropy", {}),
}


def term_of(name: str, class_weights: Tensor | None = None) -> SupervisedTerm:
    registered, settings = VARIANTS[name]
    kind = SUPERVISED.resolve(registered)
    return kind(kind.Config(**settings), Supervision(IGNORED, class_weights, auxiliary_weight=0.4))


def logits_of(seed: int = 0, images: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(images, CLASSES, 4, 6, generator=generator, dtype=dtype)).requires_grad_()


def mixed(images: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (images, 4, 6), generator=generator)
    labels = labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORED
    return labels


def one_pixel() -> Tensor:
    labels = torch.full((2, 8, 12), IGNORED)
    labels[1, 3, 5] = 2
    return labels


BATCHES = {
    "all ignored": torch.full((2, 8, 12), IGNORED),
    "one class": torch.zeros(2, 8, 12, dtype=torch.int64),
    "one class, the last": torch.full((2, 8, 12), CLASSES - 1),
    "one pixel": one_pixel(),
    "one image": mixed(1),
    "mixed": mixed(),
}


def loss_of(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    return term_of(name)(LabelledLogits(Logits(logits), labels, IGNORED))


def test_every_registered_term_is_tested_here() -> None:
    assert {term for term, _ in VARIANTS.values()} == set(SUPERVISED)


@pytest.mark.parametrize("name", list(SUPERVISED))
def test_every_term_keeps_the_interface(name: str) -> None:
    term = SUPERVISED.resolve(name)
    assert issubclass(term, SupervisedTerm)
    assert issubclass(term.Config, SupervisedConfig)
    assert dataclasses.is_dataclass(term.Config)
    assert term.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    problems = Problems()
    assert build(term.Config, {}, name, problems) == term.Config()  # every setting has a default
    assert build(term.Config, {"weight": -1}, name, problems) is None
    assert problems == [f"{name}: weight: expected at least 0, got -1.0"]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("labels", BATCHES)
@pytest.mark.parametrize("confidence", [0.0, 1.0, 1e4, -1e4])
def test_degenerate_batches(name: str, labels: str, confidence: float) -> None:
    """Undecided, unsure, certain and right, certain and wrong: finite everywhere, and 0 where no pixel counts."""
    batch = BATCHES[labels]
    known = batch.where(batch != IGNORED, 0)
    logits = (confidence * F.one_hot(known, CLASSES).permute(0, 3, 1, 2).float()).requires_grad_()
    loss = loss_of(name, logits, batch)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert loss >= 0
    loss.backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.where((batch == IGNORED)[:, None], 0).eq(0).all()
    if labels == "all ignored":
        assert loss.item() == 0
    if confidence == 1e4:
        assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("labels", ["one class", "one pixel", "mixed"])
def test_the_gradient_is_the_derivative(name: str, labels: str) -> None:
    logits = logits_of()
    assert torch.autograd.gradcheck(lambda values: loss_of(name, values, BATCHES[labels]), (logits,))
    scaled, plain = (torch.autograd.grad(factor * loss_of(name, logits, mixed()), logits)[0] for factor in (3.0, 1.0))
    torch.testing.assert_close(scaled, 3 * plain)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_ignored_counts_nowhere(name: str) -> None:
    labels = mixed()
    logits = F.interpolate(logits_of().detach(), size=labels.shape[1:])
    changed = logits + 5 * torch.randn(logits.shape, dtype=logits.dtype) * (labels == IGNORED)[:, None]
    torch.testing.assert_close(loss_of(name, logits, labels), loss_of(name, changed, labels))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_better_prediction_has_the_lower_loss(name: str) -> None:
    labels = mixed()
    right = F.one_hot(labels.where(labels != IGNORED, 0), CLASSES).permute(0, 3, 1, 2).double()
    losses = [loss_of(name, confidence * right, labels).item() for confidence in (-2.0, 0.0, 2.0, 4.0, 8.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("name", VARIANTS)
def test_classes_are_alike(name: str) -> None:
    """Renaming the classes changes nothing."""
    order = torch.tensor([2, 0, 3, 1])
    labels, logits = mixed(), logits_of().detach()
    renamed = order.argsort()[labels.where(labels != IGNORED, 0)].where(labels != IGNORED, IGNORED)
    torch.testing.assert_close(loss_of(name, logits, labels), loss_of(name, logits[:, order], renamed))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    logits = logits_of(dtype=torch.float32).detach().to(dtype)
    half, wide = loss_of(name, logits, mixed()), loss_of(name, logits.double(), mixed())
    assert half.dtype == torch.float32
    assert wide.dtype == torch.float64
    assert half.item() == pytest.approx(wide.item(), rel=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_layout_of_the_logits_does_not_matter(name: str) -> None:
    logits = logits_of()
    last = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    losses = [loss_of(name, values, mixed()) for values in (logits, last)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, v)[0] for loss, v in zip(losses, (logits, last), strict=True))
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_it_repeats_exactly_and_draws_nothing(name: str) -> None:
    before = torch.get_rng_state()
    first, second = (loss_of(name, logits_of(), mixed()) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", VARIANTS)
def test_everything_is_created_on_the_device_of_the_batch(name: str) -> None:
    """With another default device, whatever is created without naming its device cannot be used with the batch."""
    logits, labels = logits_of(), mixed()
    with torch.device("meta"):
        loss = loss_of(name, logits, labels)
        loss.backward()
    assert loss.device.type == "cpu"


@pytest.mark.parametrize("name", VARIANTS)
def test_the_host_never_waits(name: str, operation_counter: type[Any]) -> None:
    logits, labels = logits_of(), mixed()
    with operation_counter() as operations:
        loss_of(name, logits, labels).backward()
    assert operations.waits == []


@pytest.mark.parametrize("name", VARIANTS)
def test_no_operation_runs_per_class_or_per_image(name: str, operation_counter: type[Any]) -> None:
    calls = []
    for images, classes in ((2, 3), (5, 9)):
        logits = torch.randn(images, classes, 4, 6, requires_grad=True)
        labels = torch.randint(0, classes, (images, 8, 12))
        loss_of(name, logits, labels).backward()
        with operation_counter() as operations:
            loss_of(name, logits, labels).backward()
        calls.append(operations.calls)
    assert calls[0] == calls[1]


@pytest.mark.parametrize("name", VARIANTS)
def test_terms_share_what_they_read(name: str, operation_counter: type[Any]) -> None:
    """A term beside the cross entropy neither upsamples the logits nor takes their softmax once more."""
    if name == "cross_entropy":
        return
    batch = LabelledLogits(Logits(logits_of()), mixed(), IGNORED)
    term_of("cross_entropy")(batch)
    with operation_counter() as operations:
        term_of(name)(batch)
    assert "upsample_bilinear2d" not in operations.calls
    assert name == "lovasz" or "_log_softmax" not in operations.calls  # it works where the logits are
