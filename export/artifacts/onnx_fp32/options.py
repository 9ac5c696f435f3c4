"""Options of the artefact kind `onnx_fp32`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OnnxFp32Options:
    """Options of the artefact kind `onnx_fp32`.

    Attributes:
        output: `mask`, or `mask+confidence` for a second output with the probability of the predicted class in 1/255.
    """

    output: Literal["mask", "mask+confidence"] = "mask"
