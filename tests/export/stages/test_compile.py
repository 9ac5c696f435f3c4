"""The stage compile, run as the pipeline runs it: plans fitted to the prepared dataset, or why there is none."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from export.golden.inputs import Network, golden_inputs
from export.golden.lab import write_golden
from export.plans.timing_cache import TIMING_CACHES_DIR
from export.stages import compile as compile_stage
from pipeline.layout.paths import DEVICE_PATH, artifact_dir
from serving.contract.errors import UserError
from serving.contract.files import write_json
from serving.contract.manifest import verify_sidecar
from serving.engines.runtimes.tensorrt.plan import PlanDetails

BUILD = '{package: tensorrt_rtx, compute_capabilities: ["8.9"]}'
PARAMS = """
prepare: {{dataset: folder, root: "{root}"}}
methods: {{cross_entropy: {{loss: cross_entropy}}, pixel_contrast: {{loss: pixel_contrast}}}}
branches:
  cross_entropy-s0: {{method: cross_entropy, loss: cross_entropy, seed: 0}}
  pixel_contrast-s0: {{method: pixel_contrast, loss: pixel_contrast, seed: 0}}
artifacts: {{onnx_fp32: {{kind: onnx_fp32}}}}
targets:
  ort_fp32: {{artifact: onnx_fp32}}
  plan: {{artifact: onnx_fp32, runtime: tensorrt, build: BUILD}}
exports:
  cross_entropy-s0-onnx_fp32: {{branch: cross_entropy-s0, artifact: onnx_fp32, kind: onnx_fp32}}
  pixel_contrast-s0-onnx_fp32: {{branch: pixel_contrast-s0, artifact: onnx_fp32, kind: onnx_fp32}}
compiles:
  pixel_contrast-s0-plan: {{branch: pixel_contrast-s0, target: plan, artifact: onnx_fp32}}
"""


@pytest.fixture
def compiled(exported, prepared_folder, prepared, segmentor, info, dataset_root, tmp_path, monkeypatch):
    """Runs the stage in a checkout after prepare and export; returns the target's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS.format(root=dataset_root).replace("BUILD", BUILD))
    shutil.copytree(exported.parent, artifact_dir("pixel_contrast", 0, "onnx_fp32"))
    shutil.copytree(prepared_folder, "data/prepared")
    write_golden(
        artifact_dir("pixel_contrast", 0, "onnx_fp32") / "model.onnx", golden_inputs(prepared, Network(segmentor, info))
    )
    write_json(DEVICE_PATH, {"hardware_sha256": "0" * 64})

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


def test_plans_of_tensorrt_share_their_timings_outside_of_all_stages(compiled, fake_gpu, tmp_path):
    fake_gpu(package="tensorrt", version="11.1.0")
    params = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace(BUILD, "{package: tensorrt}"))
    caches = set()
    for _ in range(2):
        folder = compiled()
        caches.add(PlanDetails.of(verify_sidecar(folder / "model.plan"), folder).extra["timing_cache_sha256"])
    assert len(caches) == 1 and len(list(TIMING_CACHES_DIR.iterdir())) == 1


def test_the_gpu_that_the_target_runs_on_is_the_one_that_it_is_built_on(compiled, fake_gpu, tmp_path):
    _, library = fake_gpu(package="tensorrt", version="11.1.0", devices=2)
    params = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace(BUILD, "{package: tensorrt}, options: {device_id: 1}"))
    compiled()
    assert library.builders[0].device == 1
