"""What is refused before any rank starts."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.training.distributed.exchange import any_rank, from_first, own_positions, require_even_parts, require_gpus
from pipeline.training.methods import MethodConfig
from serving.contract.errors import UserError
from tests.pipeline.training.conftest import CONFIG

CUDA = torch.device("cuda")


@pytest.mark.parametrize("processes", [0, 3])
def test_processes_that_cannot_share_a_batch_are_refused(processes: int) -> None:
    with pytest.raises(ValueError, match="processes: "):
        dataclasses.replace(CONFIG, batch_size=8, processes=processes)


def test_torchrun_with_ranks_that_cannot_share_a_batch_is_refused() -> None:
    require_even_parts(8, 4)
    with pytest.raises(UserError, match=r"batch of 8 images evenly.*such as 9"):
        require_even_parts(8, 3)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    require_gpus(CUDA, 2)
    require_gpus(torch.device("cpu"), 3)
    with pytest.raises(UserError, match="3 on this machine, but torch sees 2"):
        require_gpus(CUDA, 3)


def test_only_the_stage_starts_processes(run) -> None:
    with pytest.raises(UserError, match="processes: 2, which the stage train alone starts"):
        run("a", MethodConfig("cross_entropy", CrossEntropy.Config()), dataclasses.replace(CONFIG, processes=2))


def test_one_process_agrees_with_itself() -> None:
    assert own_positions(5) == range(5)
    assert from_first("state") == "state"
    assert any_rank(True) and not any_rank(False)
