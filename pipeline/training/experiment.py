"""One branch, trained: from validated settings and a prepared dataset to checkpoints, curves and numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.compute.devices import autocast_dtype, keep_large_depthwise_in_float32, select_device, use_threads
from pipeline.compute.random_streams import stream_seed
from pipeline.data.prepared import Prepared
from pipeline.data.reading.batches import TrainingBatches
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.evaluation import evaluate
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.layout.branches import branch_name
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.network.weights import SegmentorInfo, save_tensors
from pipeline.training.checkpoints import (
    TraineeRecord,
    attach_training_heads,
    build_method,
    load_resume,
    settings_of,
    write_record,
)
from pipeline.training.config import TrainConfig
from pipeline.training.loop import Progress, TrainResult, train
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer
from pipeline.training.recorder import TrainingWatcher


def train_branch(
    name: str,
    seed: int,
    *,
    method_config: MethodConfig,
    model_config: ModelConfig,
    config: TrainConfig,
    evaluation: EvaluateConfig,
    prepared: Prepared,
    folder: Path,
    curves: Path,
    resume_path: Path,
    resume: bool,
) -> TrainResult:
    """Train the method `name` with `seed` and write `best`, `last` and `trainee.json` into `folder`, curves beside.

    The segmentor's initialisation, the order of the data and the training heads draw from separate streams of the seed:
    two methods with one seed start from the same segmentor and see the same batches.

    Args:
        folder: where the checkpoints go.
        curves: DVCLive's folder.
        resume_path: state of an interrupted training.
        resume: continue from `resume_path` when it is there.

    Raises:
        UserError: no such device, weights that cannot be had, a resume state of other settings, a loss not finite.
    """
    use_threads(config.threads)
    device = select_device(config.device)
    training, validation = prepared.split("train"), prepared.split("val")
    num_classes = len(prepared.class_names)
    method = build_method(
        method_config,
        num_classes=num_classes,
        ignore_index=prepared.ignore_index,
        training_images=len(training),
    ).to(device)
    segmentor = build_segmentor(model_config, num_classes, seed=seed)
    trainee = attach_training_heads(segmentor, method, auxiliary=config.auxiliary_weight > 0, seed=seed)
    trainee.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cpu" and autocast_dtype(config.precision, device) is torch.bfloat16:
        keep_large_depthwise_in_float32(trainee)
    record = TraineeRecord(
        segmentor=_describe(name, seed, method_config, model_config, config, evaluation, prepared),
        loss=method_config.loss,
        settings=settings_of(method_config),
        auxiliary=config.auxiliary_weight > 0,
        training_images=len(training),
    )
    fingerprint = _sha256(dataclasses.asdict(record))
    optimizer = build_optimizer(trainee, config.optimizer)
    progress, best = Progress(), None
    if resume and resume_path.exists():
        progress, best = load_resume(
            resume_path, trainee=trainee, method=method, optimizer=optimizer, fingerprint=fingerprint
        )
        save_tensors(best, folder / "best.safetensors")
    write_record(record, folder)
    batches = TrainingBatches(
        training,
        config.augment,
        batch_size=config.batch_size,
        iterations=config.iterations,
        seed=stream_seed("batches", seed),
        start_iteration=progress.iteration,
        workers=config.workers,
    )

    def validate(candidate: Segmentor) -> float:
        predict = segmentor_predictor(candidate, device, resize=evaluation.resize)
        return evaluate(predict, validation, num_classes, prepared.ignore_index).miou

    with TrainingWatcher(
        branch_name(name, seed),
        folder=folder,
        curves=curves,
        resume_path=resume_path,
        method=method,
        fingerprint=fingerprint,
        iterations=config.iterations,
        best=best,
        start=progress.iteration,
    ) as watcher:
        return train(
            trainee,
            method,
            method_config,
            batches,
            validate,
            config,
            seed=seed,
            class_weights=class_weights(prepared, config, device),
            ignore_index=prepared.ignore_index,
            device=device,
            watcher=watcher,
            log_every=max(len(training) // config.batch_size, 1),
            optimizer=optimizer,
            progress=progress,
        )


def class_weights(prepared: Prepared, config: TrainConfig, device: torch.device) -> Tensor | None:
    """`[C]` weights of the cross entropy, or None."""
    if config.class_weights == "none":
        return None
    frequencies = torch.tensor(prepared.class_frequencies, dtype=torch.float64).clamp_min(1e-6)
    weights = frequencies.rsqrt()
    return (weights / weights.mean()).clamp_max(5.0).float().to(device)


def _describe(
    name: str,
    seed: int,
    method: MethodConfig,
    model: ModelConfig,
    config: TrainConfig,
    evaluation: EvaluateConfig,
    prepared: Prepared,
) -> SegmentorInfo:
    settings = {
        "model": dataclasses.asdict(model),
        "train": dataclasses.asdict(config),
        "loss": method.loss,
        "settings": settings_of(method),
        "seed": seed,
    }
    return SegmentorInfo(
        model=model,
        num_classes=len(prepared.class_names),
        class_names=tuple(prepared.class_names),
        palette=tuple(prepared.palette),
        ignore_index=prepared.ignore_index,
        resize=evaluation.resize,
        provenance={
            "method": name,
            "seed": seed,
            "backbone": model.backbone,
            "head": model.head,
            "dataset": prepared.dataset_name,
            "dataset_sha256": prepared.sha256,
            "params_sha256": _sha256(settings),
        },
    )


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
