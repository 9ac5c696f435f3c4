"""Curves that cannot be written, and what only another rank than the first can know and writes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.losses.shared.distributed import own_rank
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.segmentor import build_segmentor
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.distributed.batch_norm import synchronise_batch_norm
from pipeline.training.loop import TrainingData, train
from pipeline.training.recorder import SilentRecorder, TrainingRecorder
from pipeline.training.resuming.store import CheckpointStore
from pipeline.training.step import Objective
from serving.contract.errors import UserError
from tests.pipeline.training.conftest import CONFIG, MODEL
from tests.pipeline.training.distributed.global_step import CLASSES, CPU, IGNORED, methods, own_batch
from tests.pipeline.training.distributed.ranks import on_two_ranks

STATES = "TEST_STATES"


def test_a_rank_other_than_the_first_writes_the_file_that_its_message_names(tmp_path: Path) -> None:
    path = SilentRecorder(tmp_path / "states").not_finite(3, ["a.png", "b.png"], {"loss": float("nan")})
    assert json.loads(path.read_text()) == {"iteration": 4, "images": ["a.png", "b.png"], "means": {"loss": "nan"}}
    assert list(path.parent.iterdir()) == [path]


def test_curves_that_cannot_be_written_are_said_in_one_line(tmp_path: Path) -> None:
    curves = tmp_path / "curves"

    def recorder() -> TrainingRecorder:
        store = CheckpointStore(tmp_path / "checkpoints", "a" * 64, keep=1, say=print)
        return TrainingRecorder("a", folder=tmp_path, curves=curves, store=store, term=nn.Identity(), iterations=1)

    curves.write_text("somebody's file")
    with pytest.raises(UserError, match=rf"^{curves}: cannot be written: File exists$"):
        recorder()
    curves.unlink()
    with recorder() as told:
        (curves / "plots").write_text("in the way of the points, as a full disk would be")
        with pytest.raises(UserError, match=rf"^{curves}: the curves cannot be written: [^\n]* goes on [^\n]*$"):
            told.metrics(1, {"cross_entropy": 0.5})


@pytest.mark.slow
def test_what_the_second_rank_alone_sees_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATES, str(tmp_path / "states"))
    first, second = on_two_ranks(broken_on_the_second, tmp_path)
    assert "Connection closed by peer" in first, "the first rank waited for the second's gradients"
    (path,) = re.findall(r"and (\S*) names the images", second)
    kept = json.loads(Path(path).read_text())
    assert kept["iteration"] == 2 and kept["images"] == ["1-a.png", "1-b.png"]


def broken_on_the_second() -> str:
    """How a training ends on this rank, of which the second one's loss becomes NaN at the second iteration."""
    method = methods()["cross_entropy"]
    term = build_loss_term(method, num_classes=CLASSES, ignore_index=IGNORED, training_images=8)
    trainee = attach_training_heads(build_segmentor(MODEL, CLASSES, seed=0), term, auxiliary=False, seed=0)
    synchronise_batch_norm(trainee, CPU)
    supervised = _Broken((), Supervision(IGNORED, None, auxiliary_weight=0.0))
    data = TrainingData(
        [own_batch(number, slice(0)) for number in range(4)],
        lambda segmentor: 0.0,
        names=lambda iteration: [f"{iteration}-a.png", f"{iteration}-b.png"],
    )
    recorder = SilentRecorder(Path(os.environ[STATES]))
    try:
        train(trainee, Objective(method, term, supervised), data, CONFIG, seed=0, device=CPU, recorder=recorder)
    except (UserError, RuntimeError) as error:
        return str(error)
    return "it did not end"


class _Broken(SupervisedLoss):
    calls = 0

    def __call__(self, *arguments: Any) -> Any:
        output = super().__call__(*arguments)
        self.calls += 1
        if (self.calls, own_rank()) == (2, 1):
            object.__setattr__(output, "loss", output.loss * torch.nan)
        return output
