"""Polygraphy's comparison with its default tolerances: `judge FILE.npz MODEL...` prints which files it passes.

https://github.com/NVIDIA/TensorRT/tree/main/tools/Polygraphy. FILE.npz holds the image and the outputs that PyTorch
gives for it, by the names of the graph's outputs.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import CompareFunc, IterationResult
from protocol import spoken


def judge(reference: Path, *models: Path) -> dict[str, object]:
    """Per file whether all of its outputs are close enough; a file that it cannot run is caught as well."""
    values = dict(np.load(reference))
    image = values.pop("image")
    expected = IterationResult(OrderedDict(values))
    passed: dict[str, object] = {}
    for path in models:
        try:
            with OnnxrtRunner(SessionFromOnnx(str(path))) as runner:
                found = IterationResult(OrderedDict(runner.infer({"image": image})))
            compared = CompareFunc.simple()(found, expected)
            passed[path.parent.name] = len(compared) == len(values) and all(map(bool, compared.values()))
        except Exception:  # noqa: BLE001 - a file that cannot be run is caught, whatever ONNX Runtime raises
            passed[path.parent.name] = False
    return passed


if __name__ == "__main__":
    spoken({"judge": judge}, sys.argv[1:])
