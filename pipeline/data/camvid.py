"""CamVid with 11 classes at 480x360, in the layout of the SegNet tutorial (Badrinarayanan et al.).

Source of the data: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.interface import SPLITS, Dataset, Pair, list_files, missing_folders, pair_by_name
from pipeline.data.labels import IGNORE_INDEX, LabelTable, read_index_image

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
"""Name -> colour of the published figures, in the order of the label ids 0..10."""

VOID_ID = 11

_SEQUENCE = re.compile(r"^(.+?)_f?\d+$")


def sequence_of(name: str) -> str | None:
    """The recording a CamVid frame is from: `0001TP` of `0001TP_008550`, `Seq05VD` of `Seq05VD_f00000`."""
    match = _SEQUENCE.match(name)
    return match.group(1) if match else None


class CamVid(Dataset):
    """`train/ trainannot/ val/ valannot/ test/ testannot/`; labels are index PNGs, 0..10 and 11 for void.

    Images may be `.png` (as published) or `.jpg`.
    """

    class_names = tuple(CLASSES)
    palette = tuple(CLASSES.values())
    _table = LabelTable({**{index: index for index in range(len(CLASSES))}, VOID_ID: IGNORE_INDEX})

    def layout_problems(self) -> list[str]:
        folders = {}
        for split in SPLITS:
            folders[split] = f"images of {split}"
            folders[f"{split}annot"] = f"labels of {split}"
        return missing_folders(self.root, folders)

    def pairs(self, split: str) -> list[Pair]:
        images, labels = self.root / split, self.root / f"{split}annot"
        return pair_by_name(
            list_files(images),
            list_files(labels),
            label_path=lambda name: labels / f"{name}.png",
            image_path=lambda name: images / f"{name}.png",
            sequence=sequence_of,
        )

    def decode_label(self, path: Path) -> NDArray[np.uint8]:
        return self._table.apply(read_index_image(path), path)
