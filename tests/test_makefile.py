"""What `make install` would run for the extras that it is given, and when it runs again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def planned(environment: Path, *arguments: str) -> str:
    """The commands of `make install`, which is not run."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "install", f"VENV={environment}", *arguments],
        cwd=ROOT,
        # What started these tests may itself be `make`.
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "EXTRA")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An empty place for an environment, on a machine without `nvidia-smi` but with this Python."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHON", "python3")
    return tmp_path / "venv"


@pytest.mark.parametrize(
    ("extra", "installed", "removed", "from_nvidia"),
    [
        (None, "cpu", "onnxruntime-gpu", False),
        ("gpu", "gpu", "onnxruntime", False),
        ("gpu,tensorrt", "gpu, tensorrt", "onnxruntime", True),
        ("gpu,tensorrt-rtx", "gpu, tensorrt-rtx", "onnxruntime", False),
        ("tensorrt-rtx", "cpu, tensorrt-rtx", "onnxruntime-gpu", False),
    ],
)
def test_extras_come_with_one_onnx_runtime_and_the_index_that_they_need(
    environment, extra, installed, removed, from_nvidia
):
    commands = planned(environment, *([f"EXTRA={extra}"] if extra else []))
    assert f"'.[{installed},server,triton,dev]'" in commands
    assert f"pip uninstall --quiet --yes {removed} " in commands
    assert commands.index("pip uninstall") < commands.index("pip install --quiet "), "they overwrite each other"
    assert ("--extra-index-url https://pypi.nvidia.com" in commands) is from_nvidia


def test_a_machine_with_an_nvidia_gpu_gets_its_runtime(environment, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert "'.[gpu,server,triton,dev]'" in planned(environment)
    assert "'.[gpu, tensorrt,server,triton,dev]'" in planned(environment, "EXTRA=tensorrt")


def test_what_was_installed_stays_until_another_extra_is_asked_for(environment):
    environment.mkdir()
    (environment / ".installed").write_text("gpu,tensorrt\n")
    assert "pip" not in planned(environment)
    assert "pip" not in planned(environment, "EXTRA=gpu,tensorrt")
    assert "'.[cpu,server,triton,dev]'" in planned(environment, "EXTRA=cpu")
    (environment / ".installed").write_text("")  # as versions before this one left it
    assert "pip" not in planned(environment)


@pytest.mark.parametrize("seen", [True, False])
def test_a_gpu_that_torch_does_not_see_is_refused_with_reason_and_cure(environment, tmp_path, seen):
    (environment / "bin").mkdir(parents=True)
    scripts = {
        tmp_path / "nvidia-smi": 'case "$*" in *driver_version*) echo 550.54.15;; esac',
        environment
        / "bin/python": f'case "$*" in *sys.exit*) exit {0 if seen else 1};; esac; echo 2.13.0 for CUDA 13.0',
    }
    for path, body in scripts.items():
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", "gpu-seen", f"VENV={environment}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "EXTRA")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if seen:
        assert done.returncode == 0 and not done.stderr
        return
    assert done.returncode == 2
    assert "driver 550.54.15), but torch 2.13.0 for CUDA 13.0 sees no GPU: CUDA 13 needs driver 580" in done.stderr
    assert "EXTRA=cpu" in done.stderr


@pytest.mark.parametrize(("extra", "looked"), [("gpu", True), ("cpu", False)])
def test_install_looks_for_the_gpu_where_its_extra_is_installed(environment, extra, looked):
    assert ("torch.cuda.is_available()" in planned(environment, f"EXTRA={extra}")) == looked
