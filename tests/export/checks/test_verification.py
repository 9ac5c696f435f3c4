"""A branch verified: rows for the report, evaluations for the certificate, nothing raised for a bad engine."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from export.checks import CHECKS
from export.checks.examination.config import VerifyConfig
from export.checks.verification import EngineTarget, verify_branch
from export.report.config import GateConfig
from export.targets.config import TargetConfig
from pipeline.evaluation.evaluation import Evaluation
from serving.contract.files import write_json
from serving.contract.manifest import read_sidecar, verify_sidecar, write_sidecar

CONFIG = TargetConfig("onnx_fp32", "onnxruntime", {"threads": 1})


def verified(engine, reference, prepared, **changes):
    settings = {
        "method": "pixel_contrast",
        "seed": 0,
        "config": VerifyConfig(images=2, max_side=128, resamples=100),
        "max_miou_drop_points": GateConfig().max_miou_drop_points,
        "boundary_ratio": 0.02,
    }
    targets = [EngineTarget("ort_fp32", engine, CONFIG)]
    return verify_branch(targets, reference, prepared.split("val"), **(settings | changes))


def test_a_sound_engine_is_ok_with_all_its_numbers(engine, reference, prepared, tmp_path):
    seen = []
    verification = verified(engine, reference, prepared, progress=seen.append)
    (row,) = verification.report["targets"]
    head = {"method": "pixel_contrast", "seed": 0, "target": "ort_fp32", "artifact": "onnx_fp32"}
    assert head.items() <= row.items()
    assert (row["status"], row["reason"], row["runtime"], row["precision"]) == ("ok", None, "onnxruntime", "fp32")
    assert row["sha256"] == verify_sidecar(engine).sha256
    assert row["path"] == engine.as_posix()
    assert 0.5 < row["miou"] < 1 and row["miou"] == pytest.approx(row["reference_miou"], abs=1e-3)
    assert abs(row["miou_drop_points"]) < 0.02 and row["agreement"] > 0.999
    low, high = row["miou_drop_ci95"]
    assert low <= row["miou_drop_points"] <= high
    assert 0 < row["largest_logit_error"] < 1e-4
    assert [check["name"] for check in row["checks"]] == list(CHECKS)
    assert {"name", "status", "measured", "threshold", "unit", "detail"} == set(row["checks"][0])
    assert "PyTorch" in seen and "ort_fp32: accuracy" in seen
    verification.save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "pytorch.npz", "ort_fp32.npz"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["class_names"] == list(reference.info.class_names)
    evaluation = Evaluation.load(tmp_path / "out" / "ort_fp32.npz")
    assert evaluation.miou == row["miou"]
    assert np.array_equal(evaluation.confusions, verification.evaluations["ort_fp32"].confusions)


def test_the_committed_metrics_are_the_same_every_time(engine, reference, prepared, tmp_path):
    first, second = (verified(engine, reference, prepared).metrics() for _ in range(2))
    assert first == second
    assert set(first["ort_fp32"]) == {"miou", "reference_miou", "miou_drop_points", "boundary_iou", "agreement"}
    write_json(tmp_path / "metrics.json", first)


@pytest.mark.parametrize("kind", ["missing", "truncated", "no manifest"])
def test_a_bad_engine_is_a_failed_row_and_not_an_exception(kind, engine, reference, prepared, tmp_path):
    if kind == "missing":
        engine.unlink()
    elif kind == "truncated":
        engine.write_bytes(engine.read_bytes()[:5000])
    else:
        engine.with_name("manifest.json").unlink()
    verification = verified(engine, reference, prepared)
    (row,) = verification.report["targets"]
    assert row["status"] == "failed" and f"of {len(list(CHECKS))} checks failed: integrity" in row["reason"]
    assert row["miou"] is None and row["miou_drop_points"] is None
    assert (row["sha256"] is None) == (kind == "missing")
    assert set(verification.evaluations) == {"pytorch"}
    verification.save(tmp_path / "out")


QUANTISED = {
    "images": {"calibration": {"images": 7, "sha256": ""}, "held_out": {"images": 5}, "asked": {"calibration": 24}},
    "miou_drop_points": 0.2,
    "limit_points": 0.3,
    "within_limit": True,
}


@pytest.mark.parametrize("said", [QUANTISED, {}, {"images": "many"}, QUANTISED | {"limit_points": "none"}])
def test_what_an_engine_was_quantised_with_is_noted_where_its_manifest_says_it(said, engine, reference, prepared):
    write_sidecar(dataclasses.replace(read_sidecar(engine), sha256=None, details={"quantisation": said}), engine)
    (row,) = verified(engine, reference, prepared).report["targets"]
    if said is not QUANTISED:
        assert "quantisation" not in row
        return
    assert row["quantisation"] == {
        "calibration": {"images": 7, "asked": 24},
        "held_out": {"images": 5, "asked": None},
        "miou_drop_points": 0.2,
        "limit_points": 0.3,
        "within_limit": True,
    }


def test_one_bad_target_does_not_stop_the_next(engine, exported, reference, prepared):
    engine.write_bytes(b"not an engine")
    targets = [EngineTarget("bad", engine, CONFIG), EngineTarget("good", exported, CONFIG)]
    report = verify_branch(
        targets,
        reference,
        prepared.split("val"),
        method="m",
        seed=3,
        config=VerifyConfig(images=1, max_side=64, resamples=100),
        max_miou_drop_points=GateConfig().max_miou_drop_points,
        boundary_ratio=0.02,
    ).report
    assert [row["status"] for row in report["targets"]] == ["failed", "ok"]
    assert report["reference"]["miou"] == report["targets"][1]["reference_miou"]
