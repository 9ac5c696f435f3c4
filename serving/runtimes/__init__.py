"""Runtimes by name: what opens an engine file and runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.registry import Registry

if TYPE_CHECKING:
    from serving.runtimes.interface import Runtime

RUNTIMES: Registry[type[Runtime]] = Registry(
    "runtime",
    {
        "onnxruntime": "serving.runtimes.onnxruntime:OnnxRuntime",
        "openvino": "serving.runtimes.openvino:OpenVino",
        "tensorrt": "serving.runtimes.tensorrt:TensorRT",
    },
)
