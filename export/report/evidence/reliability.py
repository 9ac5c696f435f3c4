"""How often a pixel is right that an engine is sure of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Pixels by the confidence that the engine gave them.

    Attributes:
        counts: `[BINS]` labelled pixels in each bin; bin i holds confidences from i/BINS on.
        confidence: `[BINS]` mean confidence in [0,1]; NaN for an empty bin.
        accuracy: `[BINS]` share of the pixels whose class is right; NaN for an empty bin.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error in [0,1]: the gap between confidence and accuracy, averaged over the pixels.

        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.
        """
        filled = self.counts > 0
        gaps = np.abs(self.confidence[filled] - self.accuracy[filled])
        return float((gaps * self.counts[filled]).sum() / self.counts.sum()) if filled.any() else float("nan")


def reliability(images: list[tuple[UInt8, UInt8, UInt8]], ignore_index: int) -> Reliability:
    """Count over images of (label, mask, confidence 0..255), each `[H,W]` uint8.

    Example:
        >>> label, mask = np.array([[0, 1, 255]], np.uint8), np.array([[0, 0, 0]], np.uint8)
        >>> found = reliability([(label, mask, np.array([[255, 128, 9]], np.uint8))], 255)
        >>> found.counts.tolist(), round(found.expected_error, 3)
        ([0, 0, 0, 0, 0, 1, 0, 0, 0, 1], 0.251)
    """
    counts = np.zeros(BINS, dtype=np.int64)
    sums, rights = np.zeros(BINS), np.zeros(BINS)
    for label, mask, confidence in images:
        kept = label != ignore_index
        values = confidence[kept] / 255.0
        bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
        counts += np.bincount(bins, minlength=BINS)
        sums += np.bincount(bins, weights=values, minlength=BINS)
        rights += np.bincount(bins, weights=(mask[kept] == label[kept]).astype(np.float64), minlength=BINS)
    empty = np.full(BINS, np.nan)
    return Reliability(
        counts,
        np.divide(sums, counts, out=empty.copy(), where=counts > 0),
        np.divide(rights, counts, out=empty.copy(), where=counts > 0),
    )
