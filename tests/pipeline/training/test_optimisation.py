"""Learning rates and parameter groups."""

from __future__ import annotations

import itertools

import pytest
import torch

from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import Taps
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.training_heads.trainee import build_trainee
from pipeline.training.config import OptimizerConfig, ScheduleConfig
from pipeline.training.optimisation import build_optimizer, learning_rate_factor, set_learning_rates


def test_schedule_rises_linearly_then_decays_polynomially() -> None:
    schedule = ScheduleConfig(power=0.9, warmup_fraction=0.1)
    factors = [learning_rate_factor(iteration, 100, schedule) for iteration in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5**0.9)
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[99] > 0


def test_schedule_of_one_iteration_without_warmup() -> None:
    assert learning_rate_factor(0, 1, ScheduleConfig(warmup_fraction=0.0)) == 1.0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_hold_every_parameter_once_and_spare_norms_and_biases(name: str) -> None:
    segmentor = build_segmentor(ModelConfig(pretrained=False), 3, seed=0)
    trainee = build_trainee(
        segmentor,
        taps=Taps.HEAD_INPUT,
        embedding_dim=8,
        term_heads=torch.nn.ModuleDict({"extra": torch.nn.Linear(2, 2)}),
        auxiliary=True,
        seed=0,
    )
    config = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.5, backbone_factor=0.25)
    optimizer = build_optimizer(trainee, config)
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in trainee.parameters())
    backbone = {id(parameter) for parameter in segmentor.backbone.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0)
            assert group["lr"] == pytest.approx(0.025 if id(parameter) in backbone else 0.1)
    set_learning_rates(optimizer, 0.5)
    set_learning_rates(optimizer, 0.5)
    assert sorted({round(group["lr"], 9) for group in optimizer.param_groups}) == [0.0125, 0.05]
