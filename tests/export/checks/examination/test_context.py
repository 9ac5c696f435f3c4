"""The context of a check: what it opens, what it refuses, what it says is missing."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from export.checks import CHECKS
from export.checks.examination.config import VerifyConfig
from export.checks.examination.context import CheckResult, SkippedError, limit
from export.checks.examination.images import padded_scenes
from export.checks.verification import run_checks
from export.graph.inner_logits import expose_logits
from serving.contract.errors import UserError
from serving.contract.manifest import read_sidecar, write_sidecar

NEED_REFERENCE = {"logits", "masks", "agreement", "shapes", "batch", "extremes", "accuracy"}
NEED_IMAGES = {"logits", "masks", "agreement", "accuracy"}


def test_every_check_answers_by_its_own_name(engine, examine):
    with examine(engine) as context:
        results = run_checks(context)
    assert [result.name for result in results] == list(CHECKS)
    assert {result.name: (result.status, result.detail) for result in results if result.status != "pass"} == {}
    assert all(result.detail and result.unit for result in results)


def test_what_is_missing_is_skipped_with_the_reason(engine, examine):
    with examine(engine, reference=None) as context:
        skipped = {result.name: result.detail for result in run_checks(context) if result.status != "pass"}
    assert set(skipped) == NEED_REFERENCE
    assert all("--reference" in detail for detail in skipped.values())
    with examine(engine, split=None) as context:
        skipped = {result.name: result.detail for result in run_checks(context) if result.status != "pass"}
    assert set(skipped) == NEED_IMAGES
    assert all("--data" in detail for detail in skipped.values())


def test_a_precision_without_a_limit_is_a_failure_that_names_the_key(engine, examine):
    write_sidecar(dataclasses.replace(read_sidecar(engine), precision="fp24"), engine)
    with examine(engine, config=VerifyConfig(images=1, max_side=64), max_miou_drop_points={}) as context:
        failed = {result.name: result.detail for result in run_checks(context) if result.status == "fail"}
    assert "verify.max_logit_error: no limit for precision 'fp24'" in failed["logits"]
    assert "gate.max_miou_drop_points" in failed["accuracy"]
    with pytest.raises(UserError, match="fp16"):
        limit({"fp16": 1.0}, "fp32", "verify.max_logit_error")


def test_a_network_that_answers_alike_to_all_is_inconclusive_about_slots(engine, examine, monkeypatch):
    monkeypatch.setattr("export.checks.running.batch.LARGEST_LIMIT", 10.0)
    with examine(engine, config=VerifyConfig(max_logit_error={"fp32": 10.0})) as context:
        (result,) = run_checks(context, ["batch"])
    assert result.status == "inconclusive" and "slots cannot be told" in result.detail


def test_a_check_that_trips_over_anything_has_failed(engine, examine, monkeypatch):
    def broken(context):
        raise ZeroDivisionError("inside a library\nover two lines")

    monkeypatch.setattr("export.checks.static.contract.check", broken)
    with examine(engine) as context:
        contract, structure = run_checks(context, ["contract", "structure"])
    assert (contract.status, contract.detail) == ("fail", "ZeroDivisionError: inside a library over two lines")
    assert structure.status == "pass"


def test_the_exposed_copy_is_the_shipped_graph_and_one_output(exported):
    model = onnx.load(exported)
    exposed = expose_logits(model)
    assert [output.name for output in exposed.graph.output] == ["mask", "logits"]
    assert exposed.graph.node == model.graph.node and exposed.graph.initializer == model.graph.initializer
    assert [output.name for output in expose_logits(exposed).graph.output] == ["mask", "logits"]
    assert len(model.graph.output) == 1, "the shipped graph is left alone"


def test_a_graph_without_logits_is_refused(exported):
    model = onnx.load(exported)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["scores" if name == "logits" else name for name in names]
    with pytest.raises(UserError, match="no inner tensor 'logits'"):
        expose_logits(model)


def test_an_engine_that_shows_no_graph_is_judged_by_its_masks(engine, examine, monkeypatch):
    """A compiled engine, stood in for by ours with its graph hidden."""

    def hidden(self):
        raise SkippedError("hidden")

    with examine(engine) as context:
        monkeypatch.setattr(type(context), "shows_logits", property(lambda self: False))
        monkeypatch.setattr(type(context), "model", property(hidden))
        results = {result.name: result.status for result in run_checks(context)}
    skipped = {name for name, status in results.items() if status == "skipped"}
    assert skipped == {"contract", "structure", "finite", "exposure", "logits"}, "the runtime tells the precision"
    assert {status for name, status in results.items() if name not in skipped} == {"pass"}


def test_masks_of_another_shape_are_refused(engine, examine, monkeypatch):
    with examine(engine) as context:
        monkeypatch.setattr(context.engine, "infer", lambda images: {"mask": np.zeros((1, 2, 2), np.uint8)})
        with pytest.raises(UserError, match=r"gave a mask of uint8 \[1, 2, 2\]; expected uint8 \[1, 32, 32\]"):
            context.masks(np.zeros((1, 32, 32, 3), np.uint8))


def test_an_ill_conditioned_image_may_lose_what_pytorch_loses(engine, examine, reference, monkeypatch):
    """The tolerance is set below any rounding: only what PyTorch loses itself is then allowed."""
    config = VerifyConfig(max_logit_error={"fp32": 1e-12})
    with examine(engine, config=config) as context:
        monkeypatch.setattr(reference, "rounding_error", lambda images, precision: 1e-12)
        (result,) = run_checks(context, ["extremes"])
        assert result.status == "fail" and "PyTorch's own rounding in fp32 is off by 1.00e-12 there" in result.detail
        monkeypatch.setattr(reference, "rounding_error", lambda images, precision: 1e-3)
        (result,) = run_checks(context, ["extremes"])
        assert result.status == "pass" and result.threshold == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("rounding", "status", "allowed"),
    [(1e-3, "pass", 2e-3), (1e-12, "fail", 2e-12), (float("inf"), "fail", 1e-12), (float("nan"), "fail", 1e-12)],
)
def test_real_images_may_lose_twice_what_pytorch_loses(
    engine, examine, reference, monkeypatch, rounding, status, allowed
):
    config = VerifyConfig(max_logit_error={"fp32": 1e-12})
    monkeypatch.setattr(reference, "rounding_error", lambda images, precision: rounding)
    with examine(engine, config=config) as context:
        (result,) = run_checks(context, ["logits"])
    assert result.status == status and result.threshold == pytest.approx(allowed)
    assert "PyTorch's own rounding in fp32 is off by" in result.detail


def test_slots_are_told_apart_however_much_the_engine_may_lose(engine, examine):
    """INT8's limit is half the largest logit; beside itself an engine only sums in another order."""
    with examine(engine, config=VerifyConfig(max_logit_error={"fp32": 0.5})) as context:
        (result,) = run_checks(context, ["batch"])
    assert result.status == "pass" and result.threshold == 0.05


def test_pytorch_loses_little_by_rounding(reference):
    images = padded_scenes("x", 2, 64, 64, 32, seed=0).images
    errors = [reference.rounding_error(images, precision) for precision in ("fp32", "fp16", "bf16")]
    assert 0 < errors[0] < 1e-4 and 4 * errors[0] < errors[1] and 4 * errors[1] < errors[2] < 0.2
    assert reference.rounding_error(images, "int8") == errors[0], "PyTorch has no INT8 network to compare with"
    before = reference.logits(images)
    assert np.array_equal(reference.logits(images), before), "the double-precision copy leaves the reference alone"
    assert reference.logits(images).dtype == np.float32


def test_numbers_that_json_cannot_hold_are_left_out():
    assert CheckResult.decided(False, float("inf"), 1.0, "", "").measured is None
    assert CheckResult.decided(False, float("nan"), 1.0, "", "").measured is None
    assert CheckResult.decided(True, 0.5, 1.0, "", "").measured == 0.5
