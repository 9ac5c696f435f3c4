"""Options of the artefact kind `onnx_int8`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serving.contract.schema import Require


@dataclass(frozen=True)
class OnnxInt8Options:
    """Options of the artefact kind `onnx_int8`.

    Attributes:
        scheme: `symmetric` (S8, biases in floating point: TensorRT, OpenVINO) or `asymmetric` (U8 activations and
            quantised biases: ONNX Runtime on CPUs).
        calibration: how ranges follow from activations: `minmax`, `percentile` or `entropy`.
        percentile: share of the values, in percent, that the range covers with `percentile`.
        images: training images that the ranges are measured on.
        held_out: further training images on which the loss of mIoU is measured while layers are chosen.
        max_miou_drop_points: layers stay in floating point until the loss there is at most this; below the gate's
            limit, since other images may lose more.
        probes: held-out images that the sensitivity of each layer is measured on.
        per_channel: one scale per output channel of a weight, not one per tensor.
        reduce_range: weights in 7 bits, for CPUs without VNNI, whose kernels saturate.
        seed: another number chooses other images.
        output: see `export.artifacts.shared.options.OutputOptions`.
    """

    scheme: Literal["symmetric", "asymmetric"] = "symmetric"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    percentile: float = 99.99
    images: int = 32
    held_out: int = 32
    max_miou_drop_points: float = 0.3
    probes: int = 4
    per_channel: bool = True
    reduce_range: bool = False
    seed: int = 0
    output: Literal["mask", "mask+confidence"] = "mask"

    def __post_init__(self) -> None:
        require = Require()
        for name in ("images", "held_out", "probes"):
            value = getattr(self, name)
            require(value >= 1, f"{name}: expected at least 1, got {value}")
        require(50 < self.percentile <= 100, f"percentile: expected in (50, 100], got {self.percentile}")
        require(
            self.max_miou_drop_points >= 0,
            f"max_miou_drop_points: expected at least 0, got {self.max_miou_drop_points}",
        )
        require.done()
