"""TensorRT plans of every kind of network, and what the command says of those that are not as asked."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import plans
from benchmarks.networks import NETWORKS
from benchmarks.plans import Built, build_all, build_side_by_side, line
from pipeline.models.network.config import ModelConfig
from serving.contract.errors import UnavailableError, UserError

TINY = {"tiny": ModelConfig("mobilenetv3_small_100", False, "light", {"width": 16})}


def require_rtx():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra tensorrt-rtx)")


@pytest.mark.slow
def test_it_builds_and_says_in_which_precision(monkeypatch, capsys):
    require_rtx()
    monkeypatch.setattr(plans, "NETWORKS", TINY)
    monkeypatch.setattr(sys, "argv", ["plans", "--precisions", "fp32", "fp16", "--json"])
    assert plans.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["network"], row["precision"], row["passed"]) for row in found] == [
        ("tiny", "fp32", True),
        ("tiny", "fp16", True),
    ]
    assert list(found[1]["layers"]) == ["fp16"] and found[1]["plan_bytes"] < found[0]["plan_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_builds_in_three_precisions(name):
    require_rtx()
    for built in build_all({name: NETWORKS[name]}, list(plans.PRECISIONS)):
        assert built.passed, built


@pytest.mark.parametrize(
    ("layers", "passed"),
    [({"int8": 9, "fp32": 1}, True), ({"int8": 7, "fp32": 3}, False), ({"fp32": 10}, False), ({}, False)],
)
def test_a_plan_in_another_precision_fails(layers, passed):
    assert Built("tiny", "int8", 1.0, 1.0, 1000, layers).passed is passed


def test_a_plan_that_does_not_build_closes_the_command(monkeypatch, capsys):
    def refused(*_args, **_kwargs):
        raise UserError("model.onnx: tensorrt-rtx cannot build it: a reason")

    monkeypatch.setattr(plans, "NETWORKS", TINY)
    monkeypatch.setattr(plans, "import_package", lambda _: None)
    monkeypatch.setattr(plans, "compile_plan", refused)
    monkeypatch.setattr(sys, "argv", ["plans", "--precisions", "fp32"])
    assert plans.main() == 1
    assert "FAIL  model.onnx: tensorrt-rtx cannot build it: a reason" in capsys.readouterr().out


def test_without_the_package_nothing_is_skipped_in_silence(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(UnavailableError, match=r"make install EXTRA=.*,tensorrt-rtx"):
        list(build_side_by_side(TINY, ["fp32"], 1))


@pytest.mark.slow
def test_networks_side_by_side_come_in_their_order_and_are_the_same_plans():
    require_rtx()
    networks = {"wide": ModelConfig("mobilenetv3_small_100", False, "light", {"width": 64}), **TINY}
    together = [plan for built in build_side_by_side(networks, ["fp32"], 2) for plan in built]
    alone = [plan for built in build_side_by_side(networks, ["fp32"], 1) for plan in built]
    assert [(plan.network, plan.layers) for plan in together] == [(plan.network, plan.layers) for plan in alone]
    assert [plan.network for plan in together] == ["wide", "tiny"] and all(plan.passed for plan in together)


def test_a_line_says_all_of_a_plan():
    text = line(Built("ocr", "int8", 12.0, 3.0, 5_000_000, {"fp32": 1, "int8": 9}))
    assert "\n" not in text and "5.0 MB  pass  1 fp32, 9 int8" in text
