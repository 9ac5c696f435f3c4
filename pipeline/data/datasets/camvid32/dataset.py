"""CamVid as its authors released it: 701 images of 960x720 with labels drawn in 32 colours.

Source of the data: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.camvid import CLASSES as CLASSES_11
from pipeline.data.datasets.shared.camvid import seconds_of, sequence_of
from pipeline.data.datasets.shared.dataset import (
    Dataset,
    Pair,
    SubsetOptions,
    list_files,
    missing_folders,
    pair_by_name,
)
from pipeline.data.datasets.shared.label_files import read_colour_image
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, Colour, ColourTable

# label_colors.txt of the release: name -> (colour, class of the usual 11).
COLOURS: dict[str, tuple[Colour, str]] = {
    "Animal": ((64, 128, 64), "pedestrian"),
    "Archway": ((192, 0, 128), "building"),
    "Bicyclist": ((0, 128, 192), "bicyclist"),
    "Bridge": ((0, 128, 64), "building"),
    "Building": ((128, 0, 0), "building"),
    "Car": ((64, 0, 128), "car"),
    "CartLuggagePram": ((64, 0, 192), "pedestrian"),
    "Child": ((192, 128, 64), "pedestrian"),
    "Column_Pole": ((192, 192, 128), "pole"),
    "Fence": ((64, 64, 128), "fence"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "road"),
    "Misc_Text": ((128, 128, 64), "sign symbol"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "OtherMoving": ((128, 64, 64), "car"),
    "ParkingBlock": ((64, 192, 128), "pavement"),
    "Pedestrian": ((64, 64, 0), "pedestrian"),
    "Road": ((128, 64, 128), "road"),
    "RoadShoulder": ((128, 128, 192), "pavement"),
    "Sidewalk": ((0, 0, 192), "pavement"),
    "SignSymbol": ((192, 128, 128), "sign symbol"),
    "Sky": ((128, 128, 128), "sky"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "TrafficCone": ((0, 0, 64), "pole"),
    "TrafficLight": ((0, 64, 64), "sign symbol"),
    "Train": ((192, 64, 128), "car"),
    "Tree": ((128, 128, 0), "tree"),
    "Truck_Bus": ((192, 128, 192), "car"),
    "Tunnel": ((64, 0, 64), "building"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "Wall": ((64, 192, 0), "building"),
}

VOID: Colour = (0, 0, 0)
"""The 32nd colour, `Void`: no class."""

_FLAT = ("701_StillsRaw_full", "LabeledApproved_full")
_FRAME = re.compile(r"_f?(\d+)$")


@dataclass(frozen=True)
class CamVid32Options(SubsetOptions):
    """How the colours are read.

    Attributes:
        classes: 32 keeps every class (31, since `Void` is none); 11 merges them into the usual eleven, the protocol of
            the published results, at full resolution.
    """

    classes: Literal[32, 11] = 32


class CamVid32(Dataset):
    """`701_StillsRaw_full/NAME.png` with `LabeledApproved_full/NAME_L.png`, as released.

    The split is the usual one of 367, 101 and 233 frames (`split_of`). Folders `train/ train_labels/ val/ val_labels/
    test/ test_labels/` are read too, and are then the split.
    """

    Options = CamVid32Options
    options: CamVid32Options

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(COLOURS) if self.options.classes == 32 else tuple(CLASSES_11)

    @property
    def palette(self) -> tuple[Colour, ...]:  # type: ignore[override]
        if self.options.classes == 32:
            return tuple(colour for colour, _ in COLOURS.values())
        return tuple(CLASSES_11.values())

    def layout_problems(self) -> list[str]:
        if self._is_split():
            names = [name for split in ("train", "val", "test") for name in (split, f"{split}_labels")]
            return missing_folders(self.root, dict.fromkeys(names, "images or labels"))
        purposes = ("the images, from 701_StillsRaw_full.zip", "the labels, from LabeledApproved_full.zip")
        return missing_folders(self.root, dict(zip(_FLAT, purposes, strict=True)))

    def pairs(self, split: str) -> list[Pair]:
        if self._is_split():
            return self._pairs_in(self.root / split, self.root / f"{split}_labels")
        pairs = self._pairs_in(self.root / _FLAT[0], self.root / _FLAT[1])
        return [pair for pair in pairs if split_of(pair.name) == split]

    def seconds(self, name: str) -> float | None:
        return seconds_of(name)

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        return _table(self.options.classes).apply(read_colour_image(path, content), path)

    def _is_split(self) -> bool:
        return (self.root / "train_labels").is_dir()

    @staticmethod
    def _pairs_in(images: Path, labels: Path) -> list[Pair]:
        return pair_by_name(
            list_files(images),
            list_files(labels),
            label_path=lambda name: labels / f"{name}_L.png",
            image_path=lambda name: images / f"{name}.png",
            label_name=lambda path: path.stem.removesuffix("_L"),
            sequence=sequence_of,
        )


def split_of(name: str) -> str:
    """The split of a frame in the SegNet tutorial's lists, told by sequence and frame number.

    0006R0 trains; so do the first half of 0001TP and 0016E5 without its densely sampled part, which validates; the
    second half of 0001TP and Seq05VD test. A name of no known sequence trains.
    """
    match = _FRAME.search(name)
    frame = int(match.group(1)) if match else 0
    sequence = sequence_of(name)
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    if sequence == "0016E5" and 7959 <= frame <= 8159:
        return "val"
    return "train"


_tables: dict[int, ColourTable] = {}


def _table(classes: int) -> ColourTable:
    """The table for 32 or 11 classes, made when first used: it takes 16 MB."""
    if classes not in _tables:
        names = list(COLOURS if classes == 32 else CLASSES_11)
        train_ids = {
            colour: names.index(name if classes == 32 else merged) for name, (colour, merged) in COLOURS.items()
        }
        _tables[classes] = ColourTable({**train_ids, VOID: IGNORE_INDEX})
    return _tables[classes]
