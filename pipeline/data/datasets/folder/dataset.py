"""Anyone's own data: `images/`, `labels/` and `classes.txt`."""

from __future__ import annotations

import colorsys
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.dataset import (
    SPLITS,
    Colour,
    Dataset,
    Pair,
    list_files,
    missing_folders,
    pair_by_name,
)
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, MAX_CLASSES, LabelTable, read_index_image
from serving.contract.errors import UserError
from serving.contract.schema import Require

_CLASS_LINE = re.compile(r"^(?P<name>[^,;\t]+?)(?:[\s,;]+(?P<red>\d+)[\s,;]+(?P<green>\d+)[\s,;]+(?P<blue>\d+))?$")


@dataclass(frozen=True)
class FolderOptions:
    """How a folder without train/val/test subfolders is split.

    Attributes:
        val_fraction: share of the images that go to val, at least one image.
        test_fraction: share of the images that go to test.
        sequence_pattern: regular expression with one group, searched in the file name: what it finds is the image's
            sequence, which stays whole in one split. Empty: every image stands for itself.
    """

    val_fraction: float = 0.2
    test_fraction: float = 0.0
    sequence_pattern: str = ""

    def __post_init__(self) -> None:
        require = Require()
        require(0 < self.val_fraction < 1, f"val_fraction: expected between 0 and 1, got {self.val_fraction}")
        require(0 <= self.test_fraction < 1, f"test_fraction: expected in [0, 1), got {self.test_fraction}")
        require(
            self.val_fraction + self.test_fraction < 1,
            "val_fraction + test_fraction: expected below 1, so that images are left to train on",
        )
        try:
            groups = re.compile(self.sequence_pattern).groups if self.sequence_pattern else 1
        except re.error as error:
            require(False, f"sequence_pattern: not a regular expression ({error})")
        else:
            require(groups == 1, f"sequence_pattern: expected one (group), got {groups}")
        require.done()


class Folder(Dataset):
    """`images/NAME.jpg` with `labels/NAME.png`, and `classes.txt`: one class a line, line k naming label id k - 1.

    A line may end in the class's colour (`road 128 64 128`). Labels are index images; 255 is void. With subfolders
    `images/train images/val [images/test]` (and the same under `labels/`) those are the splits. Without, sequences
    (or single images) are ordered by the SHA-256 of their name and dealt out: first val, then test, the rest train;
    the split depends on the names alone.
    """

    Options = FolderOptions
    options: FolderOptions

    @cached_property
    def _classes(self) -> dict[str, Colour | None]:
        return _read_classes(self.root / "classes.txt")

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self._classes)

    @property
    def palette(self) -> tuple[Colour, ...]:  # type: ignore[override]
        return tuple(colour or distinct_colour(index) for index, colour in enumerate(self._classes.values()))

    @cached_property
    def _table(self) -> LabelTable:
        return LabelTable({**{index: index for index in range(len(self._classes))}, 255: IGNORE_INDEX})

    @property
    def _is_split(self) -> bool:
        return any((self.root / "images" / split).is_dir() for split in SPLITS)

    def layout_problems(self) -> list[str]:
        problems = missing_folders(self.root, {"images": "the images", "labels": "one index PNG per image"})
        if self.root.is_dir():
            try:
                _ = self._classes
            except UserError as error:
                problems += str(error).splitlines()
        if not problems and self._is_split:
            folders = {"images/train": "images to train on", "images/val": "images to validate on"}
            folders |= {f"labels/{s}": f"labels of {s}" for s in SPLITS if (self.root / "images" / s).is_dir()}
            problems = missing_folders(self.root, folders)
            loose = list_files(self.root / "images")
            if loose:
                problems.append(f"{loose[0]}: an image beside the folders train/ and val/; move it into one of them")
        return problems

    def pairs(self, split: str) -> list[Pair]:
        if self._is_split:
            return self._pairs_in(self.root / "images" / split, self.root / "labels" / split)
        pairs = self._pairs_in(self.root / "images", self.root / "labels")
        split_of = deal(
            sorted({pair.sequence or pair.name for pair in pairs}),
            val_fraction=self.options.val_fraction,
            test_fraction=self.options.test_fraction,
        )
        return [pair for pair in pairs if split_of[pair.sequence or pair.name] == split]

    def _pairs_in(self, images: Path, labels: Path) -> list[Pair]:
        return pair_by_name(
            list_files(images),
            list_files(labels),
            label_path=lambda name: labels / f"{name}.png",
            image_path=lambda name: images / f"{name}.jpg",
            sequence=self._sequence,
        )

    def _sequence(self, name: str) -> str | None:
        match = re.search(self.options.sequence_pattern, name) if self.options.sequence_pattern else None
        return match.group(1) if match else None

    def decode_label(self, path: Path) -> NDArray[np.uint8]:
        return self._table.apply(read_index_image(path), path)


def deal(names: list[str], *, val_fraction: float, test_fraction: float) -> dict[str, str]:
    """Name -> split, by the order of the names' SHA-256: depends on nothing but the names."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    val = max(1, round(len(ordered) * val_fraction))
    test = round(len(ordered) * test_fraction)
    splits = ["val"] * val + ["test"] * test + ["train"] * max(0, len(ordered) - val - test)
    return dict(zip(ordered, splits, strict=False))


def distinct_colour(index: int) -> Colour:
    """A colour for class `index` that differs from its neighbours': hues a golden angle apart, three brightnesses."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.6180339887 % 1.0, 0.75, (0.95, 0.7, 0.5)[index % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def _read_classes(path: Path) -> dict[str, Colour | None]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(f"{path}: {reason}; expected a text file with one class name a line") from error
    while lines and not lines[-1].strip():
        lines.pop()
    classes: dict[str, Colour | None] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        match = _CLASS_LINE.match(line.strip())
        if match is None:
            problems.append(f"{path}:{number}: expected a class name, optionally with its colour R G B, got {line!r}")
            continue
        name, colour = match["name"], None
        if match["red"] is not None:
            colour = (int(match["red"]), int(match["green"]), int(match["blue"]))
            if max(colour) > 255:
                problems.append(f"{path}:{number}: a colour is three numbers up to 255, got {colour}")
        if name in classes:
            problems.append(f"{path}:{number}: the class {name!r} is named twice")
        classes[name] = colour
    if not problems and not 2 <= len(classes) <= MAX_CLASSES:
        problems.append(f"{path}: expected 2 to {MAX_CLASSES} classes, got {len(classes)}")
    if problems:
        raise UserError("\n".join(problems))
    return classes
