"""`python -m export.check`: exit 0 when all pass, 1 when a check failed, 2 for the user's mistake."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from export import check
from export.checks import CHECKS
from serving.contract.errors import UserError
from serving.contract.manifest import sidecar_path

PARAMS = """
verify: {images: 2, max_side: 96, resamples: 100}
methods: {cross_entropy: {loss: cross_entropy}, pixel_contrast: {loss: pixel_contrast}}
branches:
  cross_entropy-s0: {method: cross_entropy, loss: cross_entropy, seed: 0}
  pixel_contrast-s0: {method: pixel_contrast, loss: pixel_contrast, seed: 0}
exports:
  cross_entropy-s0-onnx_fp32: {branch: cross_entropy-s0, artifact: onnx_fp32, kind: onnx_fp32}
  pixel_contrast-s0-onnx_fp32: {branch: pixel_contrast-s0, artifact: onnx_fp32, kind: onnx_fp32}
artifacts: {onnx_fp32: {kind: onnx_fp32}}
targets: {ort_fp32: {artifact: onnx_fp32}}
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory with small settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["check", *map(str, arguments)])
        status = check.main()
        return status, capsys.readouterr().out

    return run


def test_a_sound_engine_passes(engine, stripped, prepared_folder, dataset_root, workplace, run):
    status, output = run(engine, "--reference", stripped, "--data", prepared_folder, "--root", dataset_root, "--json")
    found = json.loads(output)
    assert status == 0 and found["passed"] is True
    assert [result["name"] for result in found["checks"]] == list(CHECKS)
    assert {result["status"] for result in found["checks"]} == {"pass"}


def test_the_reference_is_found_through_the_manifest(engine, stripped, workplace, run):
    shutil.copytree(stripped, workplace / "artifacts" / "pixel_contrast-s0" / "stripped")
    status, output = run(engine, "--json")
    statuses = {result["name"]: result["status"] for result in json.loads(output)["checks"]}
    assert status == 0
    skipped = {name for name, each in statuses.items() if each == "skipped"}
    assert skipped == {"logits", "masks", "agreement", "accuracy"}
    assert statuses["shapes"] == statuses["batch"] == statuses["extremes"] == "pass"


def test_another_hash_fails_and_the_other_checks_still_run(engine, stripped, workplace, run):
    sidecar = engine.with_name("manifest.json")
    manifest = json.loads(sidecar.read_text())
    manifest["sha256"] = "0" * 64
    sidecar.write_text(json.dumps(manifest))
    status, output = run(engine, "--reference", stripped, "--json")
    found = json.loads(output)
    statuses = {result["name"]: result["status"] for result in found["checks"]}
    assert status == 1 and found["passed"] is False
    assert statuses.pop("integrity") == "fail"
    assert set(statuses.values()) == {"pass", "skipped"}


def test_a_table_names_every_check(engine, stripped, workplace, run):
    status, output = run(engine, "--reference", stripped)
    assert status == 0
    assert all(name in output for name in CHECKS)
    assert f"{len(list(CHECKS)) - 4} pass, 4 skipped" in output
    assert "[batch" in output, "brackets are not markup"


def test_the_engine_runs_as_the_options_say(engine, stripped, workplace, run):
    status, output = run(
        engine, "--reference", stripped, "--runtime", "openvino", "--option", "precision=f32", "--json"
    )
    (precision,) = [found for found in json.loads(output)["checks"] if found["name"] == "precision"]
    assert status == 0 and "OpenVINO" in precision["detail"]


def test_a_missing_manifest_is_a_failure_and_not_a_mistake_of_usage(engine, workplace, run):
    engine.with_name("manifest.json").unlink()
    status, output = run(engine, "--json")
    assert status == 1 and not json.loads(output)["passed"]


def test_mistakes_of_usage(engine, workplace, run):
    with pytest.raises(UserError, match=r"nowhere\.onnx: no such file"):
        run("nowhere.onnx")
    (workplace / "picture.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"picture\.jpg: expected an engine.*has no manifest beside it"):
        run("picture.jpg")
    with pytest.raises(UserError, match=r"artifacts/pixel_contrast-s0/stripped: no such folder.*--reference"):
        run(engine)
    with pytest.raises(UserError, match=r"empty/segmentor\.json: no such file"):
        run(engine, "--reference", "empty")
    with pytest.raises(UserError, match="presision"):
        run(engine, "--reference", "empty", "--runtime", "openvino", "--option", "presision=bf16")
    with pytest.raises(UserError, match="tensorflow"):
        run(engine, "--reference", "empty", "--runtime", "tensorflow")


def test_a_dataset_that_is_not_there_is_a_mistake(engine, stripped, workplace, run):
    with pytest.raises(UserError, match="no prepared dataset"):
        run(engine, "--data", "nowhere", "--reference", stripped)


def test_data_of_other_classes_are_a_mistake(engine, stripped, prepared_folder, dataset_root, workplace, run):
    manifest = sidecar_path(engine)
    manifest.write_text(manifest.read_text().replace('"road"', '"street"'))
    with pytest.raises(UserError, match=r"made for other classes .* \(first difference: 'street', the data 'road'\)"):
        run(engine, "--reference", stripped, "--data", prepared_folder, "--root", dataset_root)


@pytest.mark.slow
def test_the_process_says_what_is_wrong_and_exits(tmp_path, repository):
    environment = os.environ | {"PYTHONPATH": str(repository)}
    command = [sys.executable, "-m", "export.check", "nowhere.onnx"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere.onnx: no such file") and done.stderr.count("\n") == 1


def test_a_folder_is_called_one(workplace, run):
    with pytest.raises(UserError, match="is a folder; expected an engine"):
        run(workplace)


@pytest.mark.parametrize("name", ["part.onnx", "part.npz"])
def test_what_is_there_is_not_overwritten(workplace, run, name):
    (workplace / "model.onnx").write_bytes(b"")
    (workplace / name).write_bytes(b"mine")
    with pytest.raises(UserError, match=rf"--minimise part\.onnx: .*got {name}, already there"):
        run("model.onnx", "--minimise", "part.onnx")
