"""Two sets of logits and masks beside each other: how far apart, and whether the distance explains the masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True)
class BatchDeviation:
    """An engine beside PyTorch on one batch.

    Attributes:
        name: of the batch, for messages.
        pixels: how many were compared.
        differing: pixels whose classes differ.
        unexplained: of those, the pixels that the difference of the logits does not explain (see `measure_deviation`).
        first_unexplained: one of them in words.
        largest_logit: largest absolute logit of the reference.
        error: largest difference of a logit, relative to `largest_logit`; None where the engine shows no logits.
        error_quantiles: likewise at `QUANTILES`.
    """

    name: str
    pixels: int
    differing: int
    unexplained: int
    first_unexplained: str
    largest_logit: float
    error: float | None
    error_quantiles: tuple[float, ...] | None


def measure_deviation(
    name: str, expected: Float32, masks: UInt8, found: Float32 | None, *, tolerance: float
) -> BatchDeviation:
    """Compare an engine with the reference, pixel by pixel.

    Where no logit is off by more than e, a class can only win over the reference's when the reference's lead over it is
    at most 2 e. So a pixel whose class differs is explained when the margin between the reference's two largest logits
    is at most twice the error at that pixel, and unexplained otherwise: then the mask does not come from these logits.
    Without logits of the engine, e is what `tolerance` allows.

    Args:
        name: of the batch.
        expected: reference logits `[B,C,H,W]` float32.
        masks: the engine's masks `[B,H,W]` uint8.
        found: the engine's logits `[B,C,H,W]` float32, or None.
        tolerance: largest allowed logit error relative to the largest logit.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    batch, _, height, width = expected.shape
    if masks.shape != (batch, height, width) or (found is not None and found.shape != expected.shape):
        shapes = [array.shape for array in (expected, masks, found) if array is not None]
        raise ValueError(f"{name}: logits of the reference, masks and logits of the engine do not fit: {shapes}")
    largest = float(np.abs(expected).max())
    scale = max(largest, float(np.finfo(np.float32).tiny))
    at_pixel: NDArray[np.float64] | float = tolerance * scale
    error, quantiles = None, None
    if found is not None:
        difference = np.abs(found.astype(np.float64) - expected)
        difference[np.isnan(difference)] = np.inf
        at_pixel = difference.max(axis=1)
        error = float(difference.max()) / scale
        quantiles = tuple(float(value) / scale for value in np.quantile(difference, QUANTILES, method="higher"))
    classes_expected = expected.argmax(axis=1)
    differing = masks != classes_expected
    unexplained = differing & (top_margin(expected) > 2 * at_pixel)
    first = ""
    if unexplained.any():
        slot, row, column = (int(index[0]) for index in np.nonzero(unexplained))
        first = (
            f"{name}, slot {slot}, pixel ({row}, {column}): class {masks[slot, row, column]} instead of "
            f"{classes_expected[slot, row, column]}"
        )
    return BatchDeviation(
        name=name,
        pixels=masks.size,
        differing=int(differing.sum()),
        unexplained=int(unexplained.sum()),
        first_unexplained=first,
        largest_logit=largest,
        error=error,
        error_quantiles=quantiles,
    )


def top_margin(logits: Float32) -> NDArray[np.float64]:
    """Lead of the largest logit over the second, `[B,C,H,W]` -> `[B,H,W]`; C is at least 2."""
    top = np.partition(logits, logits.shape[1] - 2, axis=1)[:, -2:].astype(np.float64)
    margin: NDArray[np.float64] = top[:, 1] - top[:, 0]
    return margin


def worst_error(deviations: Sequence[BatchDeviation]) -> tuple[float | None, str]:
    """The largest relative logit error and the name of its batch; None where no engine showed logits."""
    known = [(deviation.error, deviation.name) for deviation in deviations if deviation.error is not None]
    return max(known) if known else (None, "")


def unexplained_pixels(deviations: Sequence[BatchDeviation]) -> tuple[int, str]:
    """Number of unexplained pixels, and the first of them in words."""
    first = next((deviation.first_unexplained for deviation in deviations if deviation.unexplained), "")
    return sum(deviation.unexplained for deviation in deviations), first
