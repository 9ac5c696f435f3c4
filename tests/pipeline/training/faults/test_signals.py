"""SIGTERM ends a training with a checkpoint, from which it goes on to the same bytes."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.training.config import TrainConfig
from pipeline.training.faults.signals import STATUS, TrainingStopped, stop_on_sigterm
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig

BASELINE = MethodConfig("cross_entropy", CrossEntropy.Config())


def test_the_first_sigterm_asks_and_afterwards_signals_are_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_sigterm() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "a second one kills"
    assert signal.getsignal(signal.SIGTERM) == before
    assert STATUS == 143


@pytest.mark.parametrize("checks", [0, 2, 3, 4, 7], ids="after {} looks".format)
def test_a_stop_at_any_moment_is_gone_on_from_to_the_same_bytes(
    checks: int, run: Callable[..., TrainResult], tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """The looks are after every step, and during the validations after every image."""
    config = dataclasses.replace(tiny_config, iterations=5, validate_every=3)
    whole = run("whole", BASELINE, config)
    left = iter(range(checks))
    with pytest.raises(TrainingStopped):
        run("cut", BASELINE, config, stop=lambda: next(left, None) is None)
    assert not (tmp_path / "cut/trainee.json").exists()
    resumed = run("cut", BASELINE, config)
    assert dataclasses.replace(resumed, seconds=0) == dataclasses.replace(whole, seconds=0)
    for name in ("last", "best"):
        path = f"{name}.safetensors"
        assert (tmp_path / "cut" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    curves = [
        {path.name: path.read_text() for path in (tmp_path / name / "curves/plots/metrics").iterdir()}
        for name in ("whole", "cut")
    ]
    assert curves[0] == curves[1]
