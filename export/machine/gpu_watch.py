"""NVIDIA GPUs while something is measured: clocks, temperature, power, what slowed them down, and who else used them.

Looks before and after say little: an idle GPU lowers its clocks within seconds. A process of its own samples them, so
that nothing is taken from the one that measures.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from export.machine.programs import output_of, query_gpus

INTERVAL_MS = 500

# Bits of NVML's nvmlClocksEventReasons that slow a GPU down although it has work.
_SLOWED_BY = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
_FIELDS = ("index", "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "utilization.gpu")
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # the second for drivers before R535


class GpuWatch:
    """Samples the GPUs within a `with` block; `record` then tells. Nothing happens where there is no NVIDIA driver."""

    def __init__(self) -> None:
        self._processes: list[dict[str, Any]] = []
        self._sampler: subprocess.Popen[bytes] | None = None
        self._path: Path | None = None
        self._samples: list[tuple[int, dict[str, float | None]]] = []

    def __enter__(self) -> Self:
        reasons = next((field for field in _REASONS if query_gpus(field)), None)
        if reasons is None:
            return self
        self._processes = other_processes()
        handle, name = tempfile.mkstemp(prefix="contrail-gpu-", suffix=".csv")
        self._path = Path(name)
        query = f"--query-gpu={','.join((*_FIELDS, reasons))}"
        command = ["nvidia-smi", query, "--format=csv,noheader,nounits", f"--loop-ms={INTERVAL_MS}"]
        with os.fdopen(handle, "wb") as file, contextlib.suppress(OSError):
            self._sampler = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._sampler is not None:
            self._sampler.terminate()
            self._sampler.wait()
        self._samples = list(_samples(self._path)) if self._path is not None else []
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def record(self) -> dict[str, Any]:
        """What was seen.

        Returns:
            `gpus_during`: per GPU its index, number of samples, lowest, middle and highest clock while it was busy,
            highest temperature and power, and `slowed_by`: reason -> share of the busy samples. `gpu_processes`: other
            processes that were on a GPU at the beginning. `throttled`: in words, what slowed a busy GPU down.
        """
        by_gpu: dict[int, list[dict[str, float | None]]] = {}
        for index, sample in self._samples:
            by_gpu.setdefault(index, []).append(sample)
        gpus = [summed_up(index, samples) for index, samples in sorted(by_gpu.items())]
        return {
            "gpus_during": gpus,
            "gpu_processes": self._processes,
            "throttled": [
                f"GPU {gpu['index']}: {reason} in {100 * share:.0f} % of {gpu['busy_samples']} samples"
                for gpu in gpus
                for reason, share in gpu["slowed_by"].items()
            ],
        }


def summed_up(index: int, samples: Sequence[dict[str, float | None]]) -> dict[str, Any]:
    """One GPU's samples; clocks and reasons of those in which it was busy, or may have been."""
    busy = [sample for sample in samples if sample["utilisation_percent"] != 0]
    clocks = [clock for sample in busy if (clock := sample["sm_mhz"]) is not None]
    reasons = Counter(name for sample in busy for bit, name in _SLOWED_BY.items() if int(sample["reasons"] or 0) & bit)
    return {
        "index": index,
        "samples": len(samples),
        "busy_samples": len(busy),
        "sm_mhz": [min(clocks), statistics.median(clocks), max(clocks)] if clocks else None,
        "celsius": _largest(samples, "celsius"),
        "watts": _largest(samples, "watts"),
        "slowed_by": {name: round(count / len(busy), 4) for name, count in reasons.items()},
    }


def other_processes() -> list[dict[str, Any]]:
    """Processes that compute on a GPU besides this one and its children; in a container the numbers are the host's."""
    text = output_of("nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits")
    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    found = []
    for line in (text or "").splitlines():
        pid, _, rest = line.partition(",")
        name, _, memory = rest.rpartition(",")
        if pid.strip().isdigit() and int(pid) not in own:
            found.append({"pid": int(pid), "name": name.strip(), "memory_mib": _number(memory)})
    return found


def _samples(path: Path) -> Iterator[tuple[int, dict[str, float | None]]]:
    """(index of the GPU, what was read) of every whole line."""
    names = ("sm_mhz", "memory_mhz", "celsius", "watts", "utilisation_percent", "reasons")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == len(names) + 1 and fields[0].isdigit():
            yield int(fields[0]), dict(zip(names, map(_number, fields[1:]), strict=True))


def _largest(samples: Sequence[dict[str, float | None]], name: str) -> float | None:
    return max((value for sample in samples if (value := sample[name]) is not None), default=None)


def _number(text: str) -> float | None:
    """A number, decimal or as `0x0000000000000004`; None for "[N/A]"."""
    text = text.strip()
    with contextlib.suppress(ValueError):
        return float(int(text, 16)) if text.startswith("0x") else float(text)
    return None
