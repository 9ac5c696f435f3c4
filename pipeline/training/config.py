"""Section `train` of params.yaml: the loop."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.data.reading.config import AugmentConfig
from pipeline.training.performance.speed import SpeedConfig
from serving.contract.schema import Require


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser.

    Attributes:
        name: `sgd` (with momentum, the papers' choice) or `adamw`.
        learning_rate: peak learning rate.
        weight_decay: applied to weights of convolutions and linear layers; not to biases and norms.
        momentum: SGD's momentum; without effect on AdamW.
        backbone_factor: the pretrained backbone learns at this factor of the learning rate.
    """

    name: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    backbone_factor: float = 1.0

    def __post_init__(self) -> None:
        require = Require()
        require(0 < self.learning_rate < 10, f"learning_rate: expected in (0, 10), got {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay: expected at least 0, got {self.weight_decay}")
        require(0 <= self.momentum < 1, f"momentum: expected in [0, 1), got {self.momentum}")
        require(0 <= self.backbone_factor <= 10, f"backbone_factor: expected in [0, 10], got {self.backbone_factor}")
        require.done()


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the iterations: linear warm-up, then `(1 - progress) ** power`.

    Attributes:
        power: exponent of the polynomial decay (0.9 in the papers).
        warmup_fraction: share of the iterations over which the rate rises linearly.
    """

    power: float = 0.9
    warmup_fraction: float = 0.05

    def __post_init__(self) -> None:
        require = Require()
        require(self.power >= 0, f"power: expected at least 0, got {self.power}")
        require(0 <= self.warmup_fraction < 1, f"warmup_fraction: expected in [0, 1), got {self.warmup_fraction}")
        require.done()


@dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    Attributes:
        iterations: optimiser steps.
        batch_size: images per step.
        device: `auto` takes CUDA where torch sees it.
        threads: CPU threads of torch; results are bit-reproducible at a fixed count and differ between counts.
        precision: `auto` takes bf16 autocast on GPUs that have it and on CPUs with native bf16, else fp32.
        gradient_clip_norm: largest norm of the gradient, or null for no limit.
        class_weights: weights of the cross entropy: `none`, or `inverse_sqrt` of the class frequencies
            (normalised to a mean of 1 over the classes, at most 5).
        auxiliary_weight: weight of auxiliary classifiers where the architecture has one.
        validate_every: iterations between validations; the last iteration is always validated.
        checkpoint: which checkpoint ships: `best` by validation mIoU, or `last`.
        workers: processes that read and augment; 0 does it in the training process, null takes one per core but two (at
            most 16) on CUDA and 0 on the CPU.
        checkpoint_every: iterations between two states that an interrupted training goes on from; one more is kept
            after every validation.
        checkpoints_kept: how many of those states stay on disk, the last ones.
        skip_budget: so many pairs may turn out unreadable and are left out, with a warning; one more ends the training.
        accumulate: batches whose mean gradient makes one step.
        processes: ranks that share each batch, one per GPU, or of `threads` threads each on the CPU; `workers` and the
            cache of decoded images are those of each.
        speed: what makes a GPU faster and changes bits.
        deterministic: on CUDA too a training repeats its bits, or fails naming the operation that cannot.
    """

    iterations: int = 300
    batch_size: int = 8
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 2
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    gradient_clip_norm: float | None = 10.0
    class_weights: Literal["none", "inverse_sqrt"] = "none"
    auxiliary_weight: float = 0.4
    validate_every: int = 100
    checkpoint: Literal["best", "last"] = "best"
    workers: int | None = None
    checkpoint_every: int = 50
    checkpoints_kept: int = 2
    skip_budget: int = 0
    accumulate: int = 1
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    deterministic: bool = False
    processes: int = 1

    def __post_init__(self) -> None:
        require = Require()
        positive = ("iterations", "batch_size", "threads", "validate_every")
        for name in (*positive, "checkpoint_every", "checkpoints_kept", "accumulate", "processes"):
            require(getattr(self, name) >= 1, f"{name}: expected at least 1, got {getattr(self, name)}")
        require(self.skip_budget >= 0, f"skip_budget: expected at least 0, got {self.skip_budget}")
        require(self.workers is None or self.workers >= 0, f"workers: expected null or at least 0, got {self.workers}")
        require(self.auxiliary_weight >= 0, f"auxiliary_weight: expected at least 0, got {self.auxiliary_weight}")
        require(
            self.processes < 1 or self.batch_size % self.processes == 0,
            f"processes: {self.processes} cannot share a batch of {self.batch_size} images evenly; set batch_size to a "
            "multiple of it",
        )
        if self.gradient_clip_norm is not None:
            require(self.gradient_clip_norm > 0, f"gradient_clip_norm: expected above 0, got {self.gradient_clip_norm}")
        require(
            not (self.deterministic and self.speed.cudnn_benchmark),
            "deterministic: speed.cudnn_benchmark may choose other algorithms in every run; set one of them to false",
        )
        require.done()


# They change no weight.
_WITHOUT_EFFECT = ("checkpoint_every", "checkpoints_kept")
# They came later: left out where they change nothing, so that hashes of settings recorded before still hold.
_LATER = ("skip_budget", "accumulate", "speed", "deterministic", "processes")


def decisive_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that can change a trained weight, as plain values, for hashes of what a training depends on."""
    values = dataclasses.asdict(config)
    defaults = TrainConfig()
    for name in _WITHOUT_EFFECT:
        del values[name]
    values["workers"] = config.workers or 0  # null came later, and no batch depends on it
    for name in _LATER:
        if getattr(config, name) == getattr(defaults, name):
            del values[name]
    if "speed" in values and not config.speed.compile:
        del values["speed"]["compile"]
    return values
