"""The description of the machine: stable, honest about what is unknown, and what decides that latencies compare."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import sys

import pytest

from export.machine import device
from export.machine import load as machine
from export.machine.device import read_device
from export.machine.hardware import HARDWARE_KEYS, device_summary, hardware_sha256
from export.stages.device import main


def test_description_stays_the_same():
    """DVC redoes engines and latencies when it changes: no clock, load or time may be in it."""
    first, second = read_device(), read_device()
    assert first == second
    assert set(first["hardware"]) == set(HARDWARE_KEYS)
    assert json.loads(json.dumps(first)) == first


def test_description_names_processor_and_versions():
    described = read_device()
    hardware, software = described["hardware"], described["software"]
    assert hardware["cpu"] and hardware["cores"] >= 1 and hardware["usable_cpus"] > 0 and hardware["memory_gib"] >= 1
    assert set(hardware["cpu_flags"]) <= set(device.KERNEL_FLAGS)
    assert software["packages"]["onnx"]
    assert hardware["cpu"] in device_summary(described)


@pytest.mark.parametrize("key", HARDWARE_KEYS)
def test_every_part_of_the_hardware_changes_the_hash(key):
    hardware = read_device()["hardware"]
    other = copy.deepcopy(hardware) | {key: "something else"}
    assert hardware_sha256(other) != hardware_sha256(hardware)


def test_flags_that_kernels_are_chosen_by(monkeypatch):
    monkeypatch.setattr(
        device,
        "_cpu_info",
        lambda: (
            "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)  Platinum\ncpu family\t: 6\nmodel\t\t: 143\nstepping\t: 8\n"
            "flags\t\t: fpu avx2 avx512f amx_bf16 amx_int8 hypervisor\n"
        ),
    )
    assert device._cpu_flags() == ["avx2", "avx512f", "amx_bf16", "amx_int8"]
    assert device._cpu_model() == "Intel(R) Xeon(R) Platinum"
    assert device._cpu_family() == "6/143/8"


def smi(tmp_path, monkeypatch, script):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!{sys.executable}\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_gpus_as_the_driver_names_them(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "print('NVIDIA H100 80GB HBM3, 81559, 9.0, 580.10, 700.00')")
    gpus, driver = device._gpus()
    expected = {"name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "compute_capability": "9.0"}
    assert gpus == [expected | {"power_limit_watts": 700.0}] and driver == "580.10"
    smi(tmp_path, monkeypatch, "print('Orin, [N/A], 8.7, 540.4, [N/A]')")
    gpus, _ = device._gpus()
    assert (gpus[0]["memory_mib"], gpus[0]["power_limit_watts"]) == (None, None)


@pytest.mark.parametrize("script", ["raise SystemExit(9)", "print('No devices were found')", "print()"])
def test_driver_without_a_gpu_is_no_gpu(tmp_path, monkeypatch, script):
    smi(tmp_path, monkeypatch, script)
    assert device._gpus() == ([], None)
    assert machine._gpus() == ()


def test_gpu_state_with_unreadable_parts(tmp_path, monkeypatch):
    smi(tmp_path, monkeypatch, "print('1980, 34, [N/A], 0')")
    assert machine._gpus() == ({"sm_mhz": 1980.0, "celsius": 34.0, "watts": None, "utilisation_percent": 0.0},)


def test_looks_at_the_machine_and_what_happened_between():
    before, after = machine.look(), machine.look()
    record = machine.between(
        dataclasses.replace(before, preemptions=10, steal_seconds=1.0),
        dataclasses.replace(after, preemptions=12, steal_seconds=1.5),
    )
    assert record["preemptions"] == 2 and record["steal_seconds"] == 0.5
    assert set(record["before"]) == {"load_1m", "governor", "cpu_mhz", "cpu_celsius", "gpus"}
    unknown = dataclasses.replace(before, preemptions=None, steal_seconds=None)
    assert machine.between(unknown, after)["preemptions"] is None


def test_stage_writes_the_file(repository, tmp_path, monkeypatch):
    shutil.copy(repository / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["device"])
    assert main() == 0
    assert json.loads((tmp_path / "reports" / "device.json").read_text())["hardware_sha256"]
