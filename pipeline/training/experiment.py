"""One branch, trained: from validated settings and a prepared dataset to checkpoints, curves and numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.compute.devices import autocast_dtype, keep_large_depthwise_in_float32, select_device, use_threads
from pipeline.compute.random_streams import stream_seed
from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.data.reading.batches import TrainingBatches
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.evaluation import evaluate
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.layout.branches import branch_name
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.network.weights import SegmentorInfo, save_tensors
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.averaging import WeightAverage
from pipeline.training.checkpoints import TraineeRecord, load_resume, settings_of, write_record
from pipeline.training.config import TrainConfig
from pipeline.training.loop import Objective, TrainingData, TrainingState, TrainResult, train
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer
from pipeline.training.recorder import TrainingRecorder


@dataclass(frozen=True)
class TrainingSetup:
    """One branch and the settings that it trains with.

    Attributes:
        name: of the method.
        seed: of everything that is drawn at random.
        method: the method's settings.
        model: the network.
        train: the loop.
        evaluate: how validation images are brought to size.
    """

    name: str
    seed: int
    method: MethodConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig


@dataclass(frozen=True)
class TrainingFiles:
    """Where a training writes.

    Attributes:
        folder: the checkpoints `best` and `last`, and `trainee.json`.
        curves: DVCLive's folder.
        resume: state of an interrupted training.
    """

    folder: Path
    curves: Path
    resume: Path


def train_branch(setup: TrainingSetup, prepared: Prepared, files: TrainingFiles, *, resume: bool) -> TrainResult:
    """Train a method with a seed and write checkpoints and curves.

    The segmentor's initialisation, the order of the data and the training heads draw from separate streams of the seed:
    two methods with one seed start from the same segmentor and see the same batches.

    Args:
        setup: what trains, and how.
        prepared: what is seen.
        files: where it writes.
        resume: continue from `files.resume` when it is there.

    Raises:
        UserError: no such device, weights that cannot be had, a resume state of other settings, a loss not finite.
    """
    config, seed = setup.train, setup.seed
    use_threads(config.threads)
    device = select_device(config.device)
    training, validation = prepared.split("train"), prepared.split("val")
    num_classes = len(prepared.class_names)
    term = build_loss_term(
        setup.method,
        num_classes=num_classes,
        ignore_index=prepared.ignore_index,
        training_images=len(training),
    ).to(device)
    segmentor = build_segmentor(setup.model, num_classes, seed=seed)
    trainee = attach_training_heads(segmentor, term, auxiliary=config.auxiliary_weight > 0, seed=seed)
    trainee.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu" and autocast_dtype(config.precision, device) is torch.bfloat16:
        keep_large_depthwise_in_float32(trainee)
    record = TraineeRecord(
        segmentor=_describe(setup, prepared),
        loss=setup.method.loss,
        settings=settings_of(setup.method),
        auxiliary=config.auxiliary_weight > 0,
        training_images=len(training),
    )
    fingerprint = _sha256(dataclasses.asdict(record))
    averaging, best = setup.method.averaging, None
    average = WeightAverage(averaging, trainee, config.iterations) if averaging is not None else None
    state = TrainingState(build_optimizer(trainee, config.optimizer), average=average)
    if resume and files.resume.exists():
        best = load_resume(files.resume, trainee=trainee, term=term, state=state, fingerprint=fingerprint)
        save_tensors(best, files.folder / "best.safetensors")
    write_record(record, files.folder)
    batches = TrainingBatches(
        training,
        config.augment,
        batch_size=config.batch_size,
        iterations=config.iterations,
        seed=stream_seed("batches", seed),
        start_iteration=state.progress.iteration,
        workers=config.workers,
    )
    statistics = TrainingBatches(
        training,
        dataclasses.replace(config.augment, cache_decoded_bytes=0),
        batch_size=config.batch_size,
        iterations=averaging.batch_norm_batches if averaging is not None else 0,
        seed=stream_seed("batch statistics", seed),
    )

    def validate(candidate: Segmentor) -> float:
        predict = segmentor_predictor(candidate, device, resize=setup.evaluate.resize)
        return evaluate(predict, validation, num_classes, prepared.ignore_index).miou

    supervision = Supervision(
        prepared.ignore_index, class_weights(prepared, config, device), auxiliary_weight=config.auxiliary_weight
    )
    with TrainingRecorder(
        branch_name(setup.name, seed),
        folder=files.folder,
        curves=files.curves,
        resume_path=files.resume,
        term=term,
        fingerprint=fingerprint,
        iterations=config.iterations,
        best=best,
        start=state.progress.iteration,
    ) as recorder:
        return train(
            trainee,
            Objective(setup.method, term, SupervisedLoss(setup.method.supervised, supervision)),
            TrainingData(batches, validate, max(len(training) // config.batch_size, 1), statistics),
            config,
            seed=seed,
            device=device,
            recorder=recorder,
            state=state,
        )


def class_weights(prepared: Prepared, config: TrainConfig, device: torch.device) -> Tensor | None:
    """`[C]` weights of the cross entropy, or None."""
    if config.class_weights == "none":
        return None
    frequencies = torch.tensor(prepared.class_frequencies, dtype=torch.float64).clamp_min(1e-6)
    weights = frequencies.rsqrt()
    return (weights / weights.mean()).clamp_max(5.0).float().to(device)


def _describe(setup: TrainingSetup, prepared: Prepared) -> SegmentorInfo:
    settings = {
        "model": dataclasses.asdict(setup.model),
        "train": dataclasses.asdict(setup.train),
        **method_settings(setup.method),
        "seed": setup.seed,
    }
    return SegmentorInfo(
        model=setup.model,
        num_classes=len(prepared.class_names),
        class_names=tuple(prepared.class_names),
        palette=tuple(prepared.palette),
        ignore_index=prepared.ignore_index,
        resize=setup.evaluate.resize,
        provenance={
            "method": setup.name,
            "seed": setup.seed,
            "backbone": setup.model.backbone,
            "head": setup.model.head,
            "dataset": prepared.dataset_name,
            "dataset_sha256": prepared.sha256,
            "params_sha256": _sha256(settings),
        },
    )


def method_settings(method: MethodConfig) -> dict[str, object]:
    """Everything of a method that determines its training, as plain values."""
    settings: dict[str, object] = {"loss": method.loss, "settings": settings_of(method)}
    if method.averaging is not None:
        settings["averaging"] = dataclasses.asdict(method.averaging)
    if method.supervised:
        settings["supervised"] = [dataclasses.asdict(entry) for entry in method.supervised]
    return settings


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
