"""Cityscapes, 19 classes.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.dataset import Dataset, Pair, missing_folders, pair_by_name
from pipeline.data.datasets.shared.label_files import read_index_image
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, LabelTable

# The classes that are evaluated: name -> (id in `*_labelIds.png`, colour), in the order of the train ids.
CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}

MAX_ID = 33
"""Ids 0 to 33 occur in the label files; those of no class above are void in training and evaluation."""

_IMAGE_END, _LABEL_END = "_leftImg8bit", "_gtFine_labelIds"


class Cityscapes(Dataset):
    """`leftImg8bit/<split>/<city>/*_leftImg8bit.png` with `gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    Splits train and val. The published test labels are placeholders (the benchmark's server holds the real ones), so
    the split test is empty. The sequence of an image is its city and recording.
    """

    class_names = tuple(CLASSES)
    palette = tuple(colour for _, colour in CLASSES.values())
    _table = LabelTable(
        {
            **dict.fromkeys(range(MAX_ID + 1), IGNORE_INDEX),
            **{source: train for train, (source, _) in enumerate(CLASSES.values())},
        }
    )

    def layout_problems(self) -> list[str]:
        return missing_folders(
            self.root,
            {
                "leftImg8bit/train": "images to train on, from leftImg8bit_trainvaltest.zip",
                "leftImg8bit/val": "images to validate on, from leftImg8bit_trainvaltest.zip",
                "gtFine/train": "their labels, from gtFine_trainvaltest.zip",
                "gtFine/val": "their labels, from gtFine_trainvaltest.zip",
            },
        )

    def pairs(self, split: str) -> list[Pair]:
        if split == "test":
            return []
        images, labels = self.root / "leftImg8bit" / split, self.root / "gtFine" / split
        return pair_by_name(
            sorted(images.glob(f"*/*{_IMAGE_END}.png")),
            sorted(labels.glob(f"*/*{_LABEL_END}.png")),
            label_path=lambda name: labels / _city(name) / f"{name}{_LABEL_END}.png",
            image_path=lambda name: images / _city(name) / f"{name}{_IMAGE_END}.png",
            image_name=lambda path: path.stem.removesuffix(_IMAGE_END),
            label_name=lambda path: path.stem.removesuffix(_LABEL_END),
            sequence=lambda name: name.rpartition("_")[0],
        )

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        return self._table.apply(read_index_image(path, content), path)


def _city(name: str) -> str:
    """`frankfurt` of `frankfurt_000000_000294`."""
    return name.rsplit("_", 2)[0]
