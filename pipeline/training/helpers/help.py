"""What a step of the training gets from helpers: rows for the forward pass, and losses of what comes out of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pipeline.data.reading.unlabelled import UnlabelledBatch
from pipeline.losses.shared.distributed import sum_over_ranks
from pipeline.losses.shared.pseudo_labels import pseudo_label_loss
from pipeline.losses.shared.resolution import NO_CLASS
from pipeline.losses.shared.unreliable import Unreliable
from pipeline.models.network.head import Logits, TraineeOutput
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.helpers.distillation import Distillation, TeacherView
from pipeline.training.helpers.mean_teacher import MeanTeacher, StudentView


@dataclass(frozen=True)
class HelpOutput:
    """What helpers add to a step.

    Attributes:
        loss: scalar, weighted.
        statistics: name -> detached 0-d tensor.
    """

    loss: Tensor
    statistics: dict[str, Tensor]


@dataclass(frozen=True)
class HelpedStep:
    """One batch with what its helpers made of it.

    Attributes:
        helpers: whose they are.
        images: `[B+U,3,H,W]` normalised: the labelled crops, then the unlabelled ones.
        labels: `[B,H,W]` int64 of the labelled crops.
        ignore_index: label that counts nowhere.
        view: of the unlabelled crops, where there are any.
        taught: what the larger teacher says of the labelled crops, where there is one.
    """

    helpers: Helpers
    images: Tensor
    labels: Tensor
    ignore_index: int
    view: StudentView | None = None
    taught: TeacherView | None = None

    def labelled(self, output: TraineeOutput) -> TraineeOutput:
        """What came out for the labelled crops."""
        return output if self.view is None else _rows(output, slice(len(self.labels)))

    def loss(self, output: TraineeOutput, generator: torch.Generator) -> HelpOutput:
        """The losses of the helpers, of what came out for the whole batch; random choices from `generator`."""
        total, statistics = output.logits.main.new_zeros((), dtype=torch.float32), {}
        with torch.autocast(self.labels.device.type, enabled=False):
            if self.helpers.mean_teacher is not None and self.view is not None:
                loss = pseudo_label_loss(output.logits.main[len(self.labels) :], self.view.target)
                inside = sum_over_ranks(self.view.target.inside.sum()).clamp(min=1)
                sure = sum_over_ranks((self.view.target.classes != NO_CLASS).sum()) / inside
                total = total + self.helpers.mean_teacher.config.weight * loss
                statistics = {"pseudo_label": loss.detach(), "confident_share": sure}
            if self.helpers.distillation is not None and self.taught is not None:
                loss, parts = self.helpers.distillation.loss(self.labelled(output), self.taught, generator)
                total = total + loss
                statistics |= parts
        return HelpOutput(total, statistics)

    def for_term(self, output: TraineeOutput) -> tuple[TraineeOutput, Tensor, dict[str, Unreliable]]:
        """Output, labels and further arguments for the method's loss term."""
        teacher = self.helpers.mean_teacher
        if self.view is None or teacher is None or not teacher.config.contrast:
            return self.labelled(output), self.labels, {}
        target = self.view.target
        classes = target.classes.where(target.classes != NO_CLASS, self.ignore_index)
        further = {}
        if target.unlikely is not None:
            nothing = target.unlikely.new_zeros(len(self.labels), *target.unlikely.shape[1:])
            unlikely = torch.cat([nothing, target.unlikely])
            further["unreliable"] = Unreliable(unlikely, teacher.config.unreliable_negatives)
        return output, torch.cat([self.labels, classes]), further


@dataclass
class Helpers:
    """The helpers of a training.

    Attributes:
        mean_teacher: on unlabelled images, or None.
        unlabelled: their batches, one per labelled batch, from the first iteration left on.
        distillation: from a larger teacher, or None.
    """

    mean_teacher: MeanTeacher | None = None
    distillation: Distillation | None = None
    unlabelled: Iterator[UnlabelledBatch] = field(default_factory=lambda: iter(()))

    @property
    def modules(self) -> nn.ModuleDict:
        """Everything of theirs that a resume must restore."""
        return nn.ModuleDict({} if self.mean_teacher is None else {"mean_teacher": self.mean_teacher})

    def step(self, images: Tensor, normalised: Tensor, labels: Tensor, ignore_index: int) -> HelpedStep:
        """Begin a step. Call it under the training's autocast.

        Args:
            images: uint8 `[B,3,h,w]`, the labelled crops.
            normalised: `[B,3,H,W]`, the labelled crops as the student takes them.
            labels: `[B,H,W]` int64.
            ignore_index: label that counts nowhere.
        """
        taught = None
        if self.distillation is not None:
            taught = self.distillation.view(images, labels, ignore_index=ignore_index)
        if self.mean_teacher is None:
            return HelpedStep(self, normalised, labels, ignore_index, taught=taught)
        view = self.mean_teacher.view(next(self.unlabelled), ignore_index=ignore_index)
        everything = torch.cat([normalised, view.images]).contiguous(memory_format=torch.channels_last)
        return HelpedStep(self, everything, labels, ignore_index, view, taught)

    def update(self, trainee: Trainee) -> None:
        """After an optimiser step."""
        if self.mean_teacher is not None:
            self.mean_teacher.update(trainee.segmentor)


def _rows(output: TraineeOutput, rows: slice) -> TraineeOutput:
    return TraineeOutput(
        Logits(output.logits.main[rows], tuple(each[rows] for each in output.logits.auxiliary)),
        tuple(each[rows] for each in output.embeddings),
        None if output.head_input is None else output.head_input[rows],
    )
