"""The training loop: a trainee, an objective, batches and settings in, the best weights and what happened out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from pipeline.compute.devices import autocast_dtype
from pipeline.compute.random_streams import stream_seed
from pipeline.losses.shared.term import LossTerm, TermOutput
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.averaging import WeightAverage
from pipeline.training.config import TrainConfig
from pipeline.training.inputs import network_input
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer, learning_rate_factor, set_learning_rates
from serving.contract.errors import UserError


@dataclass
class Progress:
    """How far a training is; everything that a resume must restore besides weights and optimiser.

    Attributes:
        iteration: finished iterations.
        contrast_steps: iterations whose loss had the method's loss term.
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
        contrast_steps: iterations whose loss had the method's loss term.
        mean_anchors: mean number of anchors over those iterations, 0 without any; None for a term that has no anchors.
        seconds: wall time of this run of the loop, validations included.
    """

    miou: float
    best_miou: float
    best_iteration: int
    contrast_steps: int
    mean_anchors: float | None
    seconds: float


@dataclass(frozen=True)
class Objective:
    """What a training minimises.

    Attributes:
        method: the settings.
        term: its loss term, on the device of the training; not called before its warm-up ends nor after its end, so
            that there it costs nothing.
        supervised: its supervised loss.
    """

    method: MethodConfig
    term: LossTerm
    supervised: SupervisedLoss


@dataclass(frozen=True)
class TrainingData:
    """What a training sees.

    Attributes:
        batches: `(images uint8 [B,3,h,w], labels int64 [B,h,w])` from the first iteration left on, one per iteration.
        validate: mIoU in [0,1] of a segmentor in evaluation mode.
        log_every: iterations between two reports of metrics, besides those of validations; None for none.
        statistics: batches such as those, the same whenever they are iterated over, for the batch statistics of
            averaged weights.
    """

    batches: Iterable[tuple[Tensor, Tensor]]
    validate: Callable[[Segmentor], float]
    log_every: int | None = None
    statistics: Iterable[tuple[Tensor, Tensor]] = ()


@dataclass
class TrainingState:
    """What changes during a training besides the weights.

    Attributes:
        optimizer: of the trainee's parameters.
        progress: how far it is.
        average: of the weights, where the method ships one instead of the last.
    """

    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=Progress)
    average: WeightAverage | None = None


class Recorder(Protocol):
    """Where a training reports to: metrics, checkpoints and progress are the caller's business."""

    def step(self, iteration: int) -> None:
        """One iteration is done. Called without synchronising the device."""

    def metrics(self, iteration: int, values: dict[str, float]) -> None:
        """Means since the last call, and the validation mIoU where there was a validation."""

    def checkpoint(self, trainee: Trainee, shipped: Trainee, state: TrainingState, *, best: bool) -> None:
        """The state after a validation of `shipped`, which is `trainee` unless weights are averaged.

        `best` when its mIoU is the highest so far.
        """


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

    def add_all(self, values: Mapping[str, Tensor]) -> None:
        """Add one value of each name."""
        for name, value in values.items():
            self.add(name, value)

    def pop(self) -> dict[str, float]:
        """The means so far, and a fresh start. Waits for the device."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


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

    Raises:
        UserError: the loss is not finite.
    """
    started = time.perf_counter()
    state = state or TrainingState(build_optimizer(trainee, config.optimizer))
    optimizer, progress = state.optimizer, state.progress
    term_name = "contrast" if objective.method.is_contrastive else "loss_term"
    term_iterations = objective.method.term_iterations(config.iterations)
    dtype = autocast_dtype(config.precision, device)
    ignore_index = objective.supervised.supervision.ignore_index
    generator = torch.Generator(device=device)
    means = RunningMeans()
    miou = progress.best_miou
    trainee.train()
    for images, labels in data.batches:
        with_term = progress.iteration in term_iterations
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        set_learning_rates(optimizer, learning_rate_factor(progress.iteration, config.iterations, config.schedule))
        optimizer.zero_grad(set_to_none=True)
        # Dropout draws from torch's global generator: so that a run and its resume draw alike.
        torch.manual_seed(stream_seed(f"layers of iteration {progress.iteration}", seed))
        normalised, labels = network_input(trainee.segmentor, images, labels, ignore_index=ignore_index)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            output = trainee(normalised, embed=with_term)
        supervised = objective.supervised(output.logits, labels)
        means.add_all(supervised.values)
        loss = supervised.loss
        if with_term:
            generator.manual_seed(stream_seed(f"anchors of iteration {progress.iteration}", seed))
            term: TermOutput = objective.term(output, labels, heads=trainee.term_heads, generator=generator)
            loss = loss + objective.method.settings.weight * term.loss
            means.add_all({term_name: term.loss, **term.statistics})
            progress.contrast_steps += 1
        loss.backward()  # type: ignore[no-untyped-call]
        if config.gradient_clip_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(trainee.parameters(), config.gradient_clip_norm)
            means.add("gradient_norm", norm)
        optimizer.step()
        progress.iteration += 1
        if state.average is not None:
            state.average.update(trainee, progress.iteration)
        recorder.step(progress.iteration)
        validating = progress.iteration % config.validate_every == 0 or progress.iteration == config.iterations
        if validating or (data.log_every is not None and progress.iteration % data.log_every == 0):
            with_anchors = means.counts.get("anchors", 0)
            values = means.pop()
            _require_finite(values, progress.iteration)
            progress.anchors += values.get("anchors", 0.0) * with_anchors
            if not validating:
                recorder.metrics(progress.iteration, values)
                continue
            trainee.eval()
            shipped = trainee
            if state.average is not None and state.average.started:
                seen = _images(data.statistics, trainee.segmentor, device, ignore_index)
                shipped = state.average.apply(trainee, seen, dtype)
            miou = data.validate(shipped.segmentor)
            trainee.train()
            best = miou > progress.best_miou
            if best:
                progress.best_miou, progress.best_iteration = miou, progress.iteration
            recorder.metrics(progress.iteration, {**values, "validation_miou": miou})
            recorder.checkpoint(trainee, shipped, state, best=best)
    has_anchors = objective.method.is_contrastive or not term_iterations
    mean_anchors = progress.anchors / progress.contrast_steps if progress.contrast_steps else 0.0
    return TrainResult(
        miou=miou,
        best_miou=progress.best_miou,
        best_iteration=progress.best_iteration,
        contrast_steps=progress.contrast_steps,
        mean_anchors=mean_anchors if has_anchors else None,
        seconds=time.perf_counter() - started,
    )


def _images(
    batches: Iterable[tuple[Tensor, Tensor]], segmentor: Segmentor, device: torch.device, ignore_index: int
) -> Iterator[Tensor]:
    for images, labels in batches:
        yield network_input(segmentor, images.to(device), labels.to(device), ignore_index=ignore_index)[0]


def _require_finite(values: dict[str, float], iteration: int) -> None:
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise UserError(
            f"training: {', '.join(broken)} is not finite at or before iteration {iteration}; nothing after the last "
            "checkpoint was kept. Lower train.optimizer.learning_rate, or set train.precision to fp32"
        )
