"""Options of the artefact kind `onnx_fp16`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OnnxFp16Options:
    """Options of the artefact kind `onnx_fp16`.

    Attributes:
        output: as in `onnx_fp32`.
    """

    output: Literal["mask", "mask+confidence"] = "mask"
