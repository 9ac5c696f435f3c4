"""The layer of every damage that changes a tensor of one is named, and of every other damage why there is none."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys

import onnx
import pytest
import torch

from export import check
from export.artifacts.shared.single_precision import named_model
from export.checks import CHECKS
from export.checks.examination.config import VerifyConfig
from export.checks.examination.reference import Reference
from export.checks.locating import location
from export.checks.locating.location import locate
from export.checks.verification import EngineTarget, run_checks, verify_branch
from export.report.config import GateConfig
from export.targets.config import TargetConfig
from pipeline.models.network.weights import tensors_sha256
from tests.export.checks import test_damages as damages

LAYERS = {
    damages.weights_of_one_layer_up: "backbone.encoder.blocks.3.1.se.conv_reduce",
    damages.normalisation_off: "normalisation",
    damages.argmax_off_by_one: "argmax",
    damages.classes_rotated: "argmax",
    damages.corners_aligned: "upsampling",
    damages.upsampled_by_nearest: "upsampling",
    damages.statistics_of_the_batch: "backbone.encoder.blocks.0.0.se.conv_expand",
    damages.not_a_number_in_a_weight: "backbone.encoder.blocks.1.0.conv_pw",
    damages.division_by_zero_at_white: "cast of the image",
    damages.clipped_at_the_top: "cast of the image",
}
REASONS = {
    damages.channels_swapped: "channels of the image are in another order",
    damages.slots_reversed: "in another slot",
    damages.mask_of_int64: "int64",
    damages.renamed_output: "'classes'",
    damages.weights_outside_the_file: "in other files",
}


@pytest.fixture(scope="module")
def exported_anew(segmentor):
    return named_model(segmentor, "mask")


@pytest.fixture
def once(exported_anew, monkeypatch):
    """The network is exported anew once for all damages: it takes seconds."""
    monkeypatch.setattr(location, "named_model", lambda *_: exported_anew)


def located(engine, examine, change, **changes):
    damages.damage(engine, change)
    with examine(engine, **changes) as context:
        return locate(context, run_checks(context, [name for name in CHECKS if name in damages.TABLE[change]]))


@pytest.mark.slow
@pytest.mark.parametrize("change", LAYERS, ids=lambda change: change.__name__)
def test_the_right_layer_is_named(change, engine, examine, once):
    found = located(engine, examine, change)
    assert found.located is not None, found.reason
    assert found.located.layer == LAYERS[change] and found.reason is None
    names = {name for node in onnx.load(engine).graph.node for name in node.output}
    assert found.located.tensor in names


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [change for change in damages.TABLE if change not in LAYERS], ids=lambda c: c.__name__
)
def test_of_any_other_damage_it_says_why_no_layer_is_named(change, engine, examine, once):
    found = located(engine, examine, change)
    assert found.located is None
    assert REASONS.get(change, "no values of a tensor were found wrong") in str(found.reason)


@pytest.mark.slow
def test_openvino_is_asked_itself(engine, examine, once):
    pytest.importorskip("openvino")
    found = located(engine, examine, damages.weights_of_one_layer_up, runtime="openvino")
    assert found.located is not None and found.located.layer == LAYERS[damages.weights_of_one_layer_up]
    assert found.located.error == pytest.approx(0.05, rel=0.1)


def test_of_a_stale_file_no_layer_is_named(engine, examine, segmentor, info):
    trained_on = copy.deepcopy(segmentor)
    with torch.no_grad():
        next(trained_on.parameters()).mul_(1.5)
    provenance = info.provenance | {"weights_sha256": tensors_sha256(trained_on.state_dict())}
    newer = Reference(trained_on, dataclasses.replace(info, provenance=provenance))
    with examine(engine, reference=newer) as context:
        found = locate(context, run_checks(context, ["integrity", "logits"]))
    assert found.located is None and "stale file" in str(found.reason)


def test_where_all_is_right_there_is_nothing_to_locate(engine, examine):
    with examine(engine) as context:
        found = locate(context, run_checks(context, ["contract", "logits"]))
    assert found.located is None and str(found.reason).startswith("no check failed")


@pytest.mark.slow
def test_the_command_and_the_stage_name_the_layer(
    engine, stripped, prepared_folder, dataset_root, prepared, reference, tmp_path, monkeypatch, capsys, once
):
    damages.damage(engine, damages.weights_of_one_layer_up)
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(prepared_folder), "--root", str(dataset_root)]
    monkeypatch.setattr(sys, "argv", ["check", str(engine), "--reference", str(stripped), *data, "--locate", "--json"])
    assert check.main() == 1
    found = json.loads(capsys.readouterr().out)
    assert set(found["located"]) == {"tensor", "layer", "error"} and "reason" not in found
    assert found["located"]["layer"] == LAYERS[damages.weights_of_one_layer_up]
    (row,) = verify_branch(
        [EngineTarget("ort", engine, TargetConfig("onnx_fp32", "onnxruntime", {"threads": 1}))],
        reference,
        prepared.split("val"),
        method="m",
        seed=0,
        config=VerifyConfig(images=1, max_side=64, resamples=100),
        max_miou_drop_points=GateConfig().max_miou_drop_points,
        boundary_ratio=0.02,
    ).report["targets"]
    assert row["located"]["layer"] == LAYERS[damages.weights_of_one_layer_up] and row["located_reason"] is None


@pytest.mark.slow
def test_looking_takes_little_more_memory_than_the_checks(engine, stripped, prepared_folder, dataset_root, tmp_path):
    damages.damage(engine, damages.weights_of_one_layer_up)
    command = [sys.executable, "-m", "export.check", str(engine), "--reference", str(stripped)]
    command += ["--data", str(prepared_folder), "--root", str(dataset_root), "--json"]
    peaks = {}
    for more in ([], ["--locate"]):
        with (tmp_path / "out").open("wb") as out, subprocess.Popen([*command, *more], stdout=out) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 1
        peaks[bool(more)] = usage.ru_maxrss
    assert json.loads((tmp_path / "out").read_text())["located"] is not None
    assert peaks[True] <= 1.5 * peaks[False]
