"""What this machine is: processor, accelerators, and the versions that decide how fast an engine runs.

Everything here stays the same from run to run on one machine, so that engines and latencies are redone when the machine
changes and only then; what changes by the second (load, clocks, temperature) is in `export.machine.load`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import psutil

from export.machine.cuda_libraries import cuda_versions
from export.machine.hardware import hardware_sha256
from export.machine.programs import output_of, query_gpus
from serving.engines.runtimes import RUNTIMES

# What runtimes choose their kernels by.
KERNEL_FLAGS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme"),
)


def read_device() -> dict[str, Any]:
    """The contents of device.json.

    Returns:
        `hardware` with `export.machine.hardware.HARDWARE_KEYS`, `hardware_sha256` over it, and `software` (system,
        python, packages, gpu_driver, cuda).
    """
    gpus, driver = _gpus()
    packages = ["torch", "numpy", "onnx"] + [each for name in RUNTIMES for each in RUNTIMES.resolve(name).packages]
    hardware: dict[str, Any] = {
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cpu_family": _cpu_family(),
        "cpu_flags": _cpu_flags(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        "usable_cpus": _usable_cpus(),
        "cache": _caches(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": gpus,
    }
    return {
        "hardware": hardware,
        "hardware_sha256": hardware_sha256(hardware),
        "software": {
            "system": platform.system(),
            "python": platform.python_version(),
            "packages": {name: version for name in packages if (version := _version(name)) is not None},
            "gpu_driver": driver,
            "cuda": cuda_versions(),
        },
    }


def _cpu_info() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_model() -> str:
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    if match:
        return " ".join(match.group(1).split())
    if platform.system() == "Darwin":
        return output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    part = re.search(r"^CPU part\s*:\s*(\S+)$", _cpu_info(), re.MULTILINE)
    return platform.processor() or (f"{platform.machine()} part {part.group(1)}" if part else platform.machine())


def _cpu_family() -> str | None:
    """`family/model/stepping`: a virtual machine's model name may hide the generation."""
    keys = ("cpu family", "model", "stepping")
    found = [re.search(rf"^{key}\s*:\s*(\S+)$", _cpu_info(), re.MULTILINE) for key in keys]
    return "/".join(match.group(1) for match in found if match) or None


def _cpu_flags() -> list[str]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpu_info(), re.MULTILINE)
    present = set(match.group(1).split()) if match else set()
    return [flag for flag in KERNEL_FLAGS if flag in present]


def _usable_cpus() -> float:
    """CPUs that this process may use: its affinity, or the quota of its control group where that is less."""
    with contextlib.suppress(AttributeError):
        usable = float(len(os.sched_getaffinity(0)))
        with contextlib.suppress(OSError, ValueError):
            quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
            if quota != "max":
                usable = min(usable, round(int(quota) / int(period), 2))
        return usable
    return float(os.cpu_count() or 1)


def _caches() -> dict[str, str]:
    """Sizes of the first CPU's caches, `{"L2": "1024K"}`; empty where the system does not tell."""
    caches: dict[str, str] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level = (index / "level").read_text().strip()
            kind = (index / "type").read_text().strip()
            suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
            caches[f"L{level}{suffix}"] = (index / "size").read_text().strip()
    return caches


def _gpus() -> tuple[list[dict[str, Any]], str | None]:
    """NVIDIA GPUs and the driver's version; nothing where there is no driver."""
    rows = query_gpus("name", "memory.total", "compute_cap", "driver_version", "power.limit")
    gpus = [
        {
            "name": name,
            "memory_mib": int(memory) if memory.isdigit() else None,
            "compute_capability": capability,
            "power_limit_watts": float(limit) if re.fullmatch(r"[\d.]+", limit) else None,
        }
        for name, memory, capability, _, limit in rows
    ]
    return gpus, rows[-1][3] if rows else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
