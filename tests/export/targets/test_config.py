"""Sections `artifacts`, `targets` and `deploy`."""

from __future__ import annotations

from export.artifacts import ARTIFACT_KINDS
from export.artifacts.shared.options import OutputOptions
from export.targets.artifact_config import ArtifactConfig
from export.targets.config import DeployConfig, TargetConfig
from export.targets.limits import precision_limits, with_defaults
from serving.contract.schema import Problems, build


def problems_of(cls, values):
    problems = Problems()
    assert build(cls, values, "section", problems) is None
    return "\n".join(problems)


def test_options_become_those_of_the_kind():
    config = ArtifactConfig("onnx_fp32", {"output": "mask+confidence"})
    assert config.exporter_options() == OutputOptions("mask+confidence")
    assert ArtifactConfig("onnx_fp32").exporter_options() == OutputOptions()


def test_every_mistake_in_an_artifact_is_named():
    assert "unknown kind of artifact 'onnx_fp23'; did you mean 'onnx_fp32'?" in problems_of(
        ArtifactConfig, {"kind": "onnx_fp23"}
    )
    found = problems_of(ArtifactConfig, {"kind": "onnx_fp32", "options": {"output": "logits", "outptu": 1}})
    assert "expected one of mask, mask+confidence" in found and "options.outptu: unknown key" in found
    assert "did you mean 'output'?" in found


def test_every_mistake_in_a_target_is_named():
    assert "unknown runtime 'onnxruntim'; did you mean 'onnxruntime'?" in problems_of(
        TargetConfig, {"artifact": "onnx_fp32", "runtime": "onnxruntim"}
    )
    found = problems_of(TargetConfig, {"artifact": "a", "options": {"threads": 0}})
    assert "threads: expected 1 to 1024, got 0" in found
    assert "did you mean 'threads'?" in problems_of(TargetConfig, {"artifact": "a", "options": {"thread": 1}})
    assert "artifact: missing" in problems_of(TargetConfig, {})


def test_the_deployed_method_gets_every_target_and_the_others_what_is_compared():
    targets = {name: TargetConfig("onnx_fp32") for name in ("ort_fp32", "ort_other")}
    deploy = DeployConfig(method="pixel_contrast")
    assert list(deploy.targets_of("pixel_contrast", targets)) == ["ort_fp32", "ort_other"]
    assert list(deploy.targets_of("cross_entropy", targets)) == ["ort_fp32"]


def test_limits_are_those_of_the_kinds_and_of_runtimes():
    limits = precision_limits()
    assert set(limits) == {ARTIFACT_KINDS.resolve(name).precision for name in ARTIFACT_KINDS} | {"bf16", "tf32"}
    assert with_defaults("max_miou_drop_points", {"fp16": 9.0, "int4": 1.0}) == {
        "fp32": 0.02,
        "fp16": 9.0,
        "int8": 0.5,
        "bf16": 0.2,
        "tf32": 0.05,
        "int4": 1.0,
    }
