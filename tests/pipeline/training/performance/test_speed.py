"""The switches reach torch for as long as a training takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.training.config import TrainConfig, decisive_settings
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig
from pipeline.training.performance.speed import SpeedConfig
from serving.contract.errors import UserError

BASELINE = MethodConfig("cross_entropy", CrossEntropy.Config())


def flags() -> tuple[bool, ...]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32, torch.are_deterministic_algorithms_enabled()


def test_they_hold_within_a_training_alone(
    run: Callable[..., TrainResult], tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bool, ...]] = set()
    forward = SupervisedLoss.__call__

    def looked(self: SupervisedLoss, *arguments: Any, **keywords: Any) -> Any:
        seen.add(flags())
        return forward(self, *arguments, **keywords)

    monkeypatch.setattr(SupervisedLoss, "__call__", looked)
    before = flags()
    run("plain", BASELINE)
    assert seen == {(False, False, False, False)}
    seen.clear()
    run("strict", BASELINE, dataclasses.replace(tiny_config, deterministic=True))
    assert seen == {(False, False, False, True)}
    seen.clear()
    run("fast", BASELINE, dataclasses.replace(tiny_config, speed=SpeedConfig(True, True, True)))
    assert seen == {(True, True, True, False)}
    assert flags() == before
    weights = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("plain", "strict", "fast")]
    assert weights[0] == weights[1], "on the CPU everything is deterministic anyway"


def test_an_operation_that_cannot_repeat_its_bits_is_named(
    run: Callable[..., TrainResult], tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nll_loss2d_forward_out_cuda does not have a deterministic implementation\nmore")

    monkeypatch.setattr(SupervisedLoss, "__call__", refused)
    with pytest.raises(UserError, match=r"train\.deterministic: nll_loss2d_forward_out_cuda .*; set it to false"):
        run("a", BASELINE, dataclasses.replace(tiny_config, deterministic=True))


def test_algorithms_chosen_by_their_time_are_not_called_deterministic() -> None:
    """Each of them repeats its bits, but which one is taken may differ from run to run."""
    with pytest.raises(ValueError, match=r"deterministic: speed\.cudnn_benchmark may choose other algorithms"):
        TrainConfig(deterministic=True, speed=SpeedConfig(cudnn_benchmark=True))


def test_recorded_hashes_of_settings_hold_while_the_new_ones_are_off() -> None:
    later = {"skip_budget", "accumulate", "speed", "deterministic", "checkpoint_every", "checkpoints_kept"}
    assert not later & decisive_settings(TrainConfig()).keys()
    assert decisive_settings(TrainConfig(speed=SpeedConfig(tf32=True), accumulate=2)).keys() & later == {
        "speed",
        "accumulate",
    }
