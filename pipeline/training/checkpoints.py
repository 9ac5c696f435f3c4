"""Training checkpoints: the trained trainee, and the state from which an interrupted training goes on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.losses.shared.term import LossTerm
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo, load_tensors, load_weights, save_tensors
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.loop import Progress, TrainingState
from pipeline.training.methods import MethodConfig, build_methods
from serving.contract.errors import UserError
from serving.contract.files import atomic_path, read_json, write_json
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


def save_resume(
    path: Path,
    *,
    trainee: Trainee,
    best: Mapping[str, Tensor],
    term: LossTerm,
    state: TrainingState,
    fingerprint: str,
) -> None:
    """Write everything that an exact resume needs as one safetensors file, atomically.

    The optimiser's state is flattened to tensors, so that reading it back can run no code.
    """
    tensors = {f"trainee.{name}": value for name, value in trainee.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"term.{name}": value for name, value in term.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items() if value is not None
        }
    if state.average is not None:
        tensors |= {f"average.{name}": value for name, value in state.average.state_dict().items()}
    head = json.dumps({"progress": dataclasses.asdict(state.progress), "fingerprint": fingerprint})
    tensors["header"] = torch.frombuffer(bytearray(head.encode()), dtype=torch.uint8)
    with atomic_path(path) as temporary:
        save_tensors(tensors, temporary)


def load_resume(
    path: Path, *, trainee: Trainee, term: LossTerm, state: TrainingState, fingerprint: str
) -> dict[str, Tensor]:
    """Restore what `save_resume` wrote into the given objects; returns the best weights so far.

    Raises:
        UserError: the file is missing or damaged, or belongs to other settings or data.
    """
    tensors = load_tensors(path, made_by="train")
    header = json.loads(bytes(tensors.pop("header").tolist()).decode())
    if header["fingerprint"] != fingerprint:
        raise UserError(
            f"{path}: was written with other settings, data or code than now; delete it to train from the start"
        )
    load_weights(trainee, dict(_under("trainee.", tensors)), path)
    load_weights(term, dict(_under("term.", tensors)), path)
    if state.average is not None:
        load_weights(state.average, dict(_under("average.", tensors)), path)
    values: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors):
        index, _, key = name.partition(".")
        values.setdefault(int(index), {})[key] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": values, "param_groups": groups})
    state.progress = Progress(**header["progress"])
    return dict(_under("best.", tensors))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(prefix), value) for name, value in tensors.items() if name.startswith(prefix))


def write_record(record: TraineeRecord, folder: Path) -> None:
    """Write `trainee.json`."""
    write_json(folder / "trainee.json", record)


def settings_of(config: MethodConfig) -> dict[str, Any]:
    """The settings of a method's loss term as plain values, for records."""
    return dataclasses.asdict(config.settings)
