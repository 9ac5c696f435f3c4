"""A whole branch, from prepared data to weights: what it keeps of data that turns out damaged."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.training.config import TrainConfig
from pipeline.training.faults.signals import TrainingStopped
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig

BASELINE = MethodConfig("cross_entropy", CrossEntropy.Config())


def test_a_training_says_what_it_left_out_also_before_it_was_interrupted(
    run: Callable[..., TrainResult], tiny_config: TrainConfig, tiny_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images and labels"
    shutil.copytree(tiny_root, root)
    prepare(PrepareConfig(dataset="folder", root=str(root)), tmp_path / "data")
    prepared = load_prepared(tmp_path / "data", root)
    training = prepared.splits["train"]
    name, path = training.name(0), root / training.entries[0].image
    whole = path.read_bytes()
    path.write_bytes(b"no image")
    epoch = -(-len(training) // 2)  # iterations in which every pair comes once
    config = dataclasses.replace(tiny_config, iterations=epoch + 1, validate_every=epoch + 1, skip_budget=1)
    done = iter(range(1, epoch + 1))
    with pytest.raises(TrainingStopped):
        run("cut", BASELINE, config, prepared=prepared, stop=lambda: next(done) == epoch)
    path.write_bytes(whole)
    result = run("cut", BASELINE, config, prepared=load_prepared(tmp_path / "data", root))
    assert list(result.left_out) == [name] and path.name in result.left_out[name]
