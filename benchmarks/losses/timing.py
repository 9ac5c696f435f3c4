"""How the losses are timed: in turns, by CPU time where there is one, and with the memory they add."""

from __future__ import annotations

import ctypes
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Task = Callable[[], object]


def seconds_of(task: Task, device: torch.device) -> float:
    """Time of one run: CPU time of this process, or wall time of a device that has finished."""
    if device.type == "cpu":
        started = time.process_time()
        task()
        return time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    task()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def interleave(tasks: Mapping[str, Task], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each task over rounds in which all take turns; one more round warms up."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds + 1):
        for name, task in tasks.items():
            times[name].append(seconds_of(task, device))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def peak_extra_bytes(task: Task, clear: Task, device: torch.device) -> int | None:
    """Memory that one run holds at its peak beyond what was held before; None where nothing tells.

    On a CPU the peak of the resident memory, which Linux lets a process reset; pages that the allocator has kept from
    earlier runs are given back first, since they would hide the peak.

    Args:
        task: what is measured; it has run before.
        clear: lets go of what an earlier run left behind.
        device: where it runs.
    """
    clear()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.exists() and reset.exists()):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
    reset.write_text("5")
    before = _status_bytes(status, "VmRSS")
    task()
    return _status_bytes(status, "VmHWM") - before


def _status_bytes(status: Path, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    assert found is not None, f"{status} has no {key}"
    return 1024 * int(found.group(1))


def machine(device: torch.device) -> dict[str, object]:
    """What the numbers were taken on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif cpuinfo.exists():
        found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE)
        name = found.group(1) if found else name
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": "process CPU time" if device.type == "cpu" else "wall time, synchronised",
    }
