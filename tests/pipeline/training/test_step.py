"""One step of the optimiser, whole or in parts."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.config import OptimizerConfig
from pipeline.training.faults.finite import FiniteWatch
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer
from pipeline.training.state import TrainingState
from pipeline.training.step import Batch, Objective, TrainingStep
from tests.pipeline.training.conftest import CONFIG, MODEL

CLASSES, IGNORED = 3, 255
BASELINE = MethodConfig("cross_entropy", CrossEntropy.Config())
SGD = dataclasses.replace(CONFIG, optimizer=OptimizerConfig("sgd", 0.1), gradient_clip_norm=None)


@pytest.fixture
def trainee() -> Trainee:
    """In evaluation mode: statistics of a batch are of that batch, so that parts and the whole would differ by them."""
    term = build_loss_term(BASELINE, num_classes=CLASSES, ignore_index=IGNORED, training_images=8)
    return attach_training_heads(build_segmentor(MODEL, CLASSES, seed=0), term, auxiliary=False, seed=0).eval()


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, CLASSES, (8, 64, 64), generator=generator)


def stepped(trainee: Trainee, parts: list[Batch]) -> tuple[dict[str, Tensor], TrainingState]:
    """The change of every weight by one step on the parts."""
    trainee = copy.deepcopy(trainee)
    before = {name: value.detach().clone() for name, value in trainee.named_parameters()}
    term = build_loss_term(BASELINE, num_classes=CLASSES, ignore_index=IGNORED, training_images=8)
    supervised = SupervisedLoss(BASELINE.supervised, Supervision(IGNORED, None, auxiliary_weight=0.4))
    state = TrainingState(build_optimizer(trainee, SGD.optimizer))
    step = TrainingStep(
        trainee,
        Objective(BASELINE, term, supervised),
        SGD,
        seed=0,
        device=torch.device("cpu"),
        watch=FiniteWatch(torch.device("cpu"), deferred=False),
        mark=lambda _: None,
    )
    assert step(parts, state)
    return {name: value.detach() - before[name] for name, value in trainee.named_parameters()}, state


def test_accumulated_parts_step_as_the_whole_batch(trainee: Trainee, batch: Batch) -> None:
    images, labels = batch
    whole, _ = stepped(trainee, [batch])
    parts, state = stepped(trainee, [(images[:4], labels[:4]), (images[4:], labels[4:])])
    assert state.progress.iteration == 1, "parts are one iteration"
    largest = max(float(change.abs().max()) for change in whole.values())
    assert largest > 1e-3
    for name, change in whole.items():
        torch.testing.assert_close(parts[name], change, rtol=0, atol=1e-5 * largest, msg=name)


def test_one_part_alone_steps_otherwise(trainee: Trainee, batch: Batch) -> None:
    images, labels = batch
    whole, _ = stepped(trainee, [batch])
    half, _ = stepped(trainee, [(images[:4], labels[:4])])
    assert max(float((half[name] - change).abs().max()) for name, change in whole.items()) > 1e-4
