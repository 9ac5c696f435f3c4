"""Fixtures that every room uses."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# One thread: a busy machine makes spinning threads crawl, and results must not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _beside(name: str) -> Any:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake_gpu = _beside("fake_gpu").fake_gpu  # a fixture


@functools.cache
def _cuda_devices() -> int:
    """NVIDIA GPUs that the driver gives to this process, whatever is installed to use them."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `cuda` where there is no GPU."""
    if item.get_closest_marker("cuda") is not None and not _cuda_devices():
        pytest.skip("no NVIDIA GPU here")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def camvid_root() -> Path:
    """CamVid's folder, where CONTRAIL_CAMVID names it; else the test is skipped."""
    root = os.environ.get("CONTRAIL_CAMVID")
    if not root:
        pytest.skip("CONTRAIL_CAMVID is not set: no CamVid on this machine")
    return Path(root)


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], None]]:
    """Mounts a file system of a size (`24m`) in memory at a path, or changes its size; skips who may not."""
    mounted: list[Path] = []

    def mount(path: Path, size: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        options = f"remount,size={size}" if path in mounted else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "contrail-test", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
        if done is None or done.returncode:
            pytest.skip("cannot mount a tmpfs here: run pytest as root, or by `unshare --map-root-user --mount`")
        if path not in mounted:
            mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    import torch

    torch.set_num_threads(1)
    yield
