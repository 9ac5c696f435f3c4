"""Which iteration was the first whose loss was not finite, and what is kept of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.compute.random_streams import stream_seed
from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.data.reading.batches import TrainingBatches
from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.training.config import TrainConfig
from pipeline.training.faults.finite import FiniteWatch
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig
from serving.contract.errors import UserError


@pytest.mark.parametrize("deferred", [False, True])
def test_the_first_is_remembered(deferred: bool) -> None:
    watch = FiniteWatch(torch.device("cpu"), deferred=deferred)
    told = [watch.add(torch.tensor(value), index) for index, value in enumerate((1.0, float("inf"), 2.0, float("nan")))]
    assert watch.first() == (1 if deferred else 3), "at once, nobody goes on after the first"
    assert told == ([True] * 4 if deferred else [True, False, True, False])
    assert FiniteWatch(torch.device("cpu"), deferred=deferred).first() is None


@pytest.mark.parametrize("deferred", [False, True], ids=["as on the CPU", "as on a GPU"])
def test_a_training_stops_names_the_images_and_keeps_the_weights_before(
    deferred: bool,
    run: Callable[..., TrainResult],
    tiny_config: TrainConfig,
    tiny_prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(tiny_config, iterations=8, validate_every=8, checkpoint_every=2)
    baseline = MethodConfig("cross_entropy", CrossEntropy.Config())
    forward, calls = SupervisedLoss.__call__, []

    def broken(self: SupervisedLoss, *arguments: Any, **keywords: Any) -> Any:
        output = forward(self, *arguments, **keywords)
        calls.append(1)
        if len(calls) != 4:
            return output
        return dataclasses.replace(
            output,
            loss=output.loss * float("nan"),
            values={name: value * float("nan") for name, value in output.values.items()},
        )

    def watch(device: torch.device, *, deferred: bool = deferred) -> FiniteWatch:
        return FiniteWatch(device, deferred=deferred)

    monkeypatch.setattr(SupervisedLoss, "__call__", broken)
    monkeypatch.setattr("pipeline.training.loop.FiniteWatch", lambda device, **_: watch(device))
    with pytest.raises(UserError, match=r"cross_entropy.* is not finite at iteration 4; .*not_finite\.json"):
        run("a", baseline, config)
    kept = json.loads((tmp_path / "a/checkpoints/not_finite.json").read_text())
    batches = TrainingBatches(
        tiny_prepared.split("train"), config.augment, batch_size=2, iterations=8, seed=stream_seed("batches", 0)
    )
    assert kept["iteration"] == 4 and kept["images"] == batches.names(3)
    assert len(kept["images"]) == 2 and kept["means"]["cross_entropy"] == "nan"
    (state,) = (tmp_path / "a/checkpoints").rglob("*.safetensors")
    assert state.stem == "iteration-00000002", "none was written after it"
