"""One branch, trained: from validated settings and a prepared dataset to checkpoints, curves and numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.compute.devices import autocast_dtype, keep_large_depthwise_in_float32, select_device, use_threads
from pipeline.compute.random_streams import stream_seed
from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.data.reading.batches import TrainingBatches
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.layout.branches import branch_name
from pipeline.losses.shared.distributed import own_rank, world_size
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.network.weights import SegmentorInfo
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.averaging import WeightAverage
from pipeline.training.checkpoints import TraineeRecord, method_settings, settings_of
from pipeline.training.config import TrainConfig, decisive_settings
from pipeline.training.distributed.batch_norm import synchronise_batch_norm
from pipeline.training.distributed.exchange import (
    any_rank,
    from_first,
    own_device,
    own_positions,
    ranks_here,
    union_of_ranks,
)
from pipeline.training.distributed.validation import shared_miou
from pipeline.training.faults.signals import TrainingStopped
from pipeline.training.helpers.distillation import Distillation, load_teacher
from pipeline.training.helpers.help import Helpers
from pipeline.training.helpers.mean_teacher import MeanTeacher
from pipeline.training.helpers.unlabelled import unlabelled_batches
from pipeline.training.loop import TrainingData, TrainResult, train
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer
from pipeline.training.performance.feeding import feed, workers_for
from pipeline.training.performance.speed import backends, compile_network
from pipeline.training.performance.timing import TimeReport, device_name, precision_name, time_report
from pipeline.training.recorder import SilentRecorder, TrainingRecorder
from pipeline.training.resuming.fingerprint import training_fingerprint
from pipeline.training.resuming.store import CheckpointStore
from pipeline.training.resuming.tensors import restore
from pipeline.training.state import TrainingState
from pipeline.training.step import Objective
from serving.contract.errors import UserError
from serving.contract.files import require_writable


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
        folder: the weights `best` and `last`, and `trainee.json`, which is there only where they are whole.
        curves: DVCLive's folder.
        checkpoints: states that an interrupted training goes on from; no output of a stage.
    """

    folder: Path
    curves: Path
    checkpoints: Path


def train_branch(
    setup: TrainingSetup,
    prepared: Prepared,
    files: TrainingFiles,
    *,
    fresh: bool = False,
    stop: Callable[[], bool] = lambda: False,
    finish: Callable[[TrainResult, TimeReport], None] = lambda result, time: None,
) -> TrainResult:
    """Train a method with a seed and write weights and curves; go on where an earlier call was interrupted.

    The segmentor's initialisation, the order of the data and the training heads draw from separate streams of the seed:
    two methods with one seed start from the same segmentor and see the same batches.

    Args:
        setup: what trains, and how.
        prepared: what is seen.
        files: where it writes.
        fresh: start over even where there is a state of the same settings, data and code.
        stop: whether to end in order, with a checkpoint.
        finish: keeps the result and where the time went, before the state is removed: what is interrupted until then
            is gone on from.

    Raises:
        UserError: no such device, weights that cannot be had, a loss not finite, no room on disk or in memory, or
            another process trains this branch.
        TrainingStopped: as `stop` asked for, the state saved.
    """
    config, seed, name = setup.train, setup.seed, branch_name(setup.name, setup.seed)
    use_threads(config.threads)
    if config.processes != world_size():
        raise UserError(
            f"train.processes: {config.processes}, which the stage train alone starts; set it to {world_size()} here"
        )
    device = own_device(select_device(config.device))
    workers = workers_for(config.workers, device, processes=ranks_here())
    positions, first = own_positions(config.batch_size), own_rank() == 0
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
    dtype = autocast_dtype(config.precision, device)
    if device.type == "cpu" and dtype is torch.bfloat16:
        keep_large_depthwise_in_float32(trainee)
    synchronise_batch_norm(trainee, device)
    record = TraineeRecord(
        segmentor=_describe(setup, prepared),
        loss=setup.method.loss,
        settings=settings_of(setup.method),
        auxiliary=config.auxiliary_weight > 0,
        training_images=len(training),
    )
    fingerprint = training_fingerprint(
        dataclasses.asdict(record), segmentor=segmentor, term=term, dataset=training.dataset, device=device, dtype=dtype
    )
    averaging = setup.method.averaging
    average = WeightAverage(averaging, trainee, config.iterations) if averaging is not None else None
    optimizer = build_optimizer(trainee, config.optimizer, fused=config.speed.fused_optimizer)
    state = TrainingState(optimizer, average=average)
    helpers = build_helpers(setup, trainee, tuple(prepared.class_names))
    # What a resume restores besides the trainee: the term alone, as always, where nothing helps.
    resumable = term if helpers is None else nn.ModuleDict({"term": term, **helpers.modules})

    def say(text: str) -> None:
        sys.stderr.write(f"{name}: {text}\n")
        sys.stderr.flush()

    if first:
        ranks = f", {world_size()} processes" if world_size() > 1 else ""
        compiled = ", compiled" if config.speed.compile else ""
        where = f"{device_name(device)} in {precision_name(dtype)}, {config.threads} threads of torch"
        say(f"trains on {where}{ranks}{compiled}")
    opened = CheckpointStore(files.checkpoints, fingerprint, keep=config.checkpoints_kept, say=say)
    with ExitStack() as at_the_end, opened if first else nullcontext() as store:  # the first rank alone writes
        if store is not None and fresh:
            store.forget()
        resumed = from_first(None if store is None else store.latest())
        if resumed is not None:
            restore(resumed, files.checkpoints, trainee=trainee, term=resumable, state=state)
        if resumed is not None and first:
            say(f"goes on after iteration {resumed.iteration} of {config.iterations}, from {files.checkpoints}")
        if helpers is not None and (teacher := setup.method.mean_teacher) is not None:
            unlabelled_size = teacher.unlabelled_batch_size or config.batch_size
            unlabelled = unlabelled_batches(
                setup.name,
                teacher,
                config.augment,
                prepared,
                batch_size=unlabelled_size,
                iterations=config.iterations * config.accumulate,
                seed=seed,
                start_iteration=state.progress.iteration * config.accumulate,
                workers=workers,
                positions=own_positions(unlabelled_size),
            )
            helpers.unlabelled = at_the_end.enter_context(closing(iter(unlabelled)))  # else its workers never end
        if first:
            require_writable(files.folder)  # where the weights go at the end alone
            (files.folder / "trainee.json").unlink(missing_ok=True)  # what an earlier training left is not this one's
        left_out = state.progress.left_out if first else {}  # each rank reads, and counts, for itself
        batches = TrainingBatches(
            training,
            config.augment,
            batch_size=config.batch_size,
            iterations=config.iterations * config.accumulate,
            seed=stream_seed("batches", seed),
            start_iteration=state.progress.iteration * config.accumulate,
            workers=workers,
            skip_budget=config.skip_budget,
            left_out=left_out,
            say=say,
            positions=positions,
        )
        if config.speed.compile:  # after the average and the teacher were copied
            compile_network(trainee)
        # Of one image the global features of a head have no variance; beside unlabelled images a step may have one.
        statistics_size = max(config.batch_size, 2 * world_size())
        statistics = TrainingBatches(
            training,
            dataclasses.replace(config.augment, cache_decoded_bytes=0),
            batch_size=statistics_size,
            iterations=averaging.batch_norm_batches if averaging is not None else 0,
            seed=stream_seed("batch statistics", seed),
            skip_budget=config.skip_budget,
            left_out=left_out,
            say=say,
            positions=own_positions(statistics_size),
        )

        def validate(candidate: Segmentor) -> float:
            predict = segmentor_predictor(candidate, device, resize=setup.evaluate.resize)
            miou = shared_miou(predict, validation, num_classes, prepared.ignore_index, threads=workers, stop=stop)
            if miou is None:
                raise TrainingStopped
            return miou

        def names(iteration: int) -> list[str]:
            parts = range(iteration * config.accumulate, (iteration + 1) * config.accumulate)
            return [image for part in parts for image in batches.names(part)]

        supervision = Supervision(
            prepared.ignore_index, class_weights(prepared, config, device), auxiliary_weight=config.auxiliary_weight
        )
        steps_per_epoch = max(len(training) // (config.batch_size * config.accumulate), 1)
        recorder = None
        if store is not None:
            recorder = TrainingRecorder(
                name,
                folder=files.folder,
                curves=files.curves,
                store=store,
                term=resumable,
                iterations=config.iterations,
                resumed=resumed,
            )
        with (
            recorder or SilentRecorder(files.checkpoints) as told,
            backends(config.speed, deterministic=config.deterministic),
        ):
            result = train(
                trainee,
                Objective(setup.method, term, SupervisedLoss(setup.method.supervised, supervision), helpers),
                TrainingData(feed(batches, device), validate, steps_per_epoch, statistics, names),
                config,
                seed=seed,
                device=device,
                recorder=told,
                state=state,
                stop=lambda: any_rank(stop()),
            )
        result = dataclasses.replace(result, left_out=union_of_ranks(left_out))
        if store is None or recorder is None:
            return result
        recorder.finish(record)
        finish(
            result,
            time_report(
                recorder.epochs,
                images=config.iterations * config.batch_size * config.accumulate,
                device=device,
                dtype=dtype,
                threads=config.threads,
            ),
        )
        store.forget()
    return result


def build_helpers(setup: TrainingSetup, trainee: Trainee, class_names: tuple[str, ...]) -> Helpers | None:
    """The networks that help the method, on the trainee's device; None where it has none.

    Raises:
        UserError: the teacher to be distilled is not there, or another one; there are too few classes for a setting.
    """
    helpers = Helpers()
    if (config := setup.method.mean_teacher) is not None:
        config.require_classes(len(class_names), f"methods.{setup.name}.mean_teacher")
        helpers.mean_teacher = MeanTeacher(config, trainee.segmentor)
    if setup.method.teacher is not None:
        teacher = load_teacher(setup.method.teacher, class_names)
        teacher.to(trainee.segmentor.mean.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        helpers.distillation = Distillation(setup.method.teacher, teacher)
    return helpers if helpers.mean_teacher is not None or helpers.distillation is not None else None


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
        "train": decisive_settings(setup.train),
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
            "params_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        },
    )
