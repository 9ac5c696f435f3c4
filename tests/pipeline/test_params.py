"""params.yaml as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.params import load_params, read_yaml, validate_params
from pipeline.recipes import merge
from serving.contract.errors import UserError


@pytest.fixture
def values(repository: Path) -> dict[str, Any]:
    return read_yaml(repository / "params.yaml")


def test_the_committed_file_is_valid(repository: Path) -> None:
    params = load_params(repository / "params.yaml")
    assert params.profile == "quick"
    assert params.methods["pixel_contrast"].term_iterations(800) == range(100, 800)
    assert params.methods["cross_entropy"].term_iterations(800) == range(0)


def test_all_problems_are_listed_at_once(values: dict[str, Any]) -> None:
    wrong = {
        "trian": {},
        "profile": "fast",
        "train": {"iterations": "many"},
        "methods": {"pixel_contrast": {"tau": 0.1}, "bad-name": {"loss": "x"}, "other": {"loss": "pixel_contrst"}},
        "branches": {"pixel_contrats-s0": {"method": "pixel_contrats", "loss": "pixel_contrast", "seed": 0}},
        "targets": {"ort_fp32": {"artifact": "onnx_fp23"}},
    }
    merge(values, wrong)
    with pytest.raises(UserError) as caught:
        validate_params(values, "params.yaml")
    message = str(caught.value)
    for expected in [
        "trian: unknown section; did you mean 'train'?",
        "profile: expected one of quick, release, got str 'fast'",
        "train.iterations: expected a whole number, got str 'many'",
        "methods.pixel_contrast.tau: unknown key; ",
        "methods.bad-name: a method's name",
        "methods.other.loss: unknown loss 'pixel_contrst'; did you mean 'pixel_contrast'?",
        "branches.pixel_contrats-s0.method: 'pixel_contrats' is not in the section methods; did you mean",
        "targets.ort_fp32.artifact: 'onnx_fp23' is not in the section artifacts; did you mean 'onnx_fp32'?",
    ]:
        assert expected in message, message


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            {"certify": {"baseline": "crossentropy"}},
            "certify.baseline: 'crossentropy' is not in the section branches; did",
        ),
        ({"certify": {"target": "ort_fp23"}}, "certify.target: 'ort_fp23' is not in the section targets; did you mean"),
        ({"certify": {"target": "ort_int8"}}, "certify.target: 'ort_int8' is not in deploy.everywhere"),
        ({"gate": {"required": ["ort_int4"]}}, "gate.required: 'ort_int4' is not in the section targets"),
        ({"deploy": {"method": "contextrast_pp"}}, "deploy.method: 'contextrast_pp' is not in the section branches"),
        ({"artifacts": {"../up": {"kind": "onnx_fp32"}}}, "artifacts.../up: names become folders"),
        ({"targets": {"a b": {"artifact": "onnx_fp32"}}}, "targets.a b: names become folders"),
        ({"artifacts": {"trained": {"kind": "onnx_fp32"}}}, "artifacts.trained: a branch has a folder of that name"),
        ({"artifacts": {"tensorrt_fp16": {"kind": "onnx_fp32"}}}, "targets.tensorrt_fp16: an artifact has that name"),
    ],
)
def test_names_that_do_not_fit_together_are_refused(
    values: dict[str, Any], wrong: dict[str, Any], expected: str
) -> None:
    merge(values, wrong)
    with pytest.raises(UserError) as caught:
        validate_params(values, "params.yaml")
    assert expected in str(caught.value)


def test_no_method_is_called_as_the_control(values: dict[str, Any]) -> None:
    values["methods"]["control"] = {"loss": "cross_entropy"}
    values["branches"]["control-s0"] = {"method": "control", "loss": "cross_entropy", "seed": 0}
    with pytest.raises(UserError, match=r"branches\.control-s0\.method: 'control' is the baseline against itself"):
        validate_params(values, "params.yaml")


def test_a_schedule_that_leaves_the_loss_term_no_step_is_refused(values: dict[str, Any]) -> None:
    merge(values, {"train": {"iterations": 1}, "methods": {"pixel_contrast": {"warmup_fraction": 0.9}}})
    with pytest.raises(UserError, match="leaves the loss term no step"):
        validate_params(values, "params.yaml")


def test_keys_that_are_there_twice_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("prepare: {root: a}\ntrain:\n  iterations: 1\n  seed: 1\n  iterations: 2\nprepare: {root: b}\n")
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert sorted(line.partition("params.yaml: ")[2] for line in str(caught.value).splitlines()) == [
        "iterations: in line 3 and again in line 5; expected it once",
        "prepare: in line 1 and again in line 6; expected it once",
    ]


def test_a_merged_key_that_is_given_anew_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: &a {x: 1}\nouter: {b: &b {<<: *a, x: 2}}\nc: {<<: *b}\n")
    assert read_yaml(path) == {"a": {"x": 1}, "outer": {"b": {"x": 2}}, "c": {"x": 2}}


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa", b"a: [", b"- 1\n", b""])
def test_a_missing_or_broken_file_is_one_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"params\.yaml"):
        load_params(path)
