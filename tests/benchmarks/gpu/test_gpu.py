"""The script for the first GPU, at toy size on the CPU: that it runs, and that what fails stops nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.gpu import __main__ as gpu


def run(repository, *arguments):
    """The script, with the stand-in for DVCLive in DVCLive's place, as on a bare machine."""
    command = [str(repository / "benchmarks" / "gpu.sh"), "--device", "cpu", "--toy", *arguments]
    given = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(repository / "benchmarks" / "gpu" / "absent")}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=1500, check=False)


@pytest.mark.slow
def test_every_step_runs_at_toy_size(repository, tmp_path):
    output = tmp_path / "gpu.json"
    done = run(repository, "--output", str(output))
    found = json.loads(output.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: step["status"] for name, step in found["steps"].items()} == dict.fromkeys(gpu.STEPS, "done")
    results = {name: step["result"] for name, step in found["steps"].items()}
    same = {"repeats": True, "resumes": True, "repeats_deterministic": True}
    assert results["methods"] == dict.fromkeys(("cross_entropy", "pixel_contrast_bank"), same)
    rows = results["speed"]["toy"]
    switches = {"as is", "cudnn_benchmark", "fused_optimizer", "tf32", "all"}
    assert set(rows) == switches | {"fed", "pixel_contrast", "contextrast"}
    assert rows["pixel_contrast"]["milliseconds"]["contrast"] > 0 and "contrast" not in rows["as is"]["milliseconds"]
    rounding = results["precision"]["rounding"]
    assert rounding["fp32"] < rounding["tf32"] < rounding["bf16"] and rounding["fp32"] < rounding["fp16"]
    assert results["tests"]["exit_status"] == 0 and results["tests"]["tests"] > 10
    assert all(rate > 0 for rate in results["supply"]["images_per_second"].values())
    engine = results["runtimes"]["ONNX Runtime, onnx_fp32"]
    assert engine["differing_pixels"] == 0 and engine["runs"]["provider"] == "CPUExecutionProvider"


def test_one_step_alone(repository, tmp_path):
    output = tmp_path / "gpu.json"
    done = run(repository, "--steps", "hardware", "--output", str(output))
    assert done.returncode == 0, done.stderr
    step = json.loads(output.read_text())["steps"]["hardware"]
    assert step["status"] == "done" and step["result"]["torch"]


def test_a_step_that_fails_or_hangs_or_lacks_something_is_told_and_stops_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        gpu,
        "STEPS",
        {
            "broken": gpu.Step("benchmarks.gpu.no_such_module", 60),
            "slow": gpu.Step("benchmarks.gpu.hardware", 0.001),
            "absent": gpu.Step("benchmarks.gpu.hardware", 60, ("no_such_package",)),
        },
    )
    output = tmp_path / "gpu.json"
    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu", "--output", str(output)])
    assert gpu.main() == 1
    steps = json.loads(output.read_text())["steps"]
    assert {name: step["status"] for name, step in steps.items()} == {
        "broken": "failed",
        "slow": "timed out",
        "absent": "skipped",
    }
    assert steps["absent"]["reason"] == "not installed: no_such_package"
    assert steps["broken"]["reason"] and "no_such_package" in capsys.readouterr().out


def test_all_steps_fit_into_eight_minutes():
    assert sum(step.seconds for step in gpu.STEPS.values()) <= 8 * 60
