"""What a finished training leaves: the weights of the trainee, and what rebuilds it around them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo, load_tensors, load_weights, save_tensors
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.methods import MethodConfig, build_methods
from serving.contract.errors import UserError
from serving.contract.files import read_json, write_json
from serving.contract.schema import Problems, build


@dataclass(frozen=True)
class TraineeRecord:
    """What rebuilds a trainee: the segmentor's description and the loss term whose training heads it carries.

    Attributes:
        segmentor: the network that ships.
        loss: name of the loss term.
        settings: that term's settings.
        auxiliary: whether it carries auxiliary classifiers.
        ignore_index: label outside every class.
        training_images: number of training images.
    """

    segmentor: SegmentorInfo
    loss: str
    settings: dict[str, object]
    auxiliary: bool
    training_images: int


def save_trainee(trainee: Trainee, path: Path) -> None:
    """Write the weights of segmentor and training heads as one safetensors file, atomically."""
    save_tensors(trainee.state_dict(), path)


def load_trainee(folder: Path, checkpoint: str) -> tuple[Trainee, SegmentorInfo]:
    """Rebuild the trainee saved in `folder` as `trainee.json` and `<checkpoint>.safetensors`, in evaluation mode.

    Raises:
        UserError: a file is missing, damaged, or does not fit.
    """
    problems = Problems()
    record = build(TraineeRecord, read_json(folder / "trainee.json", made_by="train"), "trainee", problems)
    methods: dict[str, MethodConfig] = {}
    if record is not None:
        methods = build_methods({"method": {"loss": record.loss, **record.settings}}, None, problems)
    if record is None or problems:
        raise UserError(f"{folder / 'trainee.json'}: not a description of a trainee:\n  " + "\n  ".join(problems))
    info = record.segmentor
    term = build_loss_term(
        methods["method"],
        num_classes=info.num_classes,
        ignore_index=info.ignore_index,
        training_images=record.training_images,
    )
    segmentor = build_segmentor(dataclasses.replace(info.model, pretrained=False), info.num_classes, seed=0)
    trainee = attach_training_heads(segmentor, term, auxiliary=record.auxiliary, seed=0)
    path = folder / f"{checkpoint}.safetensors"
    load_weights(trainee, load_tensors(path, made_by="train"), path)
    return trainee.eval(), info


def write_record(record: TraineeRecord, folder: Path) -> None:
    """Write `trainee.json`."""
    write_json(folder / "trainee.json", record)


def settings_of(config: MethodConfig) -> dict[str, Any]:
    """The settings of a method's loss term as plain values, for records."""
    return dataclasses.asdict(config.settings)


def method_settings(method: MethodConfig) -> dict[str, object]:
    """Everything of a method that determines its training, as plain values."""
    settings: dict[str, object] = {"loss": method.loss, "settings": settings_of(method)}
    if method.averaging is not None:
        settings["averaging"] = dataclasses.asdict(method.averaging)
    if method.mean_teacher is not None:
        settings["mean_teacher"] = dataclasses.asdict(method.mean_teacher)
    if method.teacher is not None:  # where it lies changes nothing
        settings["teacher"] = {key: value for key, value in dataclasses.asdict(method.teacher).items() if key != "path"}
    if method.supervised:
        settings["supervised"] = [dataclasses.asdict(entry) for entry in method.supervised]
    return settings
