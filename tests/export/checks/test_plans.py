"""The checks on a TensorRT plan: on what it was built for all of them hold, and what it does not take is not a failure.

A stand-in runs the plan (`tests/fake_gpu.py`): these are the shapes that the checks ask for, not TensorRT's arithmetic.
"""

from __future__ import annotations

import dataclasses

import pytest

from export.checks.verification import run_checks
from export.plans.profile import plan_profile
from export.targets.plan_build import PlanBuild
from serving.contract.manifest import read_sidecar, write_sidecar
from serving.engines.runtimes.tensorrt.plan import PlanDetails

MASK_CHECKS = ("masks", "agreement", "shapes", "batch", "extremes", "accuracy")


@pytest.fixture
def plan_checks(exported, tmp_path, fake_gpu, examine, prepared):
    """Statuses and details of the checks that look at masks, for a plan of the shapes that a `build` asks for."""

    def checked(build, names=MASK_CHECKS, layers=None, precision="fp32", **gpu):
        cuda, _ = fake_gpu(**gpu)
        capability = ".".join(map(str, cuda.capability))
        source = read_sidecar(exported)
        sizes = [split.size(index) for split in prepared.splits.values() for index in range(len(split))]
        profile = plan_profile(build, source.input, lambda: sizes)
        details = PlanDetails("tensorrt_rtx", "1.7.1.116", (capability,), profile, {"layers": layers})
        path = tmp_path / "model.plan"
        path.write_bytes(b"PLAN" + exported.read_bytes())
        described = dataclasses.replace(source, kind="tensorrt", precision=precision, details=details.to_details())
        write_sidecar(described, path)
        with examine(path, runtime="tensorrt", options={}) as context:
            return {result.name: (result.status, result.detail) for result in run_checks(context, names)}

    return checked


def test_a_plan_fitted_to_the_dataset_passes_every_check(plan_checks):
    results = plan_checks(PlanBuild())
    assert {name: status for name, (status, _) in results.items()} == dict.fromkeys(MASK_CHECKS, "pass"), results
    assert "shapes within 1x32x32 to 8x96x128, which the engine takes" in results["shapes"][1]
    assert "batches of 3 and 8" in results["batch"][1]


@pytest.mark.parametrize(
    "build",
    [
        PlanBuild(min=(1, 64, 64)),
        PlanBuild(min=(1, 96, 128), opt=(1, 96, 128), max=(2, 96, 128)),
        PlanBuild(min=(1, 64, 96), opt=(1, 96, 128), max=(3, 128, 160)),
    ],
)
def test_checks_stay_inside_a_profile_that_params_yaml_names(plan_checks, build):
    results = plan_checks(build)
    assert {name: status for name, (status, _) in results.items()} == dict.fromkeys(MASK_CHECKS, "pass"), results


def test_what_a_plan_cannot_be_asked_is_skipped_with_the_shapes_it_takes(plan_checks):
    status, detail = plan_checks(PlanBuild(max=(1, 96, 128)))["batch"]
    assert status == "skipped" and "batches of 1 to 1 only (1x32x32 to 1x96x128)" in detail


def test_a_plan_that_does_not_take_the_images_of_the_dataset_fails(plan_checks):
    results = plan_checks(PlanBuild(opt=(1, 64, 64), max=(8, 64, 64)))
    for name in ("masks", "agreement", "accuracy"):
        status, detail = results[name]
        assert status == "fail" and "the plan takes [1, 32, 32, 3] to [8, 64, 64, 3]; rebuild it with a wider" in detail
    assert results["shapes"][0] == results["batch"][0] == results["extremes"][0] == "pass"


def test_layers_in_tensorfloat_32_are_not_single_precision(plan_checks):
    def judged(layers, precision, **gpu):
        return plan_checks(PlanBuild(), ("precision",), layers, precision, **gpu)["precision"]

    status, detail = judged({"tf32": 9}, "fp32")
    assert status == "fail" and "asked for fp32; strongly typed network of the plan: 9 tf32 of 9 layers" in detail
    assert judged({"tf32": 9}, "tf32")[0] == "pass"
    assert judged({"fp32": 9}, "tf32")[0] == "fail"
    status, detail = judged({"tf32": 9}, "tf32", capability=(7, 5))
    assert "the runtime has no tf32 kernels here and computes these in single precision" in detail
