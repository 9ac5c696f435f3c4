"""CamVid with 11 classes at 480x360, in the layout of the SegNet tutorial (Badrinarayanan et al.).

Source of the data: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.camvid import CLASSES, seconds_of, sequence_of
from pipeline.data.datasets.shared.dataset import SPLITS, Dataset, Pair, list_files, missing_folders, pair_by_name
from pipeline.data.datasets.shared.label_files import read_index_image
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, LabelTable

VOID_ID = 11


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

    def seconds(self, name: str) -> float | None:
        return seconds_of(name)

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        return self._table.apply(read_index_image(path, content), path)
