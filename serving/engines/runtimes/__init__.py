"""Runtimes by name, one file or room each: what opens an engine file and runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.errors import UserError
from serving.contract.registry import Registry

if TYPE_CHECKING:
    from serving.engines.runtimes.runtime import Runtime

# The first that opens a kind of file is that kind's default.
RUNTIMES: Registry[type[Runtime]] = Registry(
    "runtime",
    {
        "onnxruntime": "serving.engines.runtimes.onnxruntime.engine:OnnxRuntime",
        "openvino": "serving.engines.runtimes.openvino.engine:OpenVino",
        "tensorrt": "serving.engines.runtimes.tensorrt.engine:TensorRT",
    },
)


def default_runtime(kind: str) -> str:
    """Name of the runtime that usually runs files of a kind. Raises UserError when none opens it."""
    for name in RUNTIMES:
        if kind in RUNTIMES.resolve(name).kinds:
            return name
    known = sorted({each for name in RUNTIMES for each in RUNTIMES.resolve(name).kinds})
    raise UserError(f"no runtime opens engines of kind {kind!r}; expected one of {', '.join(known)}")
