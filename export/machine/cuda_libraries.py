"""Versions of CUDA's libraries, which choose kernels as much as the GPU does, without importing what uses them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import Any

# Library -> beginning of the names of its pip packages, and its shared objects, the newest first.
_PACKAGES = {"cudnn": "nvidia-cudnn", "cublas": "nvidia-cublas"}
_OBJECTS = {"cudnn": ("libcudnn.so.9",), "cublas": ("libcublas.so.13", "libcublas.so.12")}


def cuda_versions() -> dict[str, str]:
    """Versions by name, of those that are there: `torch_cuda` (what PyTorch was built for), `cudnn`, `cublas`.

    A library from a pip package comes before one of the system, as it does for PyTorch and ONNX Runtime.
    """
    found = {"torch_cuda": _torch_cuda()}
    packages = {
        str(each.metadata["Name"]).lower(): each.version
        for each in importlib.metadata.distributions()
        if each.metadata["Name"]
    }
    for name, beginning in _PACKAGES.items():
        installed = [version for package, version in sorted(packages.items()) if package.startswith(beginning)]
        found[name] = installed[0] if installed else _of_the_system(name)
    return {name: version for name, version in found.items() if version is not None}


def _torch_cuda() -> str | None:
    """From the file that PyTorch's own `torch.version.cuda` comes from; None for a build without CUDA."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    with contextlib.suppress(OSError):
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
        match = re.search(r"^cuda\b[^=]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
        return match.group(1) if match else None
    return None


def _of_the_system(name: str) -> str | None:
    for file_name in _OBJECTS[name]:
        with contextlib.suppress(OSError, AttributeError):
            library: Any = ctypes.CDLL(file_name)
            return _cudnn_version(library) if name == "cudnn" else _cublas_version(library)
    return None


def _cudnn_version(library: Any) -> str:
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number = int(library.cudnnGetVersion())
    major, rest = divmod(number, 10_000 if number >= 90_000 else 1_000)  # 92001 is 9.20.1, 8902 is 8.9.2
    return f"{major}.{rest // 100}.{rest % 100}"


def _cublas_version(library: Any) -> str:
    parts = []
    for which in range(3):  # MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL of libraryPropertyType
        value = ctypes.c_int()
        library.cublasGetProperty(which, ctypes.byref(value))
        parts.append(value.value)
    return ".".join(map(str, parts))
