"""What of device.json decides whether two latencies may be compared, and a machine in a line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Two machines whose `hardware` agrees in all of these may have their latencies compared.
HARDWARE_KEYS = (
    "architecture",
    "cpu",
    "cpu_family",
    "cpu_flags",
    "cores",
    "usable_cpus",
    "cache",
    "memory_gib",
    "gpus",
)


def hardware_sha256(hardware: Mapping[str, Any]) -> str:
    """Hash of what decides whether two latencies may be compared."""
    text = json.dumps({key: hardware.get(key) for key in HARDWARE_KEYS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def device_summary(device: Mapping[str, Any]) -> str:
    """One line for tables: `AMD EPYC, 2 CPUs, avx2 avx512_vnni, 16 GiB; NVIDIA H100`."""
    hardware = device["hardware"]
    wide = [
        flag for flag in hardware["cpu_flags"] if flag.startswith(("amx_bf16", "amx_int8", "avx512_bf16", "avx512f"))
    ]
    widest = wide or [flag for flag in hardware["cpu_flags"] if flag in ("avx2", "asimd")]
    cpu = f"{hardware['cpu']}, {hardware['usable_cpus']:g} CPUs, {' '.join(widest) or 'no vector flags known'}"
    gpus = ", ".join(gpu["name"] for gpu in hardware["gpus"]) or "no GPU"
    return f"{cpu}, {hardware['memory_gib']} GiB; {gpus}"
