"""What is refused before any rank starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.shared.distributed import own_rank
from pipeline.training.distributed.exchange import (
    any_rank,
    from_first,
    own_positions,
    require_even_parts,
    require_gpus,
    union_of_ranks,
)
from pipeline.training.methods import MethodConfig
from serving.contract.errors import UserError
from tests.pipeline.training.conftest import CONFIG
from tests.pipeline.training.distributed.ranks import on_two_ranks

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
    assert union_of_ranks({"a": "by itself"}) == {"a": "by itself"}


def own_entries() -> dict[str, str]:
    """Of a rank, as all ranks have them together."""
    rank = own_rank()
    return union_of_ranks({"both": f"first of {rank}", f"only {rank}": "alone"})


@pytest.mark.slow
def test_ranks_have_the_entries_of_all(tmp_path: Path) -> None:
    expected = {"both": "first of 0", "only 0": "alone", "only 1": "alone"}
    assert on_two_ranks(own_entries, tmp_path) == [expected, expected]
