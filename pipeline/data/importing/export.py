"""What an export holds once its format no longer matters: pictures, classes, and shapes drawn on the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.datasets.shared.labels import Colour
from serving.contract.errors import UserError, shown
from serving.images.decoding import SILENCE, exif_orientation

Overlap = Literal["last", "smallest", "void", "refuse"]
MAX_SHOWN = 20


@dataclass(frozen=True)
class Shape:
    """One annotation that covers pixels.

    Attributes:
        label: index of its class.
        order: later ones lie above earlier ones.
        kind: `polygon`, `mask` or `box`: a box says where an object is, not which pixels it covers.
        draw: gives `[H,W]` bool.
        crowd: one region for many objects (`iscrowd`).
    """

    label: int
    order: tuple[int, int]
    kind: Literal["polygon", "mask", "box"]
    draw: Callable[[], NDArray[np.bool_]]
    crowd: bool = False


@dataclass
class Picture:
    """One image and what is drawn on it.

    Attributes:
        path: the file.
        name: its place in the export without ending, with `/`.
        subset: as the export calls it; empty where it says nothing.
        height: in pixels, of what was drawn on.
        width: likewise.
        shapes: in no order.
    """

    path: Path
    name: str
    subset: str
    height: int
    width: int
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Export:
    """A dataset as a tool exported it.

    Attributes:
        format: its name.
        labels: names of the classes.
        pictures: all that the export lists.
        colours: of the classes, where the export says.
        void: index of the class that means void, if any.
        ordered: whether the order of the annotations is the one that they lie above each other in.
        left_out: kind of annotation that is no mask -> how many.
        notes: what else was done, a line each.
    """

    format: str
    labels: Sequence[str]
    pictures: Sequence[Picture]
    colours: Sequence[Colour] | None = None
    void: int | None = None
    ordered: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class Problems:
    """Everything that is wrong with an export, told at once."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._lines: dict[str, list[str]] = {}

    def add(self, kind: str, what: str) -> None:
        """Note one."""
        self._lines.setdefault(kind, []).append(what)

    def raise_any(self) -> None:
        """Raise UserError if there was one."""
        if not self._lines:
            return
        total = sum(map(len, self._lines.values()))
        text = [f"{shown(self._source)}: {total} problem{'s' * (total != 1)}; nothing was written"]
        for kind, lines in self._lines.items():
            text.append(f"  {kind} ({len(lines)}):")
            text += [f"    {shown(line)}" for line in lines[:MAX_SHOWN]]
            if len(lines) > MAX_SHOWN:
                text.append(f"    and {len(lines) - MAX_SHOWN} more")
        raise UserError("\n".join(text))


def stored_size(path: Path, problems: Problems) -> tuple[int, int, int] | None:
    """Height, width and EXIF orientation of an image file, as it is stored; of what is none, a problem is noted."""
    try:
        with SILENCE, Image.open(path) as image:
            return image.height, image.width, exif_orientation(image) or 1
    except UnidentifiedImageError:
        problems.add("unreadable", f"{path}: no image, or a damaged one")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        problems.add("unreadable", f"{path}: {error}")
    return None


def plain_name(name: object) -> str:
    """The name of a class on one line, as classes.txt can hold it; empty for none."""
    return " ".join(str(name).replace('"', "'").replace("\ufeff", "").split()) if name is not None else ""
