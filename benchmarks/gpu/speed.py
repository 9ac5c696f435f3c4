"""Steps of the papers' networks: images per second, memory and time by part; the contrast's extra, and each switch.

"as is" steps on batches that lie in ordinary memory, labels as int64; "fed" on those that a training gets: on CUDA
labels as uint8, pinned, copied on a side stream one step ahead.
Also which operations of a step have no deterministic implementation: with `warn_only` torch names them all.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.params import load_params
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.config import OptimizerConfig, TrainConfig
from pipeline.training.faults.finite import FiniteWatch
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer
from pipeline.training.performance.feeding import feed
from pipeline.training.performance.speed import SpeedConfig, backends
from pipeline.training.performance.timing import Stopwatch, clock_of, peak_memory_bytes
from pipeline.training.state import TrainingProgress, TrainingState
from pipeline.training.step import Batch, Objective, TrainingStep

ROOT = Path(__file__).resolve().parents[2]
CLASSES, IGNORED = 19, 255
NETWORKS = {
    "hrnet48": ModelConfig("hrnet_w48", False, "hrnet"),
    "deeplabv3-r101": ModelConfig("resnet101", False, "deeplabv3", output_stride=8),
}
TOY_NETWORKS = {"toy": ModelConfig("mobilenetv3_small_100", False)}
SWITCHES = {
    "as is": SpeedConfig(),
    "cudnn_benchmark": SpeedConfig(cudnn_benchmark=True),
    "fused_optimizer": SpeedConfig(fused_optimizer=True),
    "tf32": SpeedConfig(tf32=True),
    "all": SpeedConfig(True, True, True),
}
CONTRASTS = ("pixel_contrast", "contextrast")


class _Repeated:
    """One batch over and over, as `TrainingBatches` gives batches."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images, self._labels = images, labels

    def __iter__(self) -> Iterator[Batch]:
        return itertools.repeat((self._images, self._labels))

    def compact(self, *, pinned: bool = False) -> Generator[Batch]:
        images, labels = self._images, self._labels.to(torch.uint8)
        while True:
            yield (images.pin_memory(), labels.pin_memory()) if pinned else (images, labels)


@dataclasses.dataclass(frozen=True)
class Rig:
    """What is stepped, and how often.

    Attributes:
        images: in a batch.
        crop: height and width in pixels.
        warm_up: steps that do not count.
        steps: that do.
        name: of the device.
    """

    images: int
    crop: tuple[int, int]
    warm_up: int
    steps: int
    name: Literal["cpu", "cuda"]

    @property
    def device(self) -> torch.device:
        """Where."""
        return torch.device(self.name)

    def batch(self) -> Batch:
        """Noise, labelled in blocks of 32x32."""
        generator = torch.Generator().manual_seed(0)
        height, width = self.crop
        pixels = torch.randint(0, 256, (self.images, 3, height, width), dtype=torch.uint8, generator=generator)
        blocks = torch.randint(0, CLASSES, (self.images, height // 32, width // 32), generator=generator)
        return pixels, blocks.repeat_interleave(32, 1).repeat_interleave(32, 2)

    def step(
        self, model: ModelConfig, method: MethodConfig, speed: SpeedConfig, *, fed: bool = False
    ) -> tuple[Any, Stopwatch]:
        """A call that takes a step, and the stopwatch that it marks."""
        config = TrainConfig(
            iterations=10_000,
            batch_size=self.images,
            device=self.name,
            optimizer=OptimizerConfig("sgd", 0.01),
            gradient_clip_norm=None,
            speed=speed,
        )
        term = build_loss_term(method, num_classes=CLASSES, ignore_index=IGNORED, training_images=2975).to(self.device)
        trainee = attach_training_heads(build_segmentor(model, CLASSES, seed=0), term, auxiliary=True, seed=0)
        trainee.to(self.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        supervision = Supervision(IGNORED, None, auxiliary_weight=config.auxiliary_weight)
        watch = Stopwatch(clock_of(self.device))
        step = TrainingStep(
            trainee,
            Objective(method, term, SupervisedLoss(method.supervised, supervision)),
            config,
            seed=0,
            device=self.device,
            watch=FiniteWatch(self.device, deferred=self.device.type != "cpu"),
            mark=watch.mark,
        )
        half = TrainingProgress(iteration=config.iterations // 2)  # past every warm-up, so that the contrast counts
        state = TrainingState(build_optimizer(trainee, config.optimizer, fused=speed.fused_optimizer), half)
        batches: Iterator[Batch] = itertools.repeat(self.batch())
        if fed:
            batches = iter(feed(_Repeated(*self.batch()), self.device))
        return lambda: step([next(batches)], state), watch

    def measure(
        self, model: ModelConfig, method: MethodConfig, speed: SpeedConfig, *, fed: bool = False
    ) -> dict[str, Any]:
        """Images per second, milliseconds by part (medians over the steps) and peak memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with backends(speed, deterministic=False):
            step, watch = self.step(model, method, speed, fed=fed)
            parts: list[Mapping[str, float]] = []
            seconds = []
            for _ in range(self.warm_up + self.steps):
                watch.mark("between")
                watch.pop()
                started = time.perf_counter()
                step()
                parts.append(watch.pop())  # waits for the device
                seconds.append(time.perf_counter() - started)
        parts, seconds = parts[self.warm_up :], seconds[self.warm_up :]
        return {
            "images_per_second": self.images / statistics.median(seconds),
            "milliseconds": {name: 1000 * statistics.median(part[name] for part in parts) for name in parts[0]},
            "peak_memory_bytes": peak_memory_bytes(self.device),
        }

    def without_deterministic(self, model: ModelConfig, method: MethodConfig) -> list[str]:
        """What torch says of the operations of a step that have no deterministic implementation."""
        step, _ = self.step(model, method, SpeedConfig())
        strict = torch.are_deterministic_algorithms_enabled()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.use_deterministic_algorithms(True, warn_only=True)
            try:
                step()
            finally:
                torch.use_deterministic_algorithms(strict)
        return sorted({str(each.message).partition(". ")[0] for each in told if "determinis" in str(each.message)})


def measure(device: Literal["cpu", "cuda"], *, toy: bool) -> dict[str, Any]:
    """Measure every network, plain with every switch and with every contrast."""
    rig = Rig(2, (64, 96), 1, 2, device) if toy else Rig(8, (512, 1024), 3, 8, device)
    methods = load_params(ROOT / "params.yaml").methods
    found: dict[str, Any] = {}
    for name, model in (TOY_NETWORKS if toy else NETWORKS).items():
        rows = {said: rig.measure(model, methods["cross_entropy"], speed) for said, speed in SWITCHES.items()}
        rows["fed"] = rig.measure(model, methods["cross_entropy"], SpeedConfig(), fed=True)
        for method in CONTRASTS:
            rows[method] = rig.measure(model, methods[method], SpeedConfig())
            slower = rows["as is"]["images_per_second"] / rows[method]["images_per_second"]
            rows[method]["extra_share_of_the_step"] = slower - 1
        found[name] = rows
    smallest = TOY_NETWORKS["toy"]
    found["not_deterministic"] = {
        name: rig.without_deterministic(smallest, methods[name]) for name in ("cross_entropy", *CONTRASTS)
    }
    return found
