"""What a checkpoint costs is measured on the real state."""

from __future__ import annotations

import pytest

from benchmarks.losses.contrast_step import METHODS, contrast_costs, street_batches
from benchmarks.training import checkpoint_costs
from pipeline.models.network.config import ModelConfig


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
