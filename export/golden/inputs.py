"""The golden images of a network: two crops of real images, noise and an odd size, with PyTorch's masks and margins."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.data.datasets.shared.prepared import Prepared, PreparedSplit
from pipeline.models.network.segmentor import Segmentor, upsample
from pipeline.models.network.weights import SegmentorInfo
from serving.golden.golden import GoldenInput
from serving.images.geometry import place, restore

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

CROP = 256  # pixels: the most, so that all golden files stay under a megabyte
_CROPS, _CANDIDATES = 2, 8
_NOISE, _ODD = (64, 64), (61, 93)
_SEED = 0


class Network:
    """A stripped segmentor on images of any size, with serving's own geometry and without the deploy graph.

    Args:
        segmentor: in evaluation mode, on the CPU.
        info: what it is.
    """

    def __init__(self, segmentor: Segmentor, info: SegmentorInfo) -> None:
        self._segmentor, self._info = segmentor, info

    def logits(self, image: UInt8) -> Float32:
        """Logits `[C,h,w]` of an image as it runs: placed, not yet restored."""
        placed, _ = place(image, stride=self._segmentor.stride, resize=self._info.resize)
        with torch.inference_mode():
            pixels = torch.from_numpy(np.array(placed))[None].permute(0, 3, 1, 2)
            low = self._segmentor(self._segmentor.normalise(pixels))
            result: Float32 = upsample(low, (placed.shape[0], placed.shape[1])).float().numpy()[0]
        return result

    def golden(self, name: str, image: UInt8) -> GoldenInput:
        """An image with its mask and margins, at the image's own size."""
        _, placement = place(image, stride=self._segmentor.stride, resize=self._info.resize)
        logits = self.logits(image)
        highest = np.sort(logits, axis=0)[-2:]
        margin = highest[-1] - highest[0] if len(highest) == 2 else np.zeros(logits.shape[1:], np.float32)
        mask = logits.argmax(axis=0).astype(np.uint8)
        return GoldenInput(name, image, restore(mask, placement), _rounded_down(restore(margin, placement)))


def golden_inputs(prepared: Prepared, network: Network) -> list[GoldenInput]:
    """The golden images with what the network says of them; the same for the same data and network.

    Of several crops of validation images those are taken on which the network is least sure: there a small error of the
    engine changes the most pixels.
    """
    split = prepared.splits.get("val") or next(iter(prepared.splits.values()))
    crops = _crops(split)
    doubtful = sorted(range(len(crops)), key=lambda index: float(np.median(network.golden("", crops[index]).margin)))
    generator = np.random.default_rng(_SEED)
    noise = generator.integers(0, 256, (*_NOISE, 3), np.uint8)
    chosen = [crops[index] for index in doubtful[:_CROPS]]
    named = [(f"crop {number}", crop) for number, crop in enumerate(chosen, start=1)]
    odd = chosen[0][: _ODD[0], : _ODD[1]]
    named += [("noise", noise), ("odd", np.ascontiguousarray(odd))]
    return [network.golden(name, image) for name, image in named]


def _crops(split: PreparedSplit) -> list[UInt8]:
    """The middle of images spread evenly over a split, at most `CROP` pixels high and wide."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(_CANDIDATES, len(split))).round().astype(int))
    crops = []
    for index in chosen.tolist():
        image = split.read_image(index)
        top, left = (max(side - CROP, 0) // 2 for side in image.shape[:2])
        crops.append(np.ascontiguousarray(image[top : top + CROP, left : left + CROP]))
    return crops if len(crops) >= _CROPS else [*crops, np.ascontiguousarray(crops[0][:, ::-1])]


def _rounded_down(margin: Float32) -> NDArray[np.float16]:
    """float16 that is never above the margin, so that rounding makes the test milder and never stricter."""
    limited = np.minimum(margin, np.float32(np.finfo(np.float16).max))
    rounded = limited.astype(np.float16)
    return np.where(rounded.astype(np.float32) > limited, np.nextafter(rounded, np.float16(0)), rounded)
