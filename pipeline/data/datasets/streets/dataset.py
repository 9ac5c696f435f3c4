"""Streets: a generated dataset of street scenes, for trying everything without downloading anything."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.datasets.shared.dataset import (
    SPLITS,
    Dataset,
    Pair,
    SubsetOptions,
    list_files,
    missing_folders,
    pair_by_name,
)
from pipeline.data.datasets.shared.label_files import read_index_image
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, LabelTable
from pipeline.data.datasets.streets.scenes.classes import CLASSES, VOID
from pipeline.data.datasets.streets.scenes.render import render_street
from serving.contract.schema import Require

MIN_SIZE, MAX_SIZE = 32, 4096


@dataclass(frozen=True)
class StreetsOptions(SubsetOptions):
    """How many streets, how large, and which.

    Attributes:
        train: number of training images.
        val: number of validation images.
        test: number of test images; may be 0.
        height: pixels.
        width: pixels.
        seed: every image follows from the seed, its split and its index: a larger count only adds images.
    """

    train: int = 400
    val: int = 80
    test: int = 80
    height: int = 192
    width: int = 256
    seed: int = 0

    def check(self, require: Require) -> None:
        """See `SubsetOptions.check`."""
        super().check(require)
        for name, least in (("train", 1), ("val", 1), ("test", 0), ("seed", 0)):
            require(getattr(self, name) >= least, f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("height", "width"):
            size = getattr(self, name)
            require(MIN_SIZE <= size <= MAX_SIZE, f"{name}: expected {MIN_SIZE} to {MAX_SIZE} pixels, got {size}")


class Streets(Dataset):
    """Eleven classes of a street: `<split>/images/NNNNNN.png` and `<split>/labels/NNNNNN.png` (255 is void)."""

    Options = StreetsOptions
    options: StreetsOptions
    generated = True
    class_names = tuple(CLASSES)
    palette = tuple(CLASSES.values())
    _table = LabelTable({**{index: index for index in range(len(CLASSES))}, VOID: IGNORE_INDEX})

    def layout_problems(self) -> list[str]:
        folders = {f"{split}/{kind}": f"{kind} of {split}" for split in SPLITS for kind in ("images", "labels")}
        return missing_folders(self.root, folders)

    def pairs(self, split: str) -> list[Pair]:
        images, labels = self.root / split / "images", self.root / split / "labels"
        return pair_by_name(
            list_files(images),
            list_files(labels),
            label_path=lambda name: labels / f"{name}.png",
            image_path=lambda name: images / f"{name}.png",
        )

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        return self._table.apply(read_index_image(path, content), path)

    def generate(self, folder: Path, progress: Callable[[int, int], None]) -> None:
        counts = {split: getattr(self.options, split) for split in SPLITS}
        done, total = 0, sum(counts.values())
        for number, (split, count) in enumerate(counts.items()):
            for kind in ("images", "labels"):
                (folder / split / kind).mkdir(parents=True)
            for index in range(count):
                key = (self.options.seed, number, index)
                image, label = render_street(key, self.options.height, self.options.width)
                write_image(folder / split / "images" / f"{index:06}.png", image)
                write_label(folder / split / "labels" / f"{index:06}.png", label, self.palette)
                done += 1
                progress(done, total)


# Without the search for repetitions, deflate has nothing left to choose: the bytes are the same with every build of
# zlib, on every processor. On noisy images that costs almost nothing in size, and it is the faster way.


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write `[H,W,3]` uint8 as a PNG whose bytes depend on the pixels alone."""
    Image.fromarray(image).save(path, format="PNG", compress_type=zlib.Z_HUFFMAN_ONLY, compress_level=6)


def write_label(path: Path, label: NDArray[np.uint8], palette: tuple[tuple[int, int, int], ...]) -> None:
    """Write `[H,W]` uint8 ids as an index PNG with a palette, its bytes depending on the pixels alone."""
    indexed = Image.fromarray(label)
    colours = np.zeros((256, 3), np.uint8)  # all entries: with fewer, Pillow packs the pixels into less than 8 bits
    colours[: len(palette)] = palette
    indexed.putpalette(colours.tobytes())
    indexed.save(path, format="PNG", compress_type=zlib.Z_RLE, compress_level=6)
