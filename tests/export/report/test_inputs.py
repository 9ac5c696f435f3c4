"""What the report is made of has to be of the data and the machine that it names."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path

import pytest

from export.machine.hardware import hardware_sha256
from export.records.expected import ExpectedTarget
from export.report.blocks import origin
from export.report.inputs import commit, require_one_origin, unexamined
from export.report.report import build_report
from pipeline.layout.branches import BranchConfig
from serving.contract.errors import UserError
from tests.export.report.test_report import inputs

DATASET = {"sha256": "a" * 64, "split": "val"}
VERIFY, BENCHMARK = Path("reports/verify/a-s0/report.json"), Path("reports/benchmark.json")


@pytest.fixture
def device():
    found = copy.deepcopy(dict(inputs().device))
    return found | {"hardware_sha256": hardware_sha256(found["hardware"])}


@pytest.fixture
def measured(device):
    benchmark = {"dataset": dict(DATASET), "hardware_sha256": device["hardware_sha256"]}
    return {VERIFY: ("verify", {"dataset": dict(DATASET)}), BENCHMARK: ("benchmark", benchmark)}


def git(*arguments):
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *arguments], check=True, capture_output=True)


def test_a_commit_is_dirty_where_code_or_settings_differ_and_not_where_results_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
    Path("metrics").mkdir()
    for name in ("dvc.lock", "metrics/a.json", "params.yaml"):
        Path(name).write_text("before")
    git("init")
    assert commit() is None  # nothing is committed yet
    git("add", ".")
    git("commit", "-m", "x")
    found = commit()
    assert re.fullmatch(r"[0-9a-f]{40}", found)
    for name in ("dvc.lock", "metrics/a.json", "untracked"):
        Path(name).write_text("after")
    assert commit() == found
    Path("params.yaml").write_text("after")
    assert commit() == f"{found}-dirty"
    assert f"commit `{found[:12]}-dirty`" in origin(build_report(inputs(commit=commit())))


def test_numbers_of_this_data_and_machine_are_taken(measured, device):
    require_one_origin(measured, DATASET, device)


def test_numbers_of_other_data_or_another_machine_are_named_all_at_once(measured, device):
    measured[VERIFY][1]["dataset"]["sha256"] = "b" * 64
    measured[BENCHMARK][1]["dataset"]["split"] = "test"
    measured[BENCHMARK][1]["hardware_sha256"] = "c" * 64
    with pytest.raises(UserError) as refused:
        require_one_origin(measured, DATASET, device)
    of, here = "measured on data", f"data/prepared has {'a' * 12}, split val"
    assert str(refused.value).split("; ") == [
        f"{VERIFY}: {of} {'b' * 12}, split val, {here}: run verify again",
        f"{BENCHMARK}: {of} {'a' * 12}, split test, {here}: run benchmark again",
        f"{BENCHMARK}: measured on machine {'c' * 12}, reports/device.json is of {device['hardware_sha256'][:12]}: "
        "run device and benchmark again",
    ]


def test_a_record_that_does_not_say_its_data_is_to_be_made_again(measured, device):
    del measured[VERIFY][1]["dataset"]
    with pytest.raises(UserError, match=r"a-s0/report\.json: made by an older version, .*: run verify again$"):
        require_one_origin(measured, DATASET, device)


def test_a_machine_that_was_edited_is_refused(measured, device):
    device["hardware"]["cpu"] = "Another CPU"
    with pytest.raises(UserError, match="does not fit its hardware: run device again"):
        require_one_origin(measured, DATASET, device)


def test_engines_that_no_target_is_about_are_found_and_what_plans_are_compiled_from_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("onnx_fp32/model.onnx", "onnx_fp16/model.onnx", "plan/model.plan", "onnx_old/model.onnx", "old/MODEL.PLAN")
    branch = Path("artifacts/a-s0")
    for name in (*names, "onnx_fp32/manifest.json", "trained/model.onnx"):
        (branch / name).parent.mkdir(parents=True, exist_ok=True)
        (branch / name).write_bytes(b"x")
    targets = (("ort", "onnx_fp32", "onnxruntime"), ("plan", "onnx_fp16", "tensorrt"))
    expected = [ExpectedTarget("a", 0, *target) for target in targets]
    examined = [f"{branch}/onnx_fp32/model.onnx", f"{branch}/plan/model.plan"]
    found = unexamined({"a-s0": BranchConfig("a", "a", 0)}, expected, examined)
    assert found == [f"{branch}/old/MODEL.PLAN", f"{branch}/onnx_old/model.onnx"]
