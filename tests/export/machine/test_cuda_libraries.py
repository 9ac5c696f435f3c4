"""Versions of CUDA's libraries: from pip packages, else from the system; none where there is none."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export.machine.cuda_libraries import cuda_versions
from export.machine.device import read_device


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with the packages, shared objects and PyTorch that a test gives it."""

    def made(packages: dict[str, str], objects: dict[str, Any], torch: str | None) -> None:
        named = [SimpleNamespace(metadata={"Name": name}, version=version) for name, version in packages.items()]
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: named)

        def load(name: str) -> Any:
            if name not in objects:
                raise OSError(f"{name}: cannot open shared object file")
            return objects[name]

        monkeypatch.setattr(ctypes, "CDLL", load)
        find = importlib.util.find_spec
        spec = None
        if torch is not None:
            (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\ncuda: Optional[str] = {torch}\nhip = None\n")
            spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "torch" else find(name))

    return made


class Cublas:
    """`libcublas.so.13`, as far as it tells its version."""

    def cublasGetProperty(self, which: int, value: Any) -> int:
        value._obj.value = (13, 1, 3)[which]
        return 0


def cudnn(number: int) -> Any:
    def version() -> int:
        return number

    return SimpleNamespace(cudnnGetVersion=version)


def test_packages_come_first_as_they_are_loaded_first(machine):
    packages = {"nvidia-cudnn-cu13": "9.20.0.48", "nvidia-cublas": "13.1.1.3", "numpy": "2.4.6"}
    machine(packages, {"libcudnn.so.9": cudnn(91000), "libcublas.so.13": Cublas()}, "'13.0'")
    assert cuda_versions() == {"torch_cuda": "13.0", "cudnn": "9.20.0.48", "cublas": "13.1.1.3"}


@pytest.mark.parametrize(("number", "version"), [(92001, "9.20.1"), (90100, "9.1.0"), (8902, "8.9.2")])
def test_without_them_the_libraries_of_the_system_are_asked(machine, number, version):
    machine({}, {"libcudnn.so.9": cudnn(number), "libcublas.so.13": Cublas()}, "'12.6'")
    assert cuda_versions() == {"torch_cuda": "12.6", "cudnn": version, "cublas": "13.1.3"}


def test_what_is_not_there_is_not_named(machine):
    machine({}, {}, "None")  # a build of PyTorch for CPUs
    assert cuda_versions() == {}
    machine({}, {}, None)
    assert cuda_versions() == {}


def test_torch_says_the_same_itself(monkeypatch):
    import torch

    assert cuda_versions().get("torch_cuda") == torch.version.cuda
    assert read_device()["software"]["cuda"] == cuda_versions()
    assert Path(torch.__file__).with_name("version.py").exists()
