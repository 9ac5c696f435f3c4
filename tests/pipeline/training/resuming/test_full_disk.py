"""A disk that fills up while a training writes a checkpoint: one line, and the training goes on once there is room."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.models.network.config import ModelConfig
from pipeline.training.config import TrainConfig
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig
from serving.contract.errors import UserError

BASELINE = MethodConfig("cross_entropy", CrossEntropy.Config())
SMALL = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="light", head_options={"width": 16})


@pytest.mark.slow
def test_a_training_goes_on_from_the_checkpoint_before_to_the_same_bytes(
    run: Callable[..., TrainResult],
    tiny_config: TrainConfig,
    tmp_path: Path,
    small_disk: Callable[[Path, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = dataclasses.replace(tiny_config, iterations=5, validate_every=3, checkpoint_every=2)
    disk = tmp_path / "cut/checkpoints"
    small_disk(disk, "24m")  # one state takes 15 MB, and there are two for a moment
    with pytest.raises(UserError) as caught:
        run("cut", BASELINE, config, model=SMALL)
    said = str(caught.value)
    assert "No space left on device" in said and "goes on from the last one" in said and "\n" not in said
    assert not (tmp_path / "cut/trainee.json").exists()
    left = sorted(path.name for path in disk.rglob("*") if path.is_file() and path.name != "lock")
    assert left == ["iteration-00000002.json", "iteration-00000002.safetensors"], "nothing half-written"
    small_disk(disk, "100m")
    run("cut", BASELINE, config, model=SMALL)
    assert "goes on after iteration 2 of 5" in capsys.readouterr().err
    run("whole", BASELINE, config, model=SMALL)
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_weights_that_find_no_room_are_not_taken_for_a_finished_training(
    run: Callable[..., TrainResult], tiny_config: TrainConfig, tmp_path: Path, small_disk: Callable[[Path, str], None]
) -> None:
    disk = tmp_path / "cut"
    small_disk(disk, "1m")
    with pytest.raises(UserError, match=r"^[^\n]*No space left on device[^\n]*$"):
        run("cut", BASELINE, dataclasses.replace(tiny_config, checkpoint_every=10, validate_every=10), model=SMALL)
    assert [path.name for path in disk.iterdir() if path.is_file()] == []
