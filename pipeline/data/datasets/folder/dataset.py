"""Anyone's own data: `images/`, `labels/` and `classes.txt`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.folder.classes import ClassLine, distinct_colour, read_classes
from pipeline.data.datasets.folder.encoding import Encoding
from pipeline.data.datasets.folder.label_facts import examine_label, read_label
from pipeline.data.datasets.folder.options import FolderOptions
from pipeline.data.datasets.folder.settling import settle
from pipeline.data.datasets.folder.views import as_colours, as_numbers
from pipeline.data.datasets.shared.dataset import (
    IMAGE_SUFFIXES,
    SPLITS,
    Dataset,
    LabelFile,
    Pair,
    list_files,
    missing_folders,
    pair_by_name,
)
from pipeline.data.datasets.shared.facts import Findings, LabelFacts
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, Colour
from pipeline.data.datasets.shared.names import composed, relative_name
from serving.contract.errors import UserError

LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".npy", ".mat")


class Folder(Dataset):
    """`images/NAME.jpg` with `labels/NAME.png`, and `classes.txt`: one class a line, line k naming label id k - 1.

    A line may end in the value that stands for the class in labels (`nucleus 255`) or in its colour
    (`road 128 64 128`). Labels are index images, or drawn in the colours of classes.txt; 255 is void unless a class has
    it. What the values mean is settled from all labels together (`settle`). With subfolders
    `images/train images/val [images/test]` (and the same under `labels/`) those are the splits. Without, sequences
    (or single images) are ordered by the SHA-256 of their name and dealt out: first val, then test, the rest train;
    the split depends on the names alone.
    """

    Options = FolderOptions
    options: FolderOptions
    _settled: Encoding | None = None

    @cached_property
    def _classes(self) -> tuple[ClassLine, ...]:
        return read_classes(self.root / "classes.txt")

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(line.name for line in self._classes)

    @property
    def palette(self) -> tuple[Colour, ...]:  # type: ignore[override]
        return tuple(line.colour or distinct_colour(index) for index, line in enumerate(self._classes))

    @property
    def _encoding(self) -> Encoding:
        """What was settled; before that, the numbers that the lines of classes.txt say."""
        if self._settled is None:
            self._settled = Encoding.of_lines(self._classes, (IGNORE_INDEX, *self.options.void_values))
        return self._settled

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
            list_files(labels, LABEL_SUFFIXES),
            label_path=lambda name: labels / f"{name}.png",
            image_path=lambda name: images / f"{name}.jpg",
            sequence=self._sequence,
        )

    def _sequence(self, name: str) -> str | None:
        match = re.search(self.options.sequence_pattern, name) if self.options.sequence_pattern else None
        return match.group(1) if match else None

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        return self._encoding.decode(read_label(path, content, self.options.mat_variable), path)

    def examine(self, files: Sequence[LabelFile]) -> LabelFacts:
        ((path, content),) = files
        return examine_label(read_label(path, content, self.options.mat_variable), relative_name(path, self.root))

    def settle(self, all_facts: Sequence[LabelFacts], findings: Findings) -> None:
        self._settled = settle(self._classes, self.options, all_facts, findings)

    @property
    def encoding(self) -> dict[str, Any]:
        return self._encoding.to_json()

    def use_encoding(self, encoding: Mapping[str, Any] | None) -> None:
        if encoding is None:
            raise ValueError("the meaning of the labels' values is missing")
        self._settled = Encoding.from_json(encoding)

    def train_counts(self, facts: LabelFacts) -> NDArray[np.int64]:
        view = as_numbers if self._encoding.kind == "numbers" else as_colours
        everything, opaque = view(facts) or {}, view(facts, opaque=True) or {}
        totals = self._encoding.train_counts(opaque)
        totals[IGNORE_INDEX] += sum(everything.values()) - sum(opaque.values())
        return totals


def deal(names: list[str], *, val_fraction: float, test_fraction: float) -> dict[str, str]:
    """Name -> split, by the order of the SHA-256 of the names (in NFC): depends on nothing but the names."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(composed(name).encode("utf-8", "surrogateescape")).digest())
    val = max(1, round(len(ordered) * val_fraction))
    test = round(len(ordered) * test_fraction)
    splits = ["val"] * val + ["test"] * test + ["train"] * max(0, len(ordered) - val - test)
    return dict(zip(ordered, splits, strict=False))
