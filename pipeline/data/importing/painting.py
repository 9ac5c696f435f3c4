"""From shapes to a label map: which lies above which, what a box is worth, and what no shape covers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.facts import count_values
from pipeline.data.datasets.shared.labels import IGNORE_INDEX
from pipeline.data.importing.export import Overlap, Picture, Shape


@dataclass(frozen=True)
class Rules:
    """How shapes become a label map.

    Attributes:
        overlap: pixels in shapes of two classes are the class of the `last` shape or of the `smallest`, `void`, or
            refused.
        boxes: pixels in a box alone are `void`, filled with its class, or left out.
        crowd: pixels of a region for many objects are its `class` or `void`.
        elsewhere: class of pixels in no shape, 255 for void.
        void: class that means void, if any.
    """

    overlap: Overlap
    boxes: Literal["void", "fill", "leave-out"]
    crowd: Literal["class", "void"]
    elsewhere: int
    void: int | None = None


@dataclass
class Tally:
    """What was painted.

    Attributes:
        shapes: kind -> how many were painted.
        boxes: without a mask, how many.
        crowds: how many.
        twice: pixels in shapes of two classes.
        pictures_twice: images with such pixels.
        blank: images on which nothing is drawn.
        nothing: shapes that cover no pixel.
        pixels: train id -> pixels.
    """

    shapes: Counter[str] = field(default_factory=Counter)
    boxes: int = 0
    crowds: int = 0
    twice: int = 0
    pictures_twice: int = 0
    blank: int = 0
    nothing: int = 0
    pixels: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Drawn:
    """A shape and its pixels within the smallest window that holds them: images are large, most shapes small."""

    shape: Shape
    window: tuple[slice, slice]
    mask: NDArray[np.bool_]
    pixels: int


def paint(picture: Picture, rules: Rules, tally: Tally) -> NDArray[np.uint8]:
    """The label map of a picture, `[H,W]`; 255 is void.

    Several polygons of one annotation are one object, holes come from masks or from shapes above. Boxes without a mask
    lie among the other shapes; where they are void, pixels that are of their class already stay so.
    """
    found = np.full((picture.height, picture.width), rules.elsewhere, dtype=np.uint8)
    painted = [shape for shape in picture.shapes if shape.kind != "box" or rules.boxes != "leave-out"]
    drawn = [_drawn(shape, tally) for shape in painted]
    drawn.sort(key=lambda one: (-one.pixels if rules.overlap == "smallest" else 0, one.shape.order))
    owner = np.full(found.shape, -1, dtype=np.int16)
    twice = np.zeros(found.shape, dtype=bool)
    for one in drawn:
        of_void = one.shape.label == rules.void or (one.shape.crowd and rules.crowd == "void")
        label = IGNORE_INDEX if of_void else one.shape.label
        below = owner[one.window]
        twice[one.window] |= one.mask & (below >= 0) & (below != label)
        if one.shape.kind == "box" and rules.boxes == "void":
            found[one.window][one.mask & (below != label)] = IGNORE_INDEX
        else:
            found[one.window][one.mask] = label
        owner[one.window][one.mask] = label
    if rules.overlap == "void":
        found[twice] = IGNORE_INDEX
    tally.twice += int(twice.sum())
    tally.pictures_twice += bool(twice.any())
    tally.boxes += sum(shape.kind == "box" for shape in picture.shapes)
    tally.blank += not picture.shapes
    tally.pixels.update(count_values(found))
    return found


def _drawn(shape: Shape, tally: Tally) -> _Drawn:
    mask = shape.draw()
    rows = np.flatnonzero(mask.any(axis=1))
    if shape.kind != "box":
        tally.shapes[shape.kind] += 1
    tally.crowds += shape.crowd
    if not len(rows):
        tally.nothing += 1
        return _Drawn(shape, (slice(0), slice(0)), mask[:0, :0], 0)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inner = mask[window].copy()
    return _Drawn(shape, window, inner, int(inner.sum()))
