"""What every term must bear: degenerate batches, autocast, gradients where they belong, any device, no waiting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses import LOSSES
from pipeline.losses.shared.term import LossTerm, TermOutput
from pipeline.models.network.head import Logits, Taps, TraineeOutput
from tests.pipeline.conftest import HostWaits

DIM = 8
SIZES = ((12, 16), (6, 8), (3, 4))  # strides 4, 8 and 16 of a 48 x 64 image
ANCHORS = {"max_views": 3, "max_samples": 300, "embedding_dim": DIM}
LAYERS = {"embedding_dim": DIM, "layer_weights": (1.0, 0.7, 0.4), "positives_per_class": 20}
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "cross_entropy": ("cross_entropy", {}),
    "pixel_contrast": ("pixel_contrast", ANCHORS),
    "pixel_contrast of rare classes": ("pixel_contrast", {**ANCHORS, "max_views": 100, "min_pixels": 2}),
    "pixel_contrast with region memory": ("pixel_contrast", {**ANCHORS, "memory": "region"}),
    "pixel_contrast with memory": ("pixel_contrast", {**ANCHORS, "memory": "both"}),
    "pixel_contrast with semi-hard memory": ("pixel_contrast", {**ANCHORS, "memory": "both", "semi_hard": True}),
    "contextrast": ("contextrast", LAYERS),
    "contextrast of the predicted": ("contextrast", {**LAYERS, "negatives": "predicted"}),
    "contextrast of pure cells": ("contextrast", {**LAYERS, "purity": 0.5}),
    "contextrast_pp": ("contextrast_pp", LAYERS),
    "contextrast_pp of pure cells": ("contextrast_pp", {**LAYERS, "purity": 0.5}),
}
CONTRASTIVE = [name for name, (loss, _) in VARIANTS.items() if loss != "cross_entropy"]


@dataclass
class Case:
    """A term with its heads, and the features that its embeddings are projected from."""

    term: LossTerm
    heads: nn.ModuleDict
    backbone: nn.Conv2d
    projections: nn.ModuleList
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def run(self, labels: Tensor, predictions: Tensor | None = None, seed: int = 0) -> TermOutput:
        noise = torch.Generator().manual_seed(seed)
        features = self.backbone(torch.randn(len(labels), 3, 12, 16, generator=noise))
        sizes = SIZES if self.term.taps is Taps.STAGES else SIZES[:1] if self.term.taps is Taps.HEAD_INPUT else ()
        embeddings = tuple(
            F.normalize(project(F.adaptive_avg_pool2d(features, size)), dim=1)
            for project, size in zip(self.projections, sizes, strict=False)
        )
        if predictions is None:
            logits = torch.randn(len(labels), self.term.num_classes, 12, 16, generator=noise)
        else:
            logits = F.one_hot(predictions, self.term.num_classes).permute(0, 3, 1, 2).float()
        return self.term(TraineeOutput(Logits(logits), embeddings), labels, heads=self.heads, generator=self.generator)


def case_of(name: str, num_classes: int = 5) -> Case:
    loss, config = VARIANTS[name]
    kind = LOSSES.resolve(loss)
    term = kind(kind.Config(**config), num_classes=num_classes, ignore_index=255, training_images=6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        projections = nn.ModuleList(nn.Conv2d(6, DIM, 1) for _ in SIZES)
        return Case(term, term.build_heads(len(SIZES)), nn.Conv2d(3, 6, 1), projections)


def mixed(images: int = 2, classes: int = 5, seed: int = 0) -> Tensor:
    coarse = torch.randint(0, classes, (images, 6, 8), generator=torch.Generator().manual_seed(seed))
    return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)


def at_stride_4(labels: Tensor) -> Tensor:
    return labels[:, 2::4, 2::4]


def scattered() -> Tensor:
    """One feature pixel per class, everything else ignored."""
    labels = torch.full((2, 48, 64), 255)
    for label in range(5):
        labels[0, 8 * label : 8 * label + 4, 4:8] = label
    return labels


def in_one_image_only() -> Tensor:
    labels = torch.zeros(2, 48, 64, dtype=torch.int64)
    labels[0, :24, :32] = 3
    return labels


BATCHES = {
    "all ignored": torch.full((2, 48, 64), 255),
    "one class": torch.zeros(2, 48, 64, dtype=torch.int64),
    "one class, the last": torch.full((2, 48, 64), 4),
    "one image": mixed(1),
    "one pixel per class": scattered(),
    "a class in one image only": in_one_image_only(),
    "mixed": mixed(),
}
ZERO = ("all ignored", "one class", "one class, the last")  # nothing to contrast with


def gradients(case: Case) -> dict[str, Tensor]:
    modules = {"backbone": case.backbone, "projections": case.projections, "heads": case.heads}
    return {
        f"{prefix}.{name}": parameter.grad
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def test_every_registered_loss_is_tested_here() -> None:
    assert {loss for loss, _ in VARIANTS.values()} == set(LOSSES)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("labels", BATCHES)
@pytest.mark.parametrize("prediction", ["wrong and right", "perfect", "all wrong"])
def test_degenerate_batches(name: str, labels: str, prediction: str) -> None:
    case, batch = case_of(name), BATCHES[labels]
    predictions = None
    if prediction != "wrong and right":
        predictions = at_stride_4(batch).where(at_stride_4(batch) != 255, 0)
        if prediction == "all wrong":
            predictions = (predictions + 1) % 5
    for step in range(3):  # a bank is empty, filling, and in use
        result = case.run(batch, predictions, seed=step)
        assert result.loss.shape == ()
        assert result.loss.dtype == torch.float32
        assert result.loss.isfinite()
        if labels in ZERO or name == "cross_entropy":
            assert result.loss.item() == 0
        if result.loss.requires_grad:
            result.loss.backward()
        for parameter, gradient in gradients(case).items():
            assert gradient.isfinite().all(), parameter
            if labels in ZERO:
                assert gradient.eq(0).all(), parameter
        assert result.statistics["anchors"] >= 0
        for statistic, value in result.statistics.items():
            assert value.isfinite(), statistic
            assert value.shape == (), statistic
            assert not value.requires_grad, statistic
    if name != "cross_entropy":
        assert result.loss.requires_grad
        assert gradients(case)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_no_anchor_is_a_logged_zero(name: str) -> None:
    result = case_of(name).run(BATCHES["all ignored"])
    assert result.statistics["anchors"].item() == 0
    assert result.statistics["class_share"].item() == 0


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_gradients_reach_heads_and_backbone_and_the_bank_has_none(name: str) -> None:
    case = case_of(name)
    for step in range(2):
        result = case.run(mixed(seed=step), seed=step)
    assert result.loss.item() > 0
    result.loss.backward()
    assert case.backbone.weight.grad.abs().sum() > 0
    assert case.projections[0].weight.grad.abs().sum() > 0
    assert not list(case.term.parameters())
    assert not any(buffer.requires_grad for buffer in case.term.buffers())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONTRASTIVE)
def test_autocast(name: str, dtype: torch.dtype) -> None:
    """The loss of half-precision embeddings is the float32 loss of the same numbers."""
    results = []
    for autocast in (True, False):
        case = case_of(name)
        for step in range(2):
            labels = mixed(seed=step)
            noise = torch.Generator().manual_seed(step)
            embeddings = [F.normalize(torch.randn(2, DIM, *s, generator=noise), dim=1).to(dtype) for s in SIZES]
            embeddings = [e.requires_grad_() for e in embeddings[: 3 if case.term.taps is Taps.STAGES else 1]]
            logits = torch.randn(2, 5, 12, 16, generator=noise).to(dtype)
            output = TraineeOutput(Logits(logits), tuple(e if autocast else e.float() for e in embeddings))
            with torch.autocast("cpu", dtype=dtype, enabled=autocast):
                result = case.term(output, labels, heads=case.heads, generator=case.generator)
        result.loss.backward()
        assert result.loss.dtype == torch.float32
        for embedding in embeddings:
            assert embedding.grad.dtype == dtype
            assert embedding.grad.isfinite().all()
        results.append(result.loss)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_steps_repeat_exactly(name: str) -> None:
    losses = []
    for _ in range(2):
        case = case_of(name)
        losses.append([case.run(mixed(seed=step), seed=step).loss.item() for step in range(3)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_global_random_state_is_untouched(name: str) -> None:
    case = case_of(name)
    before = torch.get_rng_state()
    case.run(mixed())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", VARIANTS)
def test_everything_is_created_on_the_device_of_the_batch(name: str) -> None:
    """With another default device, whatever is created without naming its device cannot be used with the batch."""
    case = case_of(name)
    for step in range(2):
        embeddings = [F.normalize(torch.randn(2, DIM, *size), dim=1).requires_grad_() for size in SIZES]
        count = {Taps.STAGES: 3, Taps.HEAD_INPUT: 1, Taps.NONE: 0}[case.term.taps]
        output = TraineeOutput(Logits(torch.randn(2, 5, 12, 16)), tuple(embeddings[:count]))
        labels = mixed(seed=step)
        with torch.device("meta"):
            result = case.term(output, labels, heads=case.heads, generator=case.generator)
            if result.loss.requires_grad:
                result.loss.backward()
        assert result.loss.device.type == "cpu"
        assert all(value.device.type == "cpu" for value in result.statistics.values())


def operations_of(counter: type[Any], name: str, images: int, classes: int) -> Any:
    case = case_of(name, classes)
    case.run(mixed(images, classes))
    with counter() as operations:
        result = case.run(mixed(images, classes), seed=1)
        if result.loss.requires_grad:
            result.loss.backward()
    return operations


@pytest.mark.parametrize("name", VARIANTS)
def test_the_host_waits_at_most_once_per_step(name: str, operation_counter: type[Any]) -> None:
    waits = operations_of(operation_counter, name, 2, 5).waits
    assert len(waits) <= (1 if name.startswith("pixel_contrast") else 0), waits


@pytest.mark.parametrize("name", VARIANTS)
def test_no_operation_runs_per_class_or_per_image(name: str, operation_counter: type[Any]) -> None:
    few, many = (operations_of(operation_counter, name, *size) for size in ((2, 3), (7, 12)))
    assert few.calls == many.calls


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
@pytest.mark.parametrize("name", CONTRASTIVE)
def test_on_cuda_the_host_waits_at_most_once(name: str, host_waits: HostWaits) -> None:
    case = case_of(name)
    case.term.cuda()
    case.heads.cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    embeddings = [F.normalize(torch.randn(2, DIM, *size, device="cuda"), dim=1).requires_grad_() for size in SIZES]
    output = TraineeOutput(
        Logits(torch.randn(2, 5, 12, 16, device="cuda")), tuple(embeddings[: 3 if case.term.taps is Taps.STAGES else 1])
    )
    labels = mixed().cuda()
    case.term(output, labels, heads=case.heads, generator=generator).loss.backward()
    torch.cuda.synchronize()
    with host_waits() as waits:
        case.term(output, labels, heads=case.heads, generator=generator).loss.backward()
    assert len(waits) <= (1 if name.startswith("pixel_contrast") else 0), waits
