"""What training recorded, read back: curves, metrics, and where the time went on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from export.records.recorded import TIME_KEYS, load_curves, load_training
from pipeline.layout.branches import BranchConfig
from pipeline.layout.paths import curves_dir, last_weights_path, train_metrics_path, train_timing_path
from pipeline.training.performance.timing import time_report
from serving.contract.errors import UserError
from serving.contract.files import file_sha256, read_json, write_json


def test_curves_come_by_quantity_and_branch_and_those_of_elsewhere_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    branches = {f"{name}-s0": BranchConfig(name, name, 0) for name in ("cross_entropy", "contextrast")}
    folder = curves_dir("contextrast", 0) / "plots/metrics"
    folder.mkdir(parents=True)
    (folder / "cross_entropy.tsv").write_text("step\tcross_entropy\n10\t1.5\n20\t0.75\n")
    assert load_curves(branches) == {"cross_entropy": {"contextrast-s0": [[10.0, 1.5], [20.0, 0.75]]}}


@pytest.mark.parametrize(
    "text", ["", "step\tcross_entropy\n10\t1.5\n20\t0.7", "step\tother\n1\t2\n", "step\tcross_entropy\n1\n"]
)
def test_a_damaged_curve_is_named(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    folder = curves_dir("contextrast", 0) / "plots/metrics"
    folder.mkdir(parents=True)
    (folder / "cross_entropy.tsv").write_text(text)
    with pytest.raises(
        UserError, match=r"cross_entropy\.tsv: expected a curve of 'cross_entropy' as `train` writes it"
    ):
        load_curves({"contextrast-s0": BranchConfig("contextrast", "contextrast", 0)})


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, BranchConfig]:
    """Two trainings, of which the one with seed 0 ran here."""
    monkeypatch.chdir(tmp_path)
    branches = {f"cross_entropy-s{seed}": BranchConfig("cross_entropy", "cross_entropy", seed) for seed in range(2)}
    for seed in range(2):
        write_json(train_metrics_path("cross_entropy", seed), {"miou": 0.5})
    weights = last_weights_path("cross_entropy", 0)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights of this training")
    epochs = [{"iteration": 10, "seconds": {"forward": 1.5, "backward": 2.5, "validation": 1.0}}]
    time = time_report(epochs, images=80, device=torch.device("cpu"), dtype=None, threads=2)
    timing = {"weights_sha256": file_sha256(weights), "seconds": 5.5, **dataclasses.asdict(time)}
    write_json(train_timing_path("cross_entropy", 0), timing)
    return branches


def test_the_time_is_that_of_the_training_where_it_ran_here(timed: dict[str, BranchConfig]) -> None:
    found = load_training(timed)
    assert found["cross_entropy", 1] == {"miou": 0.5, "seconds": None}, "trained elsewhere"
    assert found["cross_entropy", 0]["seconds"] == 5.5
    assert found["cross_entropy", 0]["time"].keys() == set(TIME_KEYS)
    assert found["cross_entropy", 0]["time"]["images_per_second"] == 20.0, "80 images in 4 seconds of steps"


@pytest.mark.parametrize("named", [True, False])
def test_the_time_of_another_training_is_left_out_and_said(timed: dict[str, BranchConfig], named: bool) -> None:
    here = last_weights_path("cross_entropy", 0)
    before = file_sha256(here)
    if named:
        here.write_bytes(b"what DVC restored from its cache")
    else:  # as older versions wrote it
        timing = read_json(train_timing_path("cross_entropy", 0), made_by="train")
        write_json(train_timing_path("cross_entropy", 0), {k: v for k, v in timing.items() if k != "weights_sha256"})
    row = load_training(timed)["cross_entropy", 0]
    assert row["seconds"] is None and "time" not in row
    other = f"is of the training of the weights {before[:12]}, which are {file_sha256(here)[:12]} here"
    unnamed = "is of a training whose weights it does not name (an older version wrote it)"
    assert row["time_reason"] == f"reports/timing {other if named else unnamed}"
