"""What a checkpoint costs is measured on the real state, and what ranks bring on real steps."""

from __future__ import annotations

import pytest

from benchmarks.losses.contrast_step import METHODS, contrast_costs, street_batches
from benchmarks.training import checkpoint_costs, main, rank_speed
from pipeline.models.network.config import ModelConfig
from serving.contract.errors import UserError


def test_the_state_of_the_default_network_is_written_and_read_back() -> None:
    costs = checkpoint_costs(rounds=1)
    assert costs["write_seconds"] > 0 and costs["read_seconds"] > 0
    assert 4 * 4 * 2_500_000 < costs["bytes"] < 200_000_000, "weights, the best ones and two moments of AdamW, in fp32"


@pytest.mark.slow
def test_whole_steps_of_every_method_are_compared_with_the_baseline() -> None:
    model = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="light", head_options={"width": 16})
    costs = contrast_costs(model, *street_batches((64, 64), 2, 2), rounds=3)
    assert costs.keys() == set(METHODS)
    assert costs["cross_entropy"]["ratio"] == 1.0
    assert all(cost["seconds"] > 0 and cost["ratio"] > 0.1 for cost in costs.values()), costs


@pytest.mark.slow
def test_one_rank_and_two_are_timed() -> None:
    speed = rank_speed((64, 64), batch_size=4, steps=1, pairs=1)
    assert set(speed["images_per_second"]) == {"1", "2"}
    assert speed["ratio"] == speed["pairs"][0] > 0


def test_only_parts_that_there_are_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.training", "--parts", "contrast,rank"])
    with pytest.raises(UserError, match=r"no part 'rank'.*ranks"):
        main()
