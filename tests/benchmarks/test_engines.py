"""The benchmark of engines runs every one beside PyTorch, and judges an aim by what the aim names."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import engines as benchmark
from benchmarks.engines import ENGINES, row
from serving.contract.errors import UserError


@pytest.mark.slow
def test_every_engine_takes_its_turns(monkeypatch, capsys):
    network = ["--backbone", "mobilenetv3_small_100", "--side", "64", "--threads", "1", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", ["engines", *network, "--json"])
    assert benchmark.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["input"] == [1, 64, 64, 3] and found["machine"]
    assert set(found["engines"]) | set(found["skipped"]) == {"pytorch", "pytorch_channels_last", *ENGINES}
    assert all(each["median_ms"] > 0 for each in found["engines"].values())
    assert found["engines"]["pytorch"]["speedup"] == 1 and found["engines"]["ort_int8"]["over"] == "ort_fp32"
    assert found["multiply_adds"] > 10**6 and found["yardstick_gops"] > 1 and "matrix_product" not in found["engines"]
    assert found["operator_ms"]["Conv"] > 0
    table = benchmark.table(found)
    assert "mobilenetv3_small_100 light, [1, 64, 64, 3]" in table and "operators of ort_fp32: " in table


def test_an_aim_is_judged_over_what_it_names():
    times = {"pytorch": [8.0, 8.0], "ort_fp32": [4.0, 4.0], "ort_int8": [2.5, 2.5], "openvino_bf16": [4.0, 4.0]}
    assert row("ort_fp32", times, 10**6, set())["met"] is True
    quantised = row("ort_int8", times, 10**6, set())
    assert (quantised["speedup"], quantised["speedup_over"], quantised["met"]) == (3.2, 1.6, False)
    assert quantised["gops"] == 0.8, "two million operations in 2.5 ms"
    assert row("openvino_bf16", times, 10**6, set())["met"] is None, "the aim is one of CPUs with AMX"
    assert row("openvino_bf16", times, 10**6, {"amx_bf16"})["met"] is False
    assert "1.60x ort_fp32 (aim 2x: missed)" in benchmark.table(
        {
            "network": "",
            "input": [],
            "threads": 1,
            "rounds": 2,
            "machine": "",
            "skipped": {},
            "multiply_adds": 0,
            "yardstick_gops": 0,
            "operator_ms": {"Conv": 1.0},
        }
        | {"engines": {"ort_int8": quantised}}
    )


def test_a_size_that_no_network_takes_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["engines", "--side", "100"])
    with pytest.raises(UserError, match="multiples of 32"):
        benchmark.main()
