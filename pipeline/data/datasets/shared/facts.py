"""What is found out about a dataset before it is trained on: of single labels, and of all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.labels import Colour

Counts = Mapping[int, int]
"""Value of a label -> number of pixels. A value is a number, or a colour as one number (`colour_code`)."""


@dataclass(frozen=True)
class LabelFacts:
    """What one label holds.

    Attributes:
        name: what messages call the label file (or the first of several that make one label): its place below the
            dataset's folder, printable.
        height: in pixels.
        width: in pixels.
        counts: value -> pixels: train ids where the dataset knows what its values mean, else what the file holds.
        mode: how the file holds them: Pillow's mode, or the ending of a file of another kind.
        coloured: whether the values are colours.
        palette: colours of the values that occur, where the file has a palette.
        palette_key: equal for equal palettes; None without one.
        hidden: of these, the pixels that are not opaque.
        orientation: EXIF orientation that the file asked for, 1 for none.
    """

    name: str
    height: int
    width: int
    counts: Counts
    mode: str = ""
    coloured: bool = False
    palette: Mapping[int, Colour] = field(default_factory=dict)
    palette_key: bytes | None = None
    hidden: Counts = field(default_factory=dict)
    orientation: int = 1


@dataclass
class Findings:
    """What is wrong, what is odd, and what was done, gathered while a dataset is looked at.

    Attributes:
        problems: kind -> lines. With any, nothing is prepared.
        warnings: `kind: what`; they reach the report, and the gate judges them.
        notes: what is certain and was taken so: `kind: what`.
    """

    problems: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many problems there are."""
        return sum(map(len, self.problems.values()))

    def problem(self, kind: str, what: str) -> None:
        """Note what must be mended first."""
        self.problems.setdefault(kind, []).append(what)

    def warn(self, kind: str, what: str) -> None:
        """Note what is odd, but may be meant."""
        self.warnings.append(f"{kind}: {what}")

    def note(self, kind: str, what: str) -> None:
        """Note what was taken one way because nothing else could be meant."""
        self.notes.append(f"{kind}: {what}")


def colour_code(colour: Colour) -> int:
    """A colour as one number: red in the highest of three bytes."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def colour_of(code: int) -> Colour:
    """The colour that `colour_code` made this number of."""
    return code >> 16, code >> 8 & 255, code & 255


def count_values(values: NDArray[np.integer]) -> dict[int, int]:
    """How often every value of `[H,W]` occurs. Labels have long runs of one value, and only the runs are sorted."""
    flat = values.reshape(-1)
    if not len(flat):
        return {}
    if flat.dtype == np.uint8:
        counts = np.bincount(flat, minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, len(flat)))
    found, number = np.unique(flat[starts], return_inverse=True)
    totals = np.bincount(number, weights=lengths)
    return {int(value): int(total) for value, total in zip(found, totals, strict=True)}


def colour_codes(colours: NDArray[np.uint8]) -> NDArray[np.integer]:
    """`colour_code` of every pixel: `[H,W,3]` -> `[H,W]`."""
    wide = colours.astype(np.uint32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def listed(values: Iterable[object], limit: int = 12, *, separator: str = ", ") -> str:
    """The first values, and how many there are more."""
    texts = [str(value) for value in values]
    more = f" and {len(texts) - limit} more" if len(texts) > limit else ""
    return separator.join(texts[:limit]) + more
