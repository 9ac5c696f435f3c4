"""What a checkpoint costs is measured on the real state."""

from __future__ import annotations

from benchmarks.training import checkpoint_costs


def test_the_state_of_the_default_network_is_written_and_read_back() -> None:
    costs = checkpoint_costs(rounds=1)
    assert costs["write_seconds"] > 0 and costs["read_seconds"] > 0
    assert 4 * 4 * 2_500_000 < costs["bytes"] < 200_000_000, "weights, the best ones and two moments of AdamW, in fp32"
