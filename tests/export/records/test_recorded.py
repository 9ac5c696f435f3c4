"""What training recorded, read back: curves, metrics, and where the time went on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from export.records.recorded import TIME_KEYS, load_curves, load_training
from pipeline.layout.branches import BranchConfig
from pipeline.layout.paths import curves_dir, train_metrics_path, train_timing_path
from pipeline.training.performance.timing import time_report
from serving.contract.files import write_json


def test_curves_come_by_quantity_and_branch_and_those_of_elsewhere_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    branches = {f"{name}-s0": BranchConfig(name, name, 0) for name in ("cross_entropy", "contextrast")}
    folder = curves_dir("contextrast", 0) / "plots/metrics"
    folder.mkdir(parents=True)
    (folder / "cross_entropy.tsv").write_text("step\tcross_entropy\n10\t1.5\n20\t0.75\n")
    assert load_curves(branches) == {"cross_entropy": {"contextrast-s0": [[10.0, 1.5], [20.0, 0.75]]}}


def test_the_time_is_that_of_the_training_where_it_ran_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    branches = {f"cross_entropy-s{seed}": BranchConfig("cross_entropy", "cross_entropy", seed) for seed in range(2)}
    for seed in range(2):
        write_json(train_metrics_path("cross_entropy", seed), {"miou": 0.5})
    epochs = [{"iteration": 10, "seconds": {"forward": 1.5, "backward": 2.5, "validation": 1.0}}]
    time = time_report(epochs, images=80, device=torch.device("cpu"), dtype=None, threads=2)
    write_json(train_timing_path("cross_entropy", 0), {"seconds": 5.5, **dataclasses.asdict(time)})
    found = load_training(branches)
    assert found["cross_entropy", 1] == {"miou": 0.5, "seconds": None}, "trained elsewhere"
    assert found["cross_entropy", 0]["seconds"] == 5.5
    assert found["cross_entropy", 0]["time"].keys() == set(TIME_KEYS)
    assert found["cross_entropy", 0]["time"]["images_per_second"] == 20.0, "80 images in 4 seconds of steps"
