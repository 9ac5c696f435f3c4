"""Section `train.augment` of params.yaml: what a training crop is, and how decoded images are kept."""

from __future__ import annotations

from dataclasses import dataclass

from serving.contract.schema import Require


@dataclass(frozen=True)
class AugmentConfig:
    """Random scale, crop, flip and colour.

    Attributes:
        crop: height and width in pixels of a training crop.
        scale: smallest and largest factor that an image is resized by before the crop is taken; drawn uniformly.
        flip_probability: of a horizontal flip.
        brightness: the brightness factor is drawn uniformly from 1 ± this (0 turns it off), as torchvision does it.
        contrast: the same for the contrast.
        saturation: the same for the saturation.
        hue: largest turn of the hue, in turns (0.5 is the opposite colour). Off by default: it takes several times as
            long as everything else together, decoding aside.
        padding_colour: RGB of the area that an image smaller than the crop leaves empty (labels are ignored there);
            ImageNet's mean colour, which the network sees as zero.
        cache_decoded_bytes: decoded images and labels are kept in memory up to this size in total, over all workers.
            It changes the speed, never a batch.
    """

    crop: tuple[int, int] = (192, 256)
    scale: tuple[float, float] = (0.5, 2.0)
    flip_probability: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0
    padding_colour: tuple[int, int, int] = (124, 116, 104)
    cache_decoded_bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        require = Require()
        require(min(self.crop) >= 1, f"crop: expected a height and a width of at least 1, got {list(self.crop)}")
        require(
            0.05 <= self.scale[0] <= self.scale[1] <= 20,
            f"scale: expected [smallest, largest] within [0.05, 20], got {list(self.scale)}",
        )
        require(0 <= self.flip_probability <= 1, f"flip_probability: expected in [0, 1], got {self.flip_probability}")
        for name in ("brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) <= 1, f"{name}: expected in [0, 1], got {getattr(self, name)}")
        require(0 <= self.hue <= 0.5, f"hue: expected in [0, 0.5], got {self.hue}")
        require(
            all(0 <= value <= 255 for value in self.padding_colour),
            f"padding_colour: expected three values in 0..255, got {list(self.padding_colour)}",
        )
        require(
            self.cache_decoded_bytes >= 0, f"cache_decoded_bytes: expected at least 0, got {self.cache_decoded_bytes}"
        )
        require.done()
