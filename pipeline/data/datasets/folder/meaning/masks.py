"""Labels of several masks: one file for every class or for every object of an image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.facts import Counts, Findings, LabelFacts, listed
from pipeline.data.datasets.shared.label_files import LabelImage
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, LabelError
from pipeline.data.datasets.shared.names import composed

MODE = "masks"
"""`LabelFacts.mode` of a label of several masks."""

NOWHERE, TWICE = -1, -2
"""What facts call pixels that are in no mask, and those in the masks of two classes."""

BACKGROUNDS = ("background", "bg", "_background_")
"""What the class of pixels in no object is called, in small letters."""
_NUMBER = re.compile(r"[_-]?[0-9]+$")


@dataclass(frozen=True)
class MaskEncoding:
    """How a label of several masks is put together.

    Attributes:
        class_names: as in classes.txt.
        of_objects: the train id of all masks where each is one object; None where file names tell classes.
        elsewhere: train id of pixels in no mask, 255 for void.
        overlap: `refuse`, `void` or `last`: what pixels in the masks of two classes are.
    """

    class_names: tuple[str, ...]
    of_objects: int | None
    elsewhere: int
    overlap: str

    def to_json(self) -> dict[str, Any]:
        """For dataset.json."""
        return {"kind": MODE, "of_objects": self.of_objects, "elsewhere": self.elsewhere, "overlap": self.overlap}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], class_names: tuple[str, ...]) -> MaskEncoding:
        """What `to_json` gave. Raises KeyError for anything else."""
        return cls(class_names, value["of_objects"], value["elsewhere"], value["overlap"])

    def decode(self, masks: Sequence[tuple[Path, LabelImage]]) -> NDArray[np.uint8]:
        """Train ids `[H,W]`. Raises LabelError for what is no mask."""
        found = compose(masks, self.class_names, self.of_objects, last=self.overlap == "last")
        found[found == NOWHERE] = self.elsewhere
        found[found == TWICE] = IGNORE_INDEX
        return found.astype(np.uint8)

    def train_counts(self, counts: Counts) -> NDArray[np.int64]:
        """`[256]`: pixels by train id, void at 255."""
        totals = np.zeros(256, dtype=np.int64)
        for value, count in counts.items():
            totals[{NOWHERE: self.elsewhere, TWICE: IGNORE_INDEX}.get(value, value)] += count
        return totals


def class_of_name(name: str, class_names: Sequence[str]) -> int | None:
    """The class that a name tells: all of it or its end, with or without a number behind (`car_2`)."""
    plain = _plain(name)
    for text in (plain, _NUMBER.sub("", plain)):
        matches = [
            (len(each), index)
            for index, each in enumerate(map(_plain, class_names))
            if text == each or text.endswith(f"_{each}")
        ]
        if matches:
            return max(matches)[1]
    return None


def class_of_mask(path: Path, class_names: Sequence[str]) -> int | None:
    """The class that the name of a mask file tells, or that of its folder (`labels/NAME/car/1.png`)."""
    found = class_of_name(path.stem, class_names)
    plain = [_plain(name) for name in class_names]
    folder = _plain(path.parent.name)
    return plain.index(folder) if found is None and folder in plain else found


def compose(
    masks: Sequence[tuple[Path, LabelImage]], class_names: Sequence[str], of_objects: int | None, *, last: bool
) -> NDArray[np.int16]:
    """Put masks together: `[H,W]` train ids, NOWHERE and TWICE.

    Args:
        masks: files of one label.
        class_names: as in classes.txt.
        of_objects: the train id of all of them; None where their names tell.
        last: of two classes at one pixel the later one counts.

    Raises:
        LabelError: more than two values in a mask, sizes that differ, or a name that tells no class.
    """
    layers: dict[int, NDArray[np.bool_]] = {}
    for path, label in masks:
        train = of_objects if of_objects is not None else class_of_mask(path, class_names)
        if train is None:
            raise LabelError(f"{path}: its name tells none of the classes {listed(class_names)}")
        inside = _inside(label, path)
        first = next(iter(layers.values()), inside)
        if inside.shape != first.shape:
            raise LabelError(
                f"{path}: {inside.shape[1]}x{inside.shape[0]}, the other masks {first.shape[1]}x{first.shape[0]}"
            )
        layers[train] = layers[train] | inside if train in layers else inside
    found = np.full(first.shape, NOWHERE, dtype=np.int16)
    for train in sorted(layers):
        inside = layers[train]
        twice = inside & (found != NOWHERE)
        found[inside] = train
        if not last:
            found[twice] = TWICE
    return found


def settle_masks(
    class_names: Sequence[str],
    of_objects: bool,
    background: str | None,
    overlap: str,
    all_facts: Sequence[LabelFacts],
    findings: Findings,
) -> MaskEncoding | None:
    """How masks make a label, from the facts of all of them.

    Args:
        class_names: as in classes.txt.
        of_objects: every mask is one object of the class that is not the background.
        background: class of the pixels in no mask, or `void`; None for the class called background, if any.
        overlap: as in `MaskEncoding`.
        all_facts: of every label.
        findings: gets a problem where it cannot be told.

    Returns:
        None where it cannot be told.
    """
    whole = [facts.name for facts in all_facts if facts.mode != MODE]
    if whole:
        findings.problem(
            "labels",
            f"{len(whole)} of {len(all_facts)} labels are whole, such as {whole[0]}, the others several masks; "
            "expected one kind throughout",
        )
        return None
    elsewhere = background_class(class_names, background)
    seen = {value for facts in all_facts for value in facts.counts}
    if elsewhere is None and NOWHERE in seen:
        unmasked = [name for index, name in enumerate(class_names) if index not in seen]
        if of_objects or len(unmasked) == 1:
            name = unmasked[0] if unmasked else class_names[0]
            findings.problem(
                "masks",
                f"some pixels are in no mask: if they are {name!r}, write prepare.options.background: {name}; if they "
                "are void, background: void",
            )
            return None
    pixels, twice, nowhere = (
        sum(sum(count for value, count in facts.counts.items() if match(value)) for facts in all_facts)
        for match in (lambda value: True, lambda value: value == TWICE, lambda value: value == NOWHERE)
    )
    if twice and overlap == "refuse":
        first = next(facts.name for facts in all_facts if TWICE in facts.counts)
        findings.problem(
            "masks",
            f"{twice} pixels are in the masks of two classes, such as in {first}; write prepare.options.overlap: last "
            "(the class that comes last in classes.txt) or void",
        )
        return None
    where = "void" if elsewhere in (None, IGNORE_INDEX) else repr(class_names[elsewhere or 0])
    findings.note("masks", f"{100 * nowhere / max(pixels, 1):.1f} % of the pixels are in no mask: {where}")
    return MaskEncoding(
        tuple(class_names),
        object_class(class_names, background) if of_objects else None,
        IGNORE_INDEX if elsewhere is None else elsewhere,
        overlap,
    )


def background_class(class_names: Sequence[str], background: str | None) -> int | None:
    """Train id of pixels in no mask: 255 for `void`, None where nothing says."""
    if background == "void":
        return IGNORE_INDEX
    for index, name in enumerate(class_names):
        if name == background or (background is None and name.casefold() in BACKGROUNDS):
            return index
    return None


def object_class(class_names: Sequence[str], background: str | None) -> int:
    """Of two classes the one that is not the background; the second where nothing says."""
    return 0 if background_class(class_names, background) == 1 else 1


def _inside(label: LabelImage, path: Path) -> NDArray[np.bool_]:
    """Where a mask is set: not 0, or not black where it has colours."""
    if label.transparent is not None:
        raise LabelError(f"{path}: {int(label.transparent.sum())} pixels of this mask are not opaque")
    pixels = label.colours() if label.is_coloured or label.palette is not None else label.pixels[..., None]
    inside: NDArray[np.bool_] = (pixels != 0).any(axis=-1)
    values = np.unique(pixels[inside].reshape(-1, pixels.shape[-1]), axis=0) if inside.any() else pixels[:0, 0]
    if len(values) > 1:
        raise LabelError(
            f"{path}: {len(values)} values beside 0; expected a mask of two (one class or one object a file, edges not "
            "soft)"
        )
    return inside


def _plain(name: str) -> str:
    """A name as file names spell it: small letters, one underscore for blanks and hyphens."""
    return re.sub(r"[\s_-]+", "_", composed(name).casefold())
