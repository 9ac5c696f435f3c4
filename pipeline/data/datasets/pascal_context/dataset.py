"""PASCAL-Context, its 59 frequent classes.

Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.arrays import read_matlab_label
from pipeline.data.datasets.shared.dataset import Dataset, Pair, missing_folders
from pipeline.data.datasets.shared.label_files import read_index_image
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, LabelTable
from pipeline.data.datasets.shared.palettes import voc_colours

# The 59 classes by their id among the 459 of the MATLAB files (labels.txt of the release). Train ids follow these ids,
# which is the order of the names, and of the converted PNGs of MMSegmentation and the detail API.
CLASSES = {
    2: "aeroplane",
    9: "bag",
    18: "bed",
    19: "bedclothes",
    22: "bench",
    23: "bicycle",
    25: "bird",
    31: "boat",
    33: "book",
    34: "bottle",
    44: "building",
    45: "bus",
    46: "cabinet",
    59: "car",
    65: "cat",
    68: "ceiling",
    72: "chair",
    80: "cloth",
    85: "computer",
    98: "cow",
    104: "cup",
    105: "curtain",
    113: "dog",
    115: "door",
    144: "fence",
    158: "floor",
    159: "flower",
    162: "food",
    187: "grass",
    189: "ground",
    207: "horse",
    220: "keyboard",
    232: "light",
    258: "motorbike",
    259: "mountain",
    260: "mouse",
    284: "person",
    295: "plate",
    296: "platform",
    308: "potted plant",
    324: "road",
    326: "rock",
    347: "sheep",
    349: "shelves",
    354: "sidewalk",
    355: "sign",
    360: "sky",
    366: "snow",
    368: "sofa",
    397: "table",
    415: "track",
    416: "train",
    420: "tree",
    424: "truck",
    427: "tv monitor",
    440: "wall",
    445: "water",
    454: "window",
    458: "wood",
}

NUM_SOURCE_CLASSES = 459

_MATLAB_FOLDER, _PNG_FOLDER = "trainval", "SegmentationClassContext"


class PascalContext(Dataset):
    """`VOCdevkit/VOC2010` with the context labels in `trainval/*.mat` as released (459 ids in `LabelMap`).

    Converted labels in `SegmentationClassContext/*.png` (0 background, 1 to 59) are read where `trainval/` is missing.
    What belongs to none of the 59 classes is void. Train and val are VOC 2010's `ImageSets/Main/{train,val}.txt`
    (4998 and 5105 images), or `ImageSets/SegmentationContext/{train,val}.txt` where those exist; test is empty.
    """

    class_names = tuple(CLASSES.values())
    palette = voc_colours(len(CLASSES))
    _matlab_table = LabelTable(
        {
            **dict.fromkeys(range(NUM_SOURCE_CLASSES + 1), IGNORE_INDEX),
            **{source: train for train, source in enumerate(CLASSES)},
        }
    )
    _png_table = LabelTable({0: IGNORE_INDEX, **{train + 1: train for train in range(len(CLASSES))}})

    def layout_problems(self) -> list[str]:
        problems = missing_folders(self.root, {"JPEGImages": "images, from VOCtrainval_03-May-2010.tar"})
        if not self.root.is_dir():
            return problems
        if self._labels() is None:
            problems.append(
                f"{self.root / _MATLAB_FOLDER}: missing folder (labels, from PASCAL-Context's trainval.tar.gz)"
            )
        problems += [
            f"{self.root / 'ImageSets' / 'Main' / f'{split}.txt'}: missing file (names of the images of {split})"
            for split in ("train", "val")
            if self._list(split) is None
        ]
        if problems and (self.root / "VOCdevkit" / "VOC2010").is_dir():
            problems.append(f"point prepare.root at {self.root / 'VOCdevkit' / 'VOC2010'}")
        return problems

    def pairs(self, split: str) -> list[Pair]:
        names, labels = self._list(split), self._labels()
        if split == "test" or names is None or labels is None:
            return []
        folder, suffix = labels
        listed = [line.split()[0] for line in names.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [
            Pair(name, self.root / "JPEGImages" / f"{name}.jpg", folder / f"{name}{suffix}") for name in sorted(listed)
        ]

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        if path.suffix == ".mat":
            return self._matlab_table.apply(read_matlab_label(path, "LabelMap", content), path)
        return self._png_table.apply(read_index_image(path, content), path)

    def _labels(self) -> tuple[Path, str] | None:
        """The folder with labels and their suffix."""
        for folder, suffix in ((_MATLAB_FOLDER, ".mat"), (_PNG_FOLDER, ".png")):
            if (self.root / folder).is_dir():
                return self.root / folder, suffix
        return None

    def _list(self, split: str) -> Path | None:
        """The file that lists the images of `split`."""
        for folder in ("SegmentationContext", "Main"):
            path = self.root / "ImageSets" / folder / f"{split}.txt"
            if path.is_file():
                return path
        return None
