"""The stage compile, run as the pipeline runs it: plans fitted to the prepared dataset, or why there is none."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from export.stages import compile as compile_stage
from pipeline.layout.paths import artifact_dir
from serving.contract.errors import UserError
from serving.contract.manifest import verify_sidecar
from serving.runtimes.tensorrt.plan import PlanDetails

PARAMS = """
prepare: {{dataset: folder, root: "{root}"}}
methods: {{cross_entropy: {{loss: cross_entropy}}, pixel_contrast: {{loss: pixel_contrast}}}}
branches:
  cross_entropy-s0: {{method: cross_entropy, loss: cross_entropy, seed: 0}}
  pixel_contrast-s0: {{method: pixel_contrast, loss: pixel_contrast, seed: 0}}
artifacts: {{onnx_fp32: {{kind: onnx_fp32}}}}
targets:
  ort_fp32: {{artifact: onnx_fp32}}
  plan: {{artifact: onnx_fp32, runtime: tensorrt, build: {{package: tensorrt_rtx, compute_capabilities: ["8.9"]}}}}
exports:
  cross_entropy-s0-onnx_fp32: {{branch: cross_entropy-s0, artifact: onnx_fp32, kind: onnx_fp32}}
  pixel_contrast-s0-onnx_fp32: {{branch: pixel_contrast-s0, artifact: onnx_fp32, kind: onnx_fp32}}
compiles:
  pixel_contrast-s0-plan: {{branch: pixel_contrast-s0, target: plan, artifact: onnx_fp32}}
"""


@pytest.fixture
def compiled(exported, prepared_folder, dataset_root, tmp_path, monkeypatch):
    """Runs the stage in a checkout after prepare and export; returns the target's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS.format(root=dataset_root))
    shutil.copytree(exported.parent, artifact_dir("pixel_contrast", 0, "onnx_fp32"))
    shutil.copytree(prepared_folder, "data/prepared")

    def run(target="plan"):
        arguments = ["compile", "--method", "pixel_contrast", "--seed", "0", "--target", target]
        monkeypatch.setattr(sys, "argv", arguments)
        assert compile_stage.main() == 0
        return artifact_dir("pixel_contrast", 0, target)

    return run


def test_a_plan_fits_the_images_of_the_dataset(compiled):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra tensorrt-rtx)")
    folder = compiled()
    assert {path.name for path in folder.iterdir()} == {"model.plan", "manifest.json", "inspection.json"}
    profile = PlanDetails.of(verify_sidecar(folder / "model.plan"), folder).profile
    # The images are 90 x 125.
    assert (profile.min, profile.opt, profile.max) == ((1, 32, 32, 3), (1, 96, 128, 3), (8, 96, 128, 3))


def test_without_the_dataset_it_names_the_stage_to_run(compiled):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra tensorrt-rtx)")
    shutil.rmtree("data/prepared")
    with pytest.raises(UserError, match="no prepared dataset; run the stage prepare first"):
        compiled()
    assert not artifact_dir("pixel_contrast", 0, "plan").exists()


def test_without_the_package_the_reason_lies_in_the_plans_place(compiled, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    folder = compiled()
    assert [path.name for path in folder.iterdir()] == ["skipped.json"]
    assert "tensorrt-rtx is not installed" in json.loads((folder / "skipped.json").read_text())["reason"]
    assert "plan: skipped: " in capsys.readouterr().out


def test_a_target_that_is_not_compiled_is_refused(compiled):
    with pytest.raises(UserError, match=r"params\.yaml has no compiled target 'ort_fp32'"):
        compiled("ort_fp32")
