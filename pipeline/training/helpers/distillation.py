"""Distillation from a larger trained segmentor: what a stripped checkpoint of this project says of labelled crops."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.shared.distillation import logit_distillation, similarity_distillation
from pipeline.losses.shared.resolution import NO_CLASS
from pipeline.models.network.head import HeadOutput, TraineeOutput
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import load_segmentor
from pipeline.training.helpers.config import TeacherConfig
from pipeline.training.inputs import pad_to_stride
from serving.contract.errors import UserError


def load_teacher(config: TeacherConfig, class_names: tuple[str, ...]) -> Segmentor:
    """The teacher, in evaluation mode on the CPU.

    Args:
        config: where it lies, and which one is meant.
        class_names: of the dataset, in the order of their ids.

    Raises:
        UserError: a file is missing or damaged, is another than `sha256` says, or knows other classes.
    """
    folder = Path(config.path)
    path = folder / "segmentor.safetensors"
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"teacher: {path}: cannot be read ({error.strerror or error}); teacher.path names the folder that "
            "the stage strip wrote, artifacts/BRANCH/stripped"
        ) from None
    if found != config.sha256:
        raise UserError(
            f"teacher: {path}: has the sha256 {found}, expected {config.sha256}: it is another teacher; put back "
            "the one that is meant, or write the sha256 of this one into the method's teacher"
        )
    teacher, info = load_segmentor(folder)
    if info.class_names != class_names:
        raise UserError(
            f"teacher: {folder}: knows the classes {', '.join(info.class_names)}, and the dataset has "
            f"{', '.join(class_names)}; train a teacher on these"
        )
    return teacher.requires_grad_(False)


@dataclass(frozen=True)
class TeacherView:
    """What the teacher says of a batch.

    Attributes:
        output: logits and the head's input, at its own resolution.
        labels: `[B,H,W]` int64 as the student's, `NO_CLASS` where nothing counts.
        size: height and width of the crops as the teacher saw them, at least H and W.
    """

    output: HeadOutput
    labels: Tensor
    size: tuple[int, int]


class Distillation:
    """A teacher that is not trained.

    Args:
        config: the settings.
        teacher: on the device of the training.
    """

    def __init__(self, config: TeacherConfig, teacher: Segmentor) -> None:
        self.config = config
        self.teacher = teacher.eval()

    @torch.no_grad()
    def view(self, images: Tensor, labels: Tensor, *, ignore_index: int) -> TeacherView:
        """What it says of the crops. Call it under the training's autocast.

        Args:
            images: uint8 `[B,3,h,w]`.
            labels: `[B,H,W]` int64, padded to the student's stride.
            ignore_index: label that counts nowhere.
        """
        height, width = labels.shape[1:]
        seen = F.pad(self.teacher.normalise(images), (0, width - images.shape[3], 0, height - images.shape[2]))
        # Where its stride is larger than the student's, it sees more padding, which is cut off again.
        seen, _ = pad_to_stride(seen, labels, stride=self.teacher.stride, ignore_index=ignore_index)
        output = self.teacher.features(seen.contiguous(memory_format=torch.channels_last)).head
        size = (seen.shape[2], seen.shape[3])
        return TeacherView(output, labels.where(labels != ignore_index, NO_CLASS), size)

    def loss(
        self, student: TraineeOutput, view: TeacherView, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted loss of the labelled crops, and its parts. Call it outside autocast.

        Args:
            student: of the labelled crops.
            view: of the same crops.
            generator: source of the sampled pixels.
        """
        config = self.config
        wanted = (view.labels.shape[1], view.labels.shape[2])
        logits = _cropped(view.output.logits.main, view.size, wanted)
        loss = logit_distillation(student.logits.main, logits, view.labels, temperature=config.temperature)
        parts = {"distillation": loss.detach()}
        total = config.weight * loss
        if config.similarity_weight:
            assert student.head_input is not None
            similarity = similarity_distillation(
                student.head_input,
                _cropped(view.output.input, view.size, wanted),
                view.labels,
                student.logits.main,
                temperature=config.similarity_temperature,
                max_samples=config.max_samples,
                max_views=config.max_views,
                generator=generator,
            )
            parts["similarity"] = similarity.detach()
            total = total + config.similarity_weight * similarity
        return total, parts


def _cropped(features: Tensor, size: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Features `[B,c,h,w]` of images of `size`, of their upper left part `wanted`; as they are where both are equal."""
    rows, columns = (
        max(1, round(cells * part / whole))
        for cells, part, whole in zip(features.shape[-2:], wanted, size, strict=True)
    )
    return features[..., :rows, :columns]
