"""The teacher that arms of an experiment learn from: trained first, stripped, kept for all pairs that see the same."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from pathlib import Path

import torch

from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.models.network.weights import save_segmentor, tensors_sha256
from pipeline.models.training_heads.trainee import strip
from pipeline.training.checkpoints import load_trainee
from pipeline.training.config import TrainConfig
from pipeline.training.experiment import TrainingFiles, TrainingSetup, train_branch
from serving.contract.files import read_json, write_json
from studies.experiments.pairs import locked
from studies.experiments.protocol import Experiment, teacher_params

CHECKPOINT = "last"


def full_precision(config: TrainConfig) -> TrainConfig:
    """The loop's settings, computed in fp32 on every machine, so that pairs of several machines stand side by side."""
    return dataclasses.replace(config, precision="fp32")


def trained_teacher(experiment: Experiment, seed: int, prepared: Prepared, folder: Path) -> dict[str, str]:
    """The experiment's teacher of a pair: its `path` and `sha256`, as a method's `teacher` names them.

    It is trained where it is not there yet, by whichever process comes first, and goes on where that was interrupted.

    Args:
        experiment: with a teacher.
        seed: of the pair: what the teacher sees follows from it, and nothing else of the teacher.
        prepared: what the pair's arms are trained on.
        folder: of the experiment's teachers.

    Raises:
        UserError: as a training raises it.
    """
    place = folder / prepared.sha256[:12]
    with locked(folder / f"{place.name}.lock", wait=True):
        if not (place / "teacher.json").exists():
            _train(experiment, seed, prepared, place)
        # Not computed from the weights: those are refused where they are no longer the ones that were trained.
        sha256 = read_json(place / "teacher.json", made_by="studies.run")["sha256"]
    return {"path": str(place / "stripped"), "sha256": sha256}


def _train(experiment: Experiment, seed: int, prepared: Prepared, place: Path) -> None:
    assert experiment.teacher is not None
    started = time.process_time()
    params, training = teacher_params(experiment, seed), place / "training"
    result = train_branch(
        TrainingSetup(
            "teacher",
            experiment.teacher.seed,
            params.methods["teacher"],
            params.model,
            full_precision(params.train),
            params.evaluate,
        ),
        prepared,
        TrainingFiles(training, training / "curves", training / "checkpoints"),
    )
    trainee, info = load_trainee(training, CHECKPOINT)
    size = 4 * trainee.segmentor.stride
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255
    segmentor = strip(trainee, trainee.segmentor.normalise(images))
    provenance = info.provenance | {"weights_sha256": tensors_sha256(segmentor.state_dict())}
    save_segmentor(segmentor, dataclasses.replace(info, provenance=provenance), place / "stripped")
    made = {
        "sha256": hashlib.sha256((place / "stripped" / "segmentor.safetensors").read_bytes()).hexdigest(),
        "val_miou": result.miou,
        "cpu_minutes": round((time.process_time() - started) / 60, 2),
    }
    write_json(place / "teacher.json", made)
    for weights in training.glob("*.safetensors"):
        weights.unlink()
    sys.stdout.write(f"{place}: the teacher, mIoU on val {100 * result.miou:.2f} ({made['cpu_minutes']} CPU minutes)\n")
    sys.stdout.flush()
