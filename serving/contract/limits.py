"""What an engine may lose against the network that it was made from, by the precision that it computes in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrecisionLimits:
    """The limits of one precision. Whatever brings it, a kind of artefact or a runtime, names them.

    `verify` and `gate` of params.yaml override them one by one.

    Attributes:
        max_logit_error: largest allowed difference of a logit, relative to the largest logit.
        max_disagreement: largest allowed share of pixels whose class differs on validation images.
        max_miou_drop_points: largest allowed drop of mIoU against PyTorch, in percentage points.
        min_layer_share: smallest share of the layers that has to compute in this precision. A runtime may leave single
            layers in a higher one, where it has no kernel; layers that the manifest of an INT8 file names as kept in
            float do not count.
    """

    max_logit_error: float
    max_disagreement: float
    max_miou_drop_points: float
    min_layer_share: float


FP32 = PrecisionLimits(1e-4, 1e-4, 0.02, 1.0)
# As many bits of mantissa as fp16, for the factors of products only.
TF32 = PrecisionLimits(1e-2, 2e-3, 0.05, 1.0)
FP16 = PrecisionLimits(1e-2, 2e-3, 0.05, 0.9)
BF16 = PrecisionLimits(5e-2, 1e-2, 0.2, 0.9)
INT8 = PrecisionLimits(0.5, 5e-2, 0.5, 0.8)
