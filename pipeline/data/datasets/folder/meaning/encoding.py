"""What the values in a folder's label files mean, once that is settled: numbers or colours -> train ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.folder.classes import ClassLine
from pipeline.data.datasets.shared.facts import Counts, colour_code, colour_of
from pipeline.data.datasets.shared.label_files import LabelImage
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, Colour, ColourTable, LabelError, LabelTable

Kind = Literal["numbers", "colours"]


@dataclass(frozen=True)
class Encoding:
    """How label files are read.

    Attributes:
        kind: whether pixels are told by their numbers or by their colours.
        meaning: number, or colour as one number (`colour_code`), -> train id, 255 for void. No other value is known.
        transparent_void: pixels that are not opaque are void, whatever lies below.
    """

    kind: Kind
    meaning: Mapping[int, int]
    transparent_void: bool = False

    @classmethod
    def of_lines(cls, classes: tuple[ClassLine, ...], void_values: tuple[int, ...]) -> Encoding:
        """The numbers that classes.txt names or implies; void where no class has the number."""
        meaning = dict.fromkeys(void_values, IGNORE_INDEX)
        return cls("numbers", meaning | {line.value: index for index, line in enumerate(classes)})

    @classmethod
    def of_colours(cls, classes: tuple[ClassLine, ...], void_colours: tuple[Colour, ...]) -> Encoding:
        """The colours in classes.txt; every class must have one."""
        meaning = dict.fromkeys(map(colour_code, void_colours), IGNORE_INDEX)
        colours = {colour_code(line.colour): index for index, line in enumerate(classes) if line.colour is not None}
        assert len(colours) == len(classes), "every class has a colour of its own"
        return cls("colours", meaning | colours)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Encoding:
        """What `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        meaning = {int(source): int(train) for source, train in value["meaning"]}
        return cls(value["kind"], meaning, bool(value.get("transparent_void", False)))

    def to_json(self) -> dict[str, Any]:
        """For dataset.json."""
        content: dict[str, Any] = {"kind": self.kind, "meaning": sorted(map(list, self.meaning.items()))}
        return content | ({"transparent_void": True} if self.transparent_void else {})

    def decode(self, label: LabelImage, path: Path) -> NDArray[np.uint8]:
        """A label file's pixels as train ids `[H,W]`, uint8.

        Raises:
            LabelError: a value without a meaning, or pixels that are not opaque where nothing says what they are.
        """
        hidden = label.transparent if self.kind == "colours" or label.mode not in ("P", "1", "L") else None
        if hidden is not None and not self.transparent_void:
            raise LabelError(f"{path}: {int(hidden.sum())} pixels are not opaque; run prepare again")
        values = numbers_of(label, path) if self.kind == "numbers" else colours_of(label, path)
        if hidden is not None:
            known = min(value for value in self.meaning if value >= 0)  # fits every dtype that holds any
            values = np.where(hidden if values.ndim == 2 else hidden[..., None], _as(known, values), values)
        train = self._table.apply(values, path)
        return train if hidden is None else np.where(hidden, np.uint8(IGNORE_INDEX), train)

    def train_counts(self, counts: Counts) -> NDArray[np.int64]:
        """`[256]`: pixels by train id, void at 255. Values without a meaning are left out."""
        totals = np.zeros(256, dtype=np.int64)
        for value, count in counts.items():
            if value in self.meaning:
                totals[self.meaning[value]] += count
        return totals

    @cached_property
    def _table(self) -> Any:
        """LabelTable or ColourTable; the latter takes 16 MB."""
        if self.kind == "numbers":
            return LabelTable(self.meaning)
        return ColourTable({colour_of(code): train for code, train in self.meaning.items()})


def numbers_of(label: LabelImage, path: Path) -> NDArray[np.integer]:
    """The numbers of a label, `[H,W]`: its one channel, or three equal ones.

    Raises:
        LabelError: colours.
    """
    if not label.is_coloured:
        return label.pixels
    if (label.pixels != label.pixels[..., :1]).any():
        raise LabelError(f"{path}: colours, where labels of this dataset are numbers; run prepare again")
    return label.pixels[..., 0]


def colours_of(label: LabelImage, path: Path) -> NDArray[np.uint8]:
    """The colours of a label, `[H,W,3]` uint8 RGB.

    Raises:
        LabelError: numbers of more than 8 bits.
    """
    try:
        return label.colours()
    except ValueError as error:
        raise LabelError(f"{path}: {error}, where labels of this dataset are colours; run prepare again") from error


def _as(value: int, like: NDArray[np.integer]) -> Any:
    """A known value in the form of the pixels."""
    return np.array(colour_of(value), np.uint8) if like.ndim == 3 else like.dtype.type(value)
