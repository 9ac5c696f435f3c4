"""torchvision and timm load beside a CPU-only torch once the shim is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import pipeline.compute.torchvision_shim as shim


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_a_fresh_interpreter_can_use_transforms_and_timm() -> None:
    code = (
        "import pipeline.compute.torchvision_shim, torchvision, timm, torch\n"
        "from torchvision.transforms import v2\n"
        "assert v2.functional.horizontal_flip(torch.arange(3)[None, None]).tolist() == [[[2, 1, 0]]]\n"
    )
    assert run_python(code).returncode == 0


def test_importing_again_changes_nothing() -> None:
    torchvision = sys.modules["torchvision"]
    shim._load()
    assert sys.modules["torchvision"] is torchvision


def test_an_operator_that_was_only_declared_refuses_to_run() -> None:
    if not shim._KEPT:
        pytest.skip("this torchvision loads by itself")
    with pytest.raises(NotImplementedError, match="torchvision::nms"):
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


def test_any_other_failure_of_torchvision_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(f"{name}: the disk is on fire")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(RuntimeError, match="on fire"):
        shim._load()
