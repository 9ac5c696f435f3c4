"""What supervised terms, averages and a teacher add to a step of the default network, as camvid-cpu trains it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.losses.cases import IGNORE, Sizes, Task
from pipeline.compute.devices import autocast_dtype, keep_large_depthwise_in_float32
from pipeline.losses.cross_entropy.loss import CrossEntropy, CrossEntropyConfig
from pipeline.losses.supervised import SUPERVISED
from pipeline.losses.supervised.loss import SupervisedEntry, SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import Logits, TraineeOutput
from pipeline.models.network.segmentor import build_segmentor
from pipeline.training.assembly import attach_training_heads
from pipeline.training.averaging import AveragingConfig, WeightAverage
from pipeline.training.config import OptimizerConfig
from pipeline.training.helpers.config import TeacherConfig
from pipeline.training.helpers.distillation import Distillation
from pipeline.training.optimisation import build_optimizer

CLIP_NORM = 10.0


class TrainingStepCase:
    """A batch, the default network with its optimiser, and every task that is compared with their step.

    Args:
        sizes: what is measured.
        device: where.
    """

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        generator = torch.Generator(device).manual_seed(0)
        shape = (sizes.step_images, *sizes.step_crop)
        images = torch.randn(shape[0], 3, *shape[1:], generator=generator, device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        blocks = (shape[0], shape[1] // 32, shape[2] // 32)
        labels = torch.randint(0, sizes.step_classes, blocks, generator=generator, device=device)
        self.labels = labels.repeat_interleave(32, 1).repeat_interleave(32, 2)
        term = CrossEntropy(
            CrossEntropyConfig(), num_classes=sizes.step_classes, ignore_index=IGNORE, training_images=1
        )
        segmentor = build_segmentor(ModelConfig(pretrained=False), sizes.step_classes, seed=0)
        self.trainee = attach_training_heads(segmentor, term, auxiliary=False, seed=0).train()
        self.trainee.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.precision = autocast_dtype("auto", device)
        if device.type == "cpu" and self.precision is torch.bfloat16:
            keep_large_depthwise_in_float32(self.trainee)
        self.supervision = Supervision(IGNORE, torch.ones(sizes.step_classes, device=device))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None)

    def _logits(self) -> Tensor:
        with self._autocast():
            logits: Tensor = self.trainee(self.images, embed=False).logits.main
        return logits

    def step(self) -> Task:
        """A whole training step without any of the help: forward, cross entropy, backward, clipping, AdamW."""
        optimizer = build_optimizer(self.trainee, OptimizerConfig(name="adamw", learning_rate=1e-6))
        supervised = SupervisedLoss((), self.supervision)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(supervised(Logits(self._logits()), self.labels).loss)
            torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), CLIP_NORM)
            optimizer.step()

        return run

    def supervised(self, terms: Sequence[str]) -> Task:
        """Forward and backward of the cross entropy with further terms, down to the logits that the head gives."""
        entries = [SupervisedEntry(term, SUPERVISED.resolve(term).Config()) for term in terms]
        supervised = SupervisedLoss(entries, self.supervision)
        with torch.no_grad():
            logits = self._logits().detach()

        def run() -> None:
            leaf = logits.clone().requires_grad_()
            torch.autograd.backward(supervised(Logits(leaf), self.labels).loss)

        return run

    def average_update(self) -> Task:
        """The moving average's update by the weights."""
        average = WeightAverage(AveragingConfig(kind="ema"), self.trainee, 10**6)
        return lambda: average.update(self.trainee, 1)

    def distillation(self) -> Task:
        """The teacher's view of a batch, and both losses forward and backward, to what the head reads and gives."""
        teacher = build_segmentor(ModelConfig(self.sizes.teacher, False), self.sizes.step_classes, seed=1)
        teacher.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        distillation = Distillation(TeacherConfig("(untrained)", 64 * "0"), teacher)
        generator = torch.Generator(self.device).manual_seed(0)
        images = torch.randint(256, self.images.shape, generator=generator, device=self.device, dtype=torch.uint8)
        with torch.no_grad(), self._autocast():
            student = self.trainee(self.images, embed=False)

        def run() -> None:
            logits, features = (each.clone().requires_grad_() for each in (student.logits.main, student.head_input))
            with self._autocast():
                view = distillation.view(images, self.labels, ignore_index=IGNORE)
            output = TraineeOutput(Logits(logits), (), features)
            torch.autograd.backward(distillation.loss(output, view, generator)[0])

        return run
