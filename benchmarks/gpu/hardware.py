"""What the machine is: device, clocks and what slows it down, versions."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any, Literal

import torch

from export.machine.device import read_device
from export.machine.load import look
from export.machine.programs import output_of


def measure(device: Literal["cpu", "cuda"], *, toy: bool) -> dict[str, Any]:
    """Read everything once."""
    found: dict[str, Any] = {
        "device": read_device(),
        "state": dataclasses.asdict(look()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "clocks": output_of("nvidia-smi", "-q", "-d", "CLOCK,PERFORMANCE"),
    }
    if device == "cuda":
        name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        found["gpu"] = {"name": name, "capability": capability, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
    return found
