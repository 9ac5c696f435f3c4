"""What a method adds to the baseline's whole training step, its projection heads included: forward to optimiser."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.compute.devices import autocast_dtype, keep_large_depthwise_in_float32
from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.data.reading.batches import TrainingBatches
from pipeline.data.reading.config import AugmentConfig
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.config import OptimizerConfig, TrainConfig
from pipeline.training.faults.finite import FiniteWatch
from pipeline.training.methods import build_methods
from pipeline.training.optimisation import build_optimizer
from pipeline.training.state import TrainingState
from pipeline.training.step import Batch, Objective, TrainingStep
from serving.contract.schema import Problems

BASELINE = "cross_entropy"
METHODS = (BASELINE, "pixel_contrast", "contextrast")
NETWORKS = {
    "default": ModelConfig(pretrained=False),
    "HRNetV2-W18s": ModelConfig(backbone="hrnet_w18_small_v2", pretrained=False, head="hrnet"),
}


def street_batches(size: tuple[int, int], batch_size: int, count: int) -> tuple[list[Batch], int, int]:
    """Batches of generated streets as the default run sees them, the number of classes, and the ignored label."""
    options = {"train": batch_size * count, "val": 1, "test": 0, "height": size[0], "width": size[1], "seed": 0}
    with tempfile.TemporaryDirectory(prefix="contrail-streets-") as folder:
        prepare(PrepareConfig(dataset="streets", options=options), Path(folder) / "prepared")
        prepared = load_prepared(Path(folder) / "prepared", None)
        augment = AugmentConfig(crop=size)
        batches = TrainingBatches(prepared.split("train"), augment, batch_size=batch_size, iterations=count, seed=0)
        return list(batches), prepared.num_classes, prepared.ignore_index


def contrast_costs(
    model: ModelConfig, batches: Sequence[Batch], num_classes: int, ignore_index: int, *, rounds: int
) -> dict[str, dict[str, float]]:
    """CPU seconds of a step of every method, and their ratio to the baseline's: medians over rounds of one step each.

    Args:
        model: the network.
        batches: that the rounds cycle through.
        num_classes: in them.
        ignore_index: label outside every class.
        rounds: measured, after two that are not.

    Returns:
        method -> `seconds` and `ratio`, the median of the ratios within a round.
    """
    config = TrainConfig(iterations=10**6)
    problems = Problems()
    methods = build_methods({name: {"loss": name} for name in METHODS}, config.iterations, problems)
    assert not problems, list(problems)
    device = torch.device("cpu")
    steps: dict[str, tuple[TrainingStep, TrainingState]] = {}
    for name, method in methods.items():
        term = build_loss_term(method, num_classes=num_classes, ignore_index=ignore_index, training_images=160)
        trainee = attach_training_heads(
            build_segmentor(model, num_classes, seed=0), term, auxiliary=config.auxiliary_weight > 0, seed=0
        ).train()
        trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if autocast_dtype(config.precision, device) is torch.bfloat16:
            keep_large_depthwise_in_float32(trainee)
        supervision = Supervision(ignore_index, None, auxiliary_weight=config.auxiliary_weight)
        step = TrainingStep(
            trainee,
            Objective(method, term, SupervisedLoss(method.supervised, supervision)),
            config,
            seed=0,
            device=device,
            watch=FiniteWatch(device, deferred=False),
            mark=lambda part: None,
        )
        state = TrainingState(build_optimizer(trainee, OptimizerConfig()))
        state.progress.iteration = config.iterations // 2  # after every warm-up
        steps[name] = (step, state)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, (step, state) in steps.items():
            started = time.process_time()
            step([batches[turn % len(batches)]], state)
            seconds[name].append(time.process_time() - started)
    baseline = seconds[BASELINE][2:]
    return {
        name: {
            "seconds": statistics.median(taken[2:]),
            "ratio": statistics.median(own / other for own, other in zip(taken[2:], baseline, strict=True)),
        }
        for name, taken in seconds.items()
    }
