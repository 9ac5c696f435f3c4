"""Optimisation levels of ONNX Runtime on a real, tiny engine whose level decides what it costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.latency.config import BenchmarkConfig, QuickProfileConfig
from export.latency.engine_latency import Engine
from export.latency.optimization import LevelComparison, has_levels, plan_comparisons
from export.report.blocks import benchmark_blocks
from serving.contract.manifest import InputSpec, Manifest, write_sidecar

PROFILE = QuickProfileConfig(sessions=3, pair_seconds=0.001, min_blocks=6, warm_up_seconds=0.05)
IMAGES = list(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
LEVELS = ("basic", "extended", "layout", "all")


@pytest.fixture
def engine(tmp_path):
    """Its large product is of constants alone: computed when opened at `basic` and above, in each run at `none`."""
    constant = numpy_helper.from_array(np.full((400, 400), 1e-3, np.float32), "constant")
    weights = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "weights")
    axes = numpy_helper.from_array(np.array([0, 1], np.int64), "axes")
    nodes = [
        helper.make_node("MatMul", ["constant", "constant"], ["product"]),
        helper.make_node("ReduceMean", ["product", "axes"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["scores"]),
        helper.make_node("Mul", ["scores", "mean"], ["logits"]),
        helper.make_node("ArgMax", ["logits"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, ["B", "H", "W"])
    graph = helper.make_graph(nodes, "network", [image], [mask], [constant, weights, axes])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    manifest = Manifest("ort", "onnx", "fp32", tuple("abcd"), tuple((i, i, i) for i in range(4)), InputSpec(stride=16))
    sha256 = write_sidecar(manifest, path).sha256
    return Engine("plain", 0, "ort", path, sha256, "onnxruntime", {"threads": 1, "optimization": "none"})


def measured(engine, levels=LEVELS):
    comparison = LevelComparison(engine, IMAGES, input_size=None, levels=levels, profile=PROFILE)
    generator = np.random.default_rng(0)
    for _ in range(PROFILE.sessions):
        comparison.run_group(generator)
    return comparison.result(generator)


def test_a_faster_level_is_named_and_one_that_gains_nothing_is_not(engine):
    slow = measured(engine)
    assert slow["used"] == "none" and set(slow["ratios"]) == set(LEVELS) and slow["rounds"] >= 18
    assert slow["faster"] in LEVELS and slow["ratios"][slow["faster"]]["high"] < 0.98
    fast = dataclasses.replace(engine, options={"threads": 1, "optimization": "basic"})
    found = measured(fast, ("none",))
    assert found["faster"] is None and found["ratios"]["none"]["low"] > 1


def test_the_report_says_what_to_write(engine):
    report = {
        "targets": [{"seed": 0}],
        "benchmark": {
            "targets": [],
            "optimization": {
                "ort": {"status": "ok", "used": "all", "faster": "layout"}
                | {"ratios": {"layout": {"value": 0.9, "low": 0.88, "high": 0.91}}},
                "other": {"status": "failed", "reason": "it does not open", "used": "all"},
            },
        },
    }
    assert benchmark_blocks(report) == []  # of no engine, no levels
    report["benchmark"]["targets"] = [
        {"method": "plain", "seed": 0, "target": "ort", "status": "ok", "throughput": [], "split_ms": {}}
        | {"latency_ms": {"p50": None}, "input_shape": [1, 32, 32, 3], "stable": True, "complete": True}
        | {"queries": 9, "sessions": []}
    ]
    blocks = benchmark_blocks(report)
    assert ["`ort`", "`all`", "0.900 [0.880, 0.910]", "`layout`"] in blocks[-2].rows
    first, second = blocks[-1].items
    assert "dvc exp run -S '++targets.ort.options.optimization=layout'" in first and "does not open" in second


def test_an_engine_that_changed_is_refused(engine):
    found = measured(dataclasses.replace(engine, sha256="f" * 64))
    assert found["status"] == "failed" and "run verify again" in found["reason"] and "ratios" not in found


def test_each_target_of_onnx_runtime_is_compared_once(engine):
    others = [
        dataclasses.replace(engine, method="contrast"),
        dataclasses.replace(engine, target="openvino", runtime="openvino", options={}),
        dataclasses.replace(engine, target="plugin", options={"provider": "plugin", "plugin": "openvino"}),
    ]
    assert [has_levels(each) for each in others] == [True, False, False]

    def planned(levels):
        return plan_comparisons([engine, *others], IMAGES, input_size=None, levels=levels, profile=PROFILE, clock=None)

    assert [each.engine.name for each in planned(BenchmarkConfig().optimization_levels)] == ["plain-s0/ort"]
    assert planned(()) == []
