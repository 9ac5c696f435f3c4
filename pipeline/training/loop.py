"""The training loop: a trainee, an objective, batches and settings in, the best weights and what happened out."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pipeline.losses.shared.distributed import world_size
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.config import TrainConfig
from pipeline.training.faults.finite import FiniteWatch
from pipeline.training.faults.memory import is_out_of_memory, largest_batch, out_of_memory
from pipeline.training.faults.signals import TrainingStopped
from pipeline.training.inputs import network_input
from pipeline.training.optimisation import build_optimizer
from pipeline.training.performance.speed import compiler_failure, is_compiler_failure
from pipeline.training.performance.timing import Stopwatch, clock_of
from pipeline.training.state import TrainingState
from pipeline.training.step import Batch, Objective, TrainingStep
from serving.contract.errors import UserError


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        miou: validation mIoU in [0,1] of the last iteration's weights.
        best_miou: validation mIoU in [0,1] of the best checkpoint, as measured during training.
        best_iteration: finished iterations at the best checkpoint.
        contrast_steps: iterations whose loss had the method's loss term.
        mean_anchors: mean number of anchors over those iterations, 0 without any; None for a term that has no anchors.
        seconds: wall time of this run of the loop, validations included.
        left_out: pair that could not be read -> why.
    """

    miou: float
    best_miou: float
    best_iteration: int
    contrast_steps: int
    mean_anchors: float | None
    seconds: float
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingData:
    """What a training sees.

    Attributes:
        batches: `(images uint8 [B,3,h,w], labels int64 [B,h,w])` from the first iteration left on, as many per
            iteration as gradients are accumulated over.
        validate: mIoU in [0,1] of a segmentor in evaluation mode.
        log_every: iterations between two reports of metrics, besides those of validations; None for none.
        statistics: batches such as those, the same whenever they are iterated over, for the batch statistics of
            averaged weights.
        names: the images of an iteration (from 0), for messages.
    """

    batches: Iterable[Batch]
    validate: Callable[[Segmentor], float]
    log_every: int | None = None
    statistics: Iterable[Batch] = ()
    names: Callable[[int], list[str]] = lambda iteration: []


class Recorder(Protocol):
    """Where a training reports to: metrics, checkpoints and progress are the caller's business."""

    def step(self, iteration: int) -> None:
        """One iteration is done. Called without synchronising the device."""

    def metrics(self, iteration: int, values: dict[str, float]) -> None:
        """Means since the last call, and the validation mIoU where there was a validation."""

    def validated(self, shipped: Trainee, *, best: bool) -> None:
        """A validation of `shipped`, the trainee or one with averaged weights; `best`: the highest mIoU so far."""

    def save(self, trainee: Trainee, state: TrainingState) -> None:
        """Keep the state to go on from."""

    def time(self, iteration: int, seconds: dict[str, float]) -> None:
        """Seconds of each part of the training since the last call."""

    def not_finite(self, iteration: int, images: list[str], values: dict[str, float]) -> Path:
        """Keep what is known of the batch after `iteration` finished iterations; the file that holds it."""


def train(
    trainee: Trainee,
    objective: Objective,
    data: TrainingData,
    config: TrainConfig,
    *,
    seed: int,
    device: torch.device,
    recorder: Recorder,
    state: TrainingState | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train in place.

    Args:
        trainee: on `device` already.
        objective: what is minimised.
        data: what is seen.
        config: the loop's settings.
        seed: the branch's seed; anchors are drawn from a stream of (seed, iteration), so that a resume is exact.
        device: where it runs.
        recorder: is told of every step, of metrics and of checkpoints.
        state: to continue from, or None for a fresh start.
        stop: whether to end in order, after the step it is in.

    Raises:
        UserError: the loss is not finite, or the first step does not fit into memory.
        TrainingStopped: as `stop` asked for, the state saved.
    """
    started = time.perf_counter()
    state = state or TrainingState(build_optimizer(trainee, config.optimizer))
    progress = state.progress
    stopwatch = Stopwatch(clock_of(device))
    watch = FiniteWatch(device, deferred=device.type != "cpu")
    step = TrainingStep(trainee, objective, config, seed=seed, device=device, watch=watch, mark=stopwatch.mark)
    validation = _Validation(trainee, data, step, device, objective.supervised.supervision.ignore_index)

    def require_finite() -> None:
        first = watch.first()
        values = state.means.means()
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if first is not None or broken:
            iteration = first if first is not None else progress.iteration - 1
            path = recorder.not_finite(iteration, data.names(iteration), values)
            raise _not_finite(broken or ["the loss"], iteration, exact=first is not None, path=path)

    def report() -> float | None:
        """Metrics, and the mIoU where a validation is due; nothing has changed where that is broken off."""
        due = _validation_due(progress.iteration, config)
        require_finite()
        values = state.means.means()
        miou = None
        if due:
            shipped = validation.shipped(state)
            miou = data.validate(shipped.segmentor)
            trainee.train()
            best = miou > progress.best_miou
            if best:
                progress.best_miou, progress.best_iteration = miou, progress.iteration
            recorder.validated(shipped, best=best)
            stopwatch.mark("validation")
        progress.anchors += values.get("anchors", 0.0) * state.means.counts.get("anchors", 0)
        state.means.clear()
        progress.reported = True
        recorder.metrics(progress.iteration, values if miou is None else {**values, "validation_miou": miou})
        recorder.time(progress.iteration, stopwatch.pop())
        return miou

    def save() -> None:
        require_finite()
        recorder.save(trainee, state)
        stopwatch.mark("checkpoint")

    miou = None
    trainee.train()
    try:
        if not progress.reported:
            miou = report()
        first_step = True
        for parts in _grouped(data.batches, config.accumulate):
            stopwatch.mark("data_wait")
            finite = _first_step(step, parts, state, config) if first_step else step(parts, state)
            first_step = False
            if not finite:
                require_finite()
            recorder.step(progress.iteration)
            due = _validation_due(progress.iteration, config)
            logging = data.log_every is not None and progress.iteration % data.log_every == 0
            progress.reported = not (due or logging)
            if stop():
                raise TrainingStopped
            if not progress.reported:
                miou = report()
            if (due or progress.iteration % config.checkpoint_every == 0) and progress.iteration < config.iterations:
                save()
    except TrainingStopped:
        save()
        raise
    assert miou is not None, "the last iteration is validated"
    has_anchors = objective.method.is_contrastive or not step.term_iterations
    mean_anchors = progress.anchors / progress.contrast_steps if progress.contrast_steps else 0.0
    return TrainResult(
        miou=miou,
        best_miou=progress.best_miou,
        best_iteration=progress.best_iteration,
        contrast_steps=progress.contrast_steps,
        mean_anchors=mean_anchors if has_anchors else None,
        seconds=time.perf_counter() - started,
        left_out=progress.left_out,
    )


@dataclass(frozen=True)
class _Validation:
    trainee: Trainee
    data: TrainingData
    step: TrainingStep
    device: torch.device
    ignore_index: int

    def shipped(self, state: TrainingState) -> Trainee:
        """The trainee, or that with averaged weights where there are any, in evaluation mode."""
        self.trainee.eval()
        if state.average is None or not state.average.started:
            return self.trainee
        return state.average.apply(self.trainee, self._images(), self.step.dtype)

    def _images(self) -> Iterator[Tensor]:
        segmentor = self.trainee.segmentor
        for images, labels in self.data.statistics:
            images, labels = images.to(self.device), labels.to(self.device)
            yield network_input(segmentor, images, labels, ignore_index=self.ignore_index)[0]


def _validation_due(iteration: int, config: TrainConfig) -> bool:
    return iteration % config.validate_every == 0 or iteration == config.iterations


def _grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while parts := list(itertools.islice(iterator, size)):
        yield parts


def _first_step(step: TrainingStep, parts: list[Batch], state: TrainingState, config: TrainConfig) -> bool:
    """The step, or one message saying which batch would fit into memory."""
    try:
        return step(parts, state)
    except (RuntimeError, MemoryError) as error:
        if "deterministic" in str(error) and config.deterministic:
            raise UserError(
                f"train.deterministic: {str(error).splitlines()[0]}; set it to false, or train on the CPU, where every "
                "operation repeats its bits"
            ) from error
        if config.speed.compile and is_compiler_failure(error):
            raise compiler_failure(error) from error
        if not is_out_of_memory(error):
            raise
    # Only now: while the error is handled, its stack holds what the step had allocated.
    images, labels = parts[0]
    if world_size() > 1:  # the other ranks are in the step
        raise out_of_memory(config.batch_size, config.augment.crop, None, accumulate=config.accumulate)
    fits = largest_batch(len(images), lambda size: step.attempt(images[:size], labels[:size], state))
    raise out_of_memory(len(images), config.augment.crop, fits, accumulate=config.accumulate)


def _not_finite(broken: list[str], iteration: int, *, exact: bool, path: Path) -> UserError:
    where = "at" if exact else "at or before"
    return UserError(
        f"training: {', '.join(broken)} is not finite {where} iteration {iteration + 1}; nothing after the last "
        f"checkpoint was kept, and {path} names the images of the batch. Lower train.optimizer.learning_rate, or set "
        "train.precision to fp32"
    )
