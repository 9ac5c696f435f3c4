"""GPUs are sampled while something is measured, and what slows them down is said."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from export.machine.gpu_watch import GpuWatch, other_processes, summed_up

# Answers one query, or samples until it is stopped: the clock falls while the power cap holds it.
SMI = """
import sys, time
arguments = " ".join(sys.argv[1:])
if "--query-compute-apps" in arguments:
    print("OWN, python, 500")
    print("4242, /opt/train, with a comma, 1024")
    print("4243, [Insufficient Permissions], [N/A]")
elif "--loop-ms" in arguments:
    for turn in range(10_000):
        print(f"0, {1980 - 100 * (turn % 4)}, 2619, {60 + turn % 4}, {650.5}, {0 if turn % 4 == 3 else 97}, {REASONS}")
        print("1, 345, 2619, 34, [N/A], 0, 0x0000000000000001", flush=True)
        time.sleep(0.01)
elif "REFUSED" in arguments:
    raise SystemExit("Field is not a valid field to query.")
else:
    print("0x0000000000000001")
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Puts a stand-in for nvidia-smi into the path; the GPU is throttled for the `reasons` it gives."""

    def install(reasons: str = "0x0000000000000000", refused: str = "nothing") -> Path:
        command = tmp_path / "nvidia-smi"
        script = SMI.replace("{REASONS}", reasons).replace("OWN", str(os.getpid())).replace("REFUSED", refused)
        command.write_text(f"#!{sys.executable}\n{script}\n")
        command.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        return command

    return install


def watched(samples: int = 8) -> dict[str, Any]:
    with GpuWatch() as watch:
        assert watch._path is not None
        deadline = time.monotonic() + 60
        while watch._path.read_bytes().count(b"\n") < 2 * samples and time.monotonic() < deadline:
            time.sleep(0.02)
    assert not watch._path.exists() and watch._sampler is not None and watch._sampler.poll() is not None
    return watch.record()


def test_clocks_are_those_of_the_busy_gpu_during_the_measurement(smi):
    smi()
    record = watched()
    first, second = record["gpus_during"]
    assert first["index"] == 0 and first["samples"] >= 8 and 0 < first["busy_samples"] < first["samples"]
    assert first["sm_mhz"][0] == 1780 and first["sm_mhz"][2] == 1980, "1680 was while it was idle"
    assert (first["celsius"], first["watts"], first["slowed_by"]) == (63, 650.5, {})
    assert (second["busy_samples"], second["sm_mhz"], second["watts"]) == (0, None, None)
    assert record["throttled"] == []


def test_a_throttled_run_is_labelled(smi):
    smi(reasons="0x0000000000000044")
    record = watched()
    assert set(record["gpus_during"][0]["slowed_by"]) == {"power cap", "hardware thermal slowdown"}
    assert len(record["throttled"]) == 2 and record["throttled"][0].startswith("GPU 0: power cap in 100 % of ")
    assert record["gpus_during"][1]["slowed_by"] == {}, "an idle GPU is not slowed down"


def test_older_drivers_have_another_name_for_the_reasons(smi):
    smi(reasons="0x0000000000000008", refused="clocks_event_reasons")
    assert list(watched(2)["gpus_during"][0]["slowed_by"]) == ["hardware slowdown"]


def test_other_processes_on_the_gpu_are_listed_and_this_one_is_not(smi):
    smi()
    expected = [
        {"pid": 4242, "name": "/opt/train, with a comma", "memory_mib": 1024.0},
        {"pid": 4243, "name": "[Insufficient Permissions]", "memory_mib": None},
    ]
    assert other_processes() == expected and watched(1)["gpu_processes"] == expected


def test_without_a_driver_nothing_is_started_and_nothing_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with GpuWatch() as watch:
        pass
    assert watch._sampler is None
    assert watch.record() == {"gpus_during": [], "gpu_processes": [], "throttled": []}


def test_the_sampler_ends_when_the_measurement_fails(smi):
    smi()
    with pytest.raises(RuntimeError), GpuWatch() as watch:
        raise RuntimeError("an engine fell over")
    assert watch._sampler is not None and not psutil.pid_exists(watch._sampler.pid)


def test_lines_that_are_cut_short_and_unreadable_fields_are_no_trouble():
    nothing = dict.fromkeys(("sm_mhz", "memory_mhz", "celsius", "watts", "utilisation_percent", "reasons"))
    found = summed_up(3, [nothing])
    assert (found["sm_mhz"], found["celsius"], found["busy_samples"], found["slowed_by"]) == (None, None, 1, {})
    assert subprocess.list2cmdline(["nvidia-smi"])
