"""The training loop: a trainee, a method, batches and settings in, the best weights and what happened out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.compute.devices import autocast_dtype
from pipeline.compute.random_streams import stream_seed
from pipeline.losses.shared.term import MethodLoss, MethodLossOutput
from pipeline.losses.supervised.cross_entropy import segmentation_loss
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.config import TrainConfig
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer, learning_rate_factor, set_learning_rates
from serving.contract.errors import UserError


@dataclass
class Progress:
    """How far a training is; everything that a resume must restore besides weights and optimiser.

    Attributes:
        iteration: finished iterations.
        contrast_steps: iterations whose loss had the contrast term.
        anchors: anchors over all of them.
        best_miou: best validation mIoU so far, in [0,1]; -1 before the first validation.
        best_iteration: finished iterations when it was reached.
    """

    iteration: int = 0
    contrast_steps: int = 0
    anchors: float = 0.0
    best_miou: float = -1.0
    best_iteration: int = 0


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        miou: validation mIoU in [0,1] of the last iteration's weights.
        best_miou: validation mIoU in [0,1] of the best checkpoint, as measured during training.
        best_iteration: finished iterations at the best checkpoint.
        contrast_steps: iterations whose loss had the contrast term.
        mean_anchors: mean number of anchors over those iterations; 0 without any.
        seconds: wall time of this run of the loop, validations included.
    """

    miou: float
    best_miou: float
    best_iteration: int
    contrast_steps: int
    mean_anchors: float
    seconds: float


class Watcher(Protocol):
    """Where a training reports to: metrics, checkpoints and progress are the caller's business."""

    def step(self, iteration: int) -> None:
        """One iteration is done. Called without synchronising the device."""

    def metrics(self, iteration: int, values: dict[str, float]) -> None:
        """Means since the last call, and the validation mIoU where there was a validation."""

    def checkpoint(self, trainee: Trainee, optimizer: torch.optim.Optimizer, progress: Progress, *, best: bool) -> None:
        """The state after a validation; `best` when its mIoU is the highest so far."""


@dataclass
class RunningMeans:
    """Means of 0-d tensors, summed on their device so that a step never waits for it."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        """Add one value of `name`."""
        value = value.detach().double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def pop(self) -> dict[str, float]:
        """The means so far, and a fresh start. Waits for the device."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


def train(
    trainee: Trainee,
    method: MethodLoss,
    method_config: MethodConfig,
    batches: Iterable[tuple[Tensor, Tensor]],
    validate: Callable[[Segmentor], float],
    config: TrainConfig,
    *,
    seed: int,
    class_weights: Tensor | None,
    ignore_index: int,
    device: torch.device,
    watcher: Watcher,
    log_every: int | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train in place.

    Args:
        trainee: on `device` already.
        method: the contrast term; not called before its warm-up ends, so that until then it costs nothing.
        batches: `(images uint8 [B,3,h,w], labels int64 [B,h,w])` from `progress.iteration` on, one per iteration left.
        validate: mIoU in [0,1] of a segmentor in evaluation mode.
        seed: the branch's seed; anchors are drawn from a stream of (seed, iteration), so that a resume is exact.
        class_weights: `[C]` float32 weights of the cross entropy, or None.
        watcher: is told of every step, of metrics and of checkpoints.
        log_every: iterations between two reports of metrics, besides those of validations; None for none.
        optimizer, progress: state to continue from, or None for a fresh start.

    Raises:
        UserError: the loss is not finite.
    """
    started = time.perf_counter()
    optimizer = optimizer or build_optimizer(trainee, config.optimizer)
    progress = progress or Progress()
    contrast_start = method_config.contrast_start(config.iterations)
    dtype = autocast_dtype(config.precision, device)
    generator = torch.Generator(device=device)
    means = RunningMeans()
    miou = progress.best_miou
    trainee.train()
    for images, labels in batches:
        contrast = contrast_start is not None and progress.iteration >= contrast_start
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        set_learning_rates(optimizer, learning_rate_factor(progress.iteration, config.iterations, config.schedule))
        optimizer.zero_grad(set_to_none=True)
        # Dropout draws from torch's global generator: so that a run and its resume draw alike.
        torch.manual_seed(stream_seed(f"layers of iteration {progress.iteration}", seed))
        normalised, labels = pad_to_stride(
            trainee.segmentor.normalise(images), labels, stride=trainee.segmentor.stride, ignore_index=ignore_index
        )
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            output = trainee(normalised, embed=contrast)
        loss = segmentation_loss(
            output,
            labels,
            ignore_index=ignore_index,
            class_weights=class_weights,
            auxiliary_weight=config.auxiliary_weight,
        )
        means.add("cross_entropy", loss)
        if contrast:
            generator.manual_seed(stream_seed(f"anchors of iteration {progress.iteration}", seed))
            term: MethodLossOutput = method(output, labels, heads=trainee.method_heads, generator=generator)
            loss = loss + method_config.settings.weight * term.loss
            means.add("contrast", term.loss)
            for name, value in term.statistics.items():
                means.add(name, value)
            progress.contrast_steps += 1
        loss.backward()  # type: ignore[no-untyped-call]
        if config.gradient_clip_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(trainee.parameters(), config.gradient_clip_norm)
            means.add("gradient_norm", norm)
        optimizer.step()
        progress.iteration += 1
        watcher.step(progress.iteration)
        validating = progress.iteration % config.validate_every == 0 or progress.iteration == config.iterations
        if validating or (log_every is not None and progress.iteration % log_every == 0):
            contrasted = means.counts.get("contrast", 0)
            values = means.pop()
            _require_finite(values, progress.iteration)
            progress.anchors += values.get("anchors", 0.0) * contrasted
            if not validating:
                watcher.metrics(progress.iteration, values)
                continue
            trainee.eval()
            miou = validate(trainee.segmentor)
            trainee.train()
            best = miou > progress.best_miou
            if best:
                progress.best_miou, progress.best_iteration = miou, progress.iteration
            watcher.metrics(progress.iteration, {**values, "validation_miou": miou})
            watcher.checkpoint(trainee, optimizer, progress, best=best)
    return TrainResult(
        miou=miou,
        best_miou=progress.best_miou,
        best_iteration=progress.best_iteration,
        contrast_steps=progress.contrast_steps,
        mean_anchors=progress.anchors / progress.contrast_steps if progress.contrast_steps else 0.0,
        seconds=time.perf_counter() - started,
    )


def pad_to_stride(images: Tensor, labels: Tensor, *, stride: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Pad at the bottom and right to multiples of `stride`: the papers' 360x480 crops are not multiples of 32.

    Args:
        images: `[B,3,H,W]` normalised; padded with 0, the mean colour.
        labels: `[B,H,W]`; padded with `ignore_index`, so that the padding counts nowhere.
    """
    height, width = labels.shape[-2:]
    padding = (0, -width % stride, 0, -height % stride)
    if not any(padding):
        return images, labels
    return F.pad(images, padding), F.pad(labels, padding, value=ignore_index)


def _require_finite(values: dict[str, float], iteration: int) -> None:
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise UserError(
            f"training: {', '.join(broken)} is not finite at or before iteration {iteration}; nothing after the last "
            "checkpoint was kept. Lower train.optimizer.learning_rate, or set train.precision to fp32"
        )
