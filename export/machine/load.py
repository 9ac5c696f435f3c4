"""How the machine is doing while it measures: load, clocks, temperature, and what was taken from this process."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from export.machine.programs import query_gpus

_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz")


@dataclass(frozen=True)
class MachineState:
    """One look at the machine; None for what it does not tell, such as a virtual machine's clock and temperature.

    Attributes:
        load_1m: runnable processes, averaged over a minute, this one included.
        governor: frequency governor of the first CPU.
        cpu_mhz: current clock, averaged over the CPUs.
        cpu_celsius: hottest CPU sensor.
        steal_seconds: CPU time that the hypervisor gave to others, since boot.
        preemptions: how often this process was stopped for another, since its start.
        gpus: per NVIDIA GPU: sm_mhz, celsius, watts, utilisation_percent.
    """

    load_1m: float | None
    governor: str | None
    cpu_mhz: float | None
    cpu_celsius: float | None
    steal_seconds: float | None
    preemptions: int | None
    gpus: tuple[dict[str, float | None], ...] = ()


def look() -> MachineState:
    """Read everything that is readable now."""
    return MachineState(
        load_1m=_load(),
        governor=_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        cpu_mhz=_clock(),
        cpu_celsius=_temperature(),
        steal_seconds=getattr(psutil.cpu_times(), "steal", None),
        preemptions=_preemptions(),
        gpus=_gpus(),
    )


def between(before: MachineState, after: MachineState) -> dict[str, Any]:
    """What happened from one look to the next, for the record: both looks, and the differences of what is counted."""
    counted: dict[str, Any] = {}
    for key in ("steal_seconds", "preemptions"):
        first, last = getattr(before, key), getattr(after, key)
        counted[key] = None if first is None or last is None else round(last - first, 3)
    looks = {"before": asdict(before), "after": asdict(after)}
    for values in looks.values():
        del values["steal_seconds"], values["preemptions"]
    return looks | counted


def _load() -> float | None:
    with contextlib.suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return None


def _clock() -> float | None:
    with contextlib.suppress(OSError, NotImplementedError, AttributeError, RuntimeError):
        frequency = psutil.cpu_freq()
        return round(float(frequency.current), 1) if frequency and frequency.current else None
    return None


def _temperature() -> float | None:
    with contextlib.suppress(OSError, AttributeError, RuntimeError):
        sensors = psutil.sensors_temperatures()
        readings = [entry.current for name in _SENSORS for entry in sensors.get(name, []) if entry.current]
        return float(max(readings)) if readings else None
    return None


def _preemptions() -> int | None:
    with contextlib.suppress(OSError, AttributeError, psutil.Error):
        return int(psutil.Process().num_ctx_switches().involuntary)
    return None


def _gpus() -> tuple[dict[str, float | None], ...]:
    names = ("sm_mhz", "celsius", "watts", "utilisation_percent")
    rows = query_gpus("clocks.sm", "temperature.gpu", "power.draw", "utilization.gpu")
    return tuple(dict(zip(names, map(_number, row), strict=True)) for row in rows)


def _number(text: str) -> float | None:
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8").strip()
    return None
