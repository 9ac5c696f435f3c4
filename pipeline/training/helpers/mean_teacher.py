"""A mean teacher: an average of the student says what unlabelled images show; the student learns what it is sure of.

Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv 1703.01780. The student sees a harder
view of each image than the teacher, as in FixMatch, mixed by CutMix (`pipeline.losses.shared.pseudo_labels` has both).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.data.reading.unlabelled import UnlabelledBatch
from pipeline.losses.shared.pseudo_labels import PseudoLabels, mix, pseudo_labels
from pipeline.models.network.segmentor import Segmentor
from pipeline.training.helpers.config import MeanTeacherConfig
from pipeline.training.inputs import network_input


@dataclass(frozen=True)
class StudentView:
    """What the student is shown of a batch of unlabelled images.

    Attributes:
        images: `[B,3,H,W]` normalised, the strong view, mixed.
        target: the teacher's classes, mixed likewise.
    """

    images: Tensor
    target: PseudoLabels


class MeanTeacher(nn.Module):
    """The exponential moving average of a student, which is a segmentor without training heads and is never trained.

    Parameters and the statistics of batch normalisation are averaged; it runs in evaluation mode.

    Args:
        config: the settings.
        student: on its device, as it is before the first iteration.
    """

    count: Tensor

    def __init__(self, config: MeanTeacherConfig, student: Segmentor) -> None:
        super().__init__()
        self.config = config
        self.segmentor = copy.deepcopy(student).requires_grad_(False).eval()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, student: Segmentor) -> None:
        """Take up the student's weights after an iteration."""
        self.count += 1
        number = int(self.count)  # lies on the CPU
        share = 1 - min(self.config.decay, (1 + number) / (10 + number))
        torch._foreach_lerp_([*self.segmentor.parameters()], [*student.parameters()], share)
        pairs = zip(self.segmentor.buffers(), student.buffers(), strict=True)
        for own, given in pairs:
            if own.is_floating_point():
                own.lerp_(given, share)
            else:
                own.copy_(given)

    @torch.no_grad()
    def view(self, batch: UnlabelledBatch, *, ignore_index: int) -> StudentView:
        """Say what the weak view shows, and make the student's view of it. Call it under the training's autocast.

        Args:
            batch: on any device.
            ignore_index: label of the padding.
        """
        device = self.segmentor.mean.device
        outlines = torch.zeros(batch.inside.shape, dtype=torch.int64).masked_fill_(~batch.inside, ignore_index)
        outlines = outlines.to(device, non_blocking=True)
        weak, strong = (each.to(device, non_blocking=True) for each in (batch.weak, batch.strong))
        seen, inside = network_input(self.segmentor, weak, outlines, ignore_index=ignore_index)
        logits = self.segmentor(seen)
        boxes = batch.boxes.to(device, non_blocking=True)
        shown, _ = network_input(self.segmentor, mix(strong, boxes[:, None]), outlines, ignore_index=ignore_index)
        height, width = inside.shape[-2:]
        boxes = torch.nn.functional.pad(boxes, (0, width - boxes.shape[2], 0, height - boxes.shape[1]))
        with torch.autocast(device.type, enabled=False):
            target = pseudo_labels(
                logits,
                inside != ignore_index,
                confidence=self.config.confidence,
                unlikely_rank=self.config.unlikely_rank if self.config.unreliable_negatives else None,
            )
        return StudentView(shown, target.mixed(boxes))

    def train(self, mode: bool = True) -> MeanTeacher:
        """It stays in evaluation mode."""
        return super().train(False)
