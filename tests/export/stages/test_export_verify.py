"""The stages export and verify, run as the pipeline runs them on one small branch."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import onnx
import pytest

from export.stages import export as export_stage
from export.stages import verify as verify_stage
from pipeline.layout.paths import artifact_dir, stripped_dir, verify_dir, verify_metrics_dir
from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.contract.manifest import verify_sidecar
from serving.golden.golden import Golden

PARAMS = """
prepare: {{dataset: folder, root: "{root}"}}
methods: {{cross_entropy: {{loss: cross_entropy}}, pixel_contrast: {{loss: pixel_contrast}}}}
branches:
  cross_entropy-s0: {{method: cross_entropy, loss: cross_entropy, seed: 0}}
  pixel_contrast-s0: {{method: pixel_contrast, loss: pixel_contrast, seed: 0}}
exports:
  cross_entropy-s0-onnx_fp32: {{branch: cross_entropy-s0, artifact: onnx_fp32, kind: onnx_fp32}}
  pixel_contrast-s0-onnx_fp32: {{branch: pixel_contrast-s0, artifact: onnx_fp32, kind: onnx_fp32}}
artifacts: {{onnx_fp32: {{kind: onnx_fp32}}, second: {{kind: onnx_fp32}}}}
targets: {{ort_fp32: {{artifact: onnx_fp32, options: {{threads: 1}}}}}}
verify: {{images: 2, max_side: 96, resamples: 100}}
"""


@pytest.fixture
def branch(stripped, prepared_folder, dataset_root, tmp_path, monkeypatch):
    """A checkout after the stages prepare and strip."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS.format(root=dataset_root))
    shutil.copytree(stripped, stripped_dir("pixel_contrast", 0))
    shutil.copytree(prepared_folder, "data/prepared")
    return tmp_path


def run(stage, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stage", "--method", "pixel_contrast", "--seed", "0", *arguments])
    return stage.main()


def test_export_then_verify(branch, exported, monkeypatch, capsys):
    folder = artifact_dir("pixel_contrast", 0, "onnx_fp32")
    folder.mkdir(parents=True)
    (folder / "leftover.bin").write_text("of an earlier export")
    assert run(export_stage, monkeypatch, "--artifact", "onnx_fp32") == 0
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "manifest.json", "golden"}
    assert {run.runtime for run in Golden.load(folder / "golden").lab} == {"onnxruntime", "openvino"}
    assert (folder / "model.onnx").read_bytes() == exported.read_bytes()
    assert not artifact_dir("pixel_contrast", 0, "second").exists()
    assert "artifacts/pixel_contrast-s0/onnx_fp32/model.onnx" in capsys.readouterr().out

    assert run(verify_stage, monkeypatch) == 0
    report = json.loads((verify_dir("pixel_contrast", 0) / "report.json").read_text())
    (row,) = report["targets"]
    assert (row["status"], row["target"]) == ("ok", "ort_fp32")
    prepared = json.loads((branch / "data/prepared/dataset.json").read_text())
    assert report["dataset"] == {"sha256": prepared["sha256"], "split": "val"}
    assert row["path"] == "artifacts/pixel_contrast-s0/onnx_fp32/model.onnx"
    assert row["sha256"] == verify_sidecar(folder / "model.onnx").sha256
    assert report["files"] == {name: file_sha256(Path(name)) for name in report["files"]}
    shipped = ("model.onnx", "manifest.json", "golden/golden.json", "golden/golden.npz")
    assert {(folder / name).as_posix() for name in shipped} <= set(report["files"])
    assert (stripped_dir("pixel_contrast", 0) / "segmentor.json").as_posix() in report["files"]
    assert (verify_dir("pixel_contrast", 0) / "ort_fp32.npz").exists()
    (metrics,) = verify_metrics_dir("pixel_contrast", 0).iterdir()
    assert metrics.name == "ort_fp32.json" and json.loads(metrics.read_text())["miou"] == round(row["miou"], 4)

    # The stage measures and leaves the judging to the gate: a bad engine is recorded, and the exit is 0.
    model = onnx.load(folder / "model.onnx")
    del model.metadata_props[:]
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert run(verify_stage, monkeypatch) == 0
    report = json.loads((verify_dir("pixel_contrast", 0) / "report.json").read_text())
    assert report["targets"][0]["status"] == "failed" and "sha256" in report["targets"][0]["reason"]


def test_an_unknown_artifact_is_refused_before_anything_is_written(branch, monkeypatch):
    with pytest.raises(UserError, match=r"no artifact 'onnx_fp31' in params\.yaml; did you mean 'onnx_fp32'"):
        run(export_stage, monkeypatch, "--artifact", "onnx_fp31")
    assert not artifact_dir("pixel_contrast", 0, "onnx_fp32").exists()


def test_what_is_not_there_yet_names_the_stage_to_run(branch, monkeypatch):
    shutil.rmtree("artifacts")
    for stage in (export_stage, verify_stage):
        with pytest.raises(UserError, match=r"segmentor\.json: no such file; expected the output of `strip`"):
            run(stage, monkeypatch)


def test_a_dataset_of_other_classes_is_refused(branch, monkeypatch):
    path = stripped_dir("pixel_contrast", 0) / "segmentor.json"
    path.write_text(path.read_text().replace('"sign"', '"post"'))
    for stage in (verify_stage, export_stage):
        with pytest.raises(UserError, match=r"other classes than the prepared data have \(first difference: 'post', "):
            run(stage, monkeypatch)
