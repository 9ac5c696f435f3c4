"""The benchmark of the export runs, and measures what it says."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import export as benchmark
from pipeline.models.network.config import ModelConfig
from serving.contract.errors import UserError


def test_it_measures_all_side_by_side(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "TARGET_SPEEDUP", 0.0)
    arguments = ["--backbone", "mobilenetv3_small_100", "--size", "64", "96", "--rounds", "3", "--json"]
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    assert benchmark.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == [1, 64, 96, 3] and found["met"] is True
    assert set(found["speedup"]) == set(found["latency_ms"]) - {benchmark.ENGINE}
    assert all(value > 0 for value in found["latency_ms"].values())
    assert found["operator_ms"]["Conv"] > 0 and found["nodes"] < 160
    report = benchmark.Report(**{name: found[name] for name in benchmark.Report.__dataclass_fields__})
    assert "PyTorch eager" in benchmark.show(report)


def test_a_size_that_the_network_does_not_take_is_refused():
    config = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False)
    with pytest.raises(UserError, match="multiples of the network's stride 32, got 50x96"):
        benchmark.measure(config, 50, 96, threads=1, rounds=1)


def test_turns_are_taken_in_both_orders():
    order = []
    tasks = {name: (lambda name=name: order.append(name)) for name in "ab"}
    latencies = benchmark._take_turns(tasks, 4)
    assert "".join(order) in ("baabbaabbaab", "abbaabbaabba")
    assert [len(values) for values in latencies.values()] == [4, 4]
