"""The layout of `folder`: images linked, labels painted, classes.txt; whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.datasets.folder.classes import distinct_colour
from pipeline.data.datasets.folder.splits import NAMES, deal
from pipeline.data.datasets.shared.facts import listed
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, MAX_CLASSES, Colour
from pipeline.data.datasets.shared.names import composed
from pipeline.data.importing.export import Export, Picture, Problems, stored_size
from pipeline.data.importing.painting import Rules, Tally, paint
from serving.contract.errors import UserError, shown
from serving.contract.files import atomic_dir
from serving.images.decoding import EXIF_TURNS

_VOID_COLOURS: tuple[Colour, ...] = tuple((255, level, 255) for level in range(255, -1, -1))
_VAL_FRACTION = 0.2


def split_pictures(pictures: Sequence[Picture]) -> tuple[dict[int, str | None], list[str]]:
    """The split of every picture by its index, and what is to be said of it. None: `prepare` deals them out."""
    subsets = sorted({picture.subset for picture in pictures})
    known = {subset: split for subset in subsets for split, names in NAMES.items() if subset.casefold() in names}
    if len(known) < len(subsets) or not {"train", "val"} & set(known.values()) or len(set(known.values())) == 1:
        told = f"the export has the subsets {listed(map(repr, subsets))}, " if any(subsets) else ""
        return dict.fromkeys(range(len(pictures)), None), [
            f"{told or 'the export has no subsets, '}and `prepare` deals the images out to train and val by their names"
        ]
    splits: dict[int, str | None] = {index: known[picture.subset] for index, picture in enumerate(pictures)}
    notes = []
    for lacking, other in (("val", "train"), ("train", "val")):
        if lacking not in known.values():
            names = sorted(picture.name for index, picture in enumerate(pictures) if splits[index] == other)
            fraction = _VAL_FRACTION if lacking == "val" else 1 - _VAL_FRACTION
            dealt = deal(names, val_fraction=fraction, test_fraction=0)
            for index, picture in enumerate(pictures):
                if splits[index] == other and dealt[picture.name] == "val":
                    splits[index] = lacking
            notes.append(
                f"the export has no images for {lacking}: {fraction:.0%} of those of {other} were taken for it"
            )
    return splits, notes


def write_folder(
    export: Export,
    rules: Rules,
    names: Sequence[str],
    output: Path,
    problems: Problems,
    drawn_on: Literal["shown", "stored"] | None = None,
) -> tuple[Tally, list[str]]:
    """Write the dataset.

    Args:
        export: what was read.
        rules: how shapes become labels.
        names: of the classes, as they are written.
        output: the folder; absent or empty.
        problems: gets what is wrong; with any, nothing is written.
        drawn_on: for photos with an EXIF orientation whose sizes do not tell, whether annotations were drawn on what is
            shown or on what is stored; None for what the other photos tell.

    Returns:
        What was painted, and what is to be said.

    Raises:
        UserError: something is wrong, or `output` cannot be written.
    """
    if not 2 <= len(names) <= MAX_CLASSES:
        raise UserError(f"expected 2 to {MAX_CLASSES} classes, got {len(names)}: {listed(names)}")
    splits, notes = split_pictures(export.pictures)
    places = _places(export.pictures, splits, problems)
    turns, said = _turns(export.pictures, drawn_on, problems)
    problems.raise_any()
    tally = Tally()
    colours = export.colours or [distinct_colour(index) for index in range(len(names))]
    with atomic_dir(output) as partial:
        try:
            for picture, (of_image, of_label), turn in zip(export.pictures, places, turns, strict=True):
                try:
                    label = paint(picture, rules, tally)
                except (ValueError, TypeError, IndexError) as error:
                    problems.add("bad annotation", f"{picture.name}: {error}")
                    continue
                if turn != 1:
                    label = np.asarray(Image.fromarray(label).transpose(EXIF_TURNS[turn]))
                (partial / of_image).parent.mkdir(parents=True, exist_ok=True)
                (partial / of_label).parent.mkdir(parents=True, exist_ok=True)
                (partial / of_image).symlink_to(picture.path.resolve())
                _write_label(label, colours, partial / of_label)
            if tally.twice and rules.overlap == "refuse":
                problems.add(
                    "overlap",
                    f"{tally.twice} pixels of {tally.pictures_twice} images lie in shapes of two classes; write "
                    "--overlap last, smallest or void",
                )
            problems.raise_any()
            (partial / "classes.txt").write_text(_lines(names, colours), encoding="utf-8")
            if output.is_dir():
                output.rmdir()  # nothing is replaced that came into it meanwhile
        except OSError as error:
            raise UserError(f"{shown(output)}: nothing was written: {error.strerror or error}") from error
    return tally, notes + said


def _places(pictures: Sequence[Picture], splits: dict[int, str | None], problems: Problems) -> list[tuple[str, str]]:
    """Where image and label of every picture go; two of one name are a problem."""
    groups: dict[tuple[str | None, str], list[str]] = {}
    for index, picture in enumerate(pictures):
        groups.setdefault(_group(picture, splits[index]), []).append(str(picture.path.parent))
    common = {group: os.path.commonpath(folders) for group, folders in groups.items()}
    taken: dict[str, Path] = {}
    found: list[tuple[str, str]] = []
    for index, picture in enumerate(pictures):
        split = splits[index]
        inner = os.path.relpath(picture.path.with_suffix(""), common[_group(picture, split)])
        place = Path(split or "", inner).as_posix()
        other = taken.get(composed(place))
        if other is None:
            taken[composed(place)] = picture.path
        elif picture.path.name != other.name:
            problems.add("equal names", f"{other} and {picture.path}: their labels would have one name")
        else:
            problems.add("listed twice", f"{picture.path}: the export lists this image, or two of its name, twice")
        found.append((f"images/{place}{picture.path.suffix}", f"labels/{place}.png"))
    return found


def _group(picture: Picture, split: str | None) -> tuple[str | None, str]:
    """Pictures whose common folder is no part of their names: train/images/a.jpg of an export is a of train."""
    return (split, picture.subset) if split else (None, "")


def _turns(
    pictures: Sequence[Picture], drawn_on: Literal["shown", "stored"] | None, problems: Problems
) -> tuple[list[int], list[str]]:
    """How every label is turned to lie on what is shown of its image, and what is to be said of it.

    A size tells whether annotations were drawn on the stored image only where the orientation swaps height and width.
    Of one export, the photos that tell speak for those that do not.
    """
    turns: list[int] = []
    shown_ones, stored_ones = 0, 0
    unsure: list[tuple[int, int]] = []  # picture, its orientation
    for index, picture in enumerate(pictures):
        turns.append(1)
        found = stored_size(picture.path, problems)
        if found is None:
            continue
        height, width, orientation = found
        stored, turned = (height, width), (width, height) if orientation >= 5 else (height, width)
        if (picture.height, picture.width) not in (stored, turned):
            problems.add(
                "size",
                f"{picture.name}: the export says {picture.width}x{picture.height}, the image is {width}x{height}",
            )
        elif orientation != 1 and stored == turned:
            unsure.append((index, orientation))
        elif (picture.height, picture.width) == turned:
            shown_ones += orientation != 1
        else:
            stored_ones += 1
            turns[-1] = orientation
    taken = drawn_on or ("stored" if stored_ones and not shown_ones else "shown")
    if taken == "stored":
        for index, orientation in unsure:
            turns[index] = orientation
    count = sum(turn != 1 for turn in turns)
    notes = [f"{count} labels were turned as the EXIF orientation of their images asks for"] if count else []
    if unsure and drawn_on is None:
        others = {0: "no other photo tells", 1: "as the other photos tell", 2: "the other photos tell both"}
        notes.append(
            f"EXIF: {len(unsure)} images, such as {pictures[unsure[0][0]].name}, have an orientation that keeps their "
            f"size, which does not tell which way their annotations were drawn: taken as drawn on what is {taken} "
            f"({others[bool(shown_ones) + bool(stored_ones)]}); look at them, or write --drawn-on shown | stored"
        )
    return turns, notes


def _write_label(label: NDArray[np.uint8], colours: Sequence[Colour], path: Path) -> None:
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(colours)] = colours
    palette[IGNORE_INDEX] = next(colour for colour in _VOID_COLOURS if colour not in set(colours))
    image = Image.fromarray(label)
    image.putpalette(palette.tobytes())
    image.save(path, format="PNG", optimize=False)


def _lines(names: Sequence[str], colours: Sequence[Colour]) -> str:
    """classes.txt; names in quotes, since some end in numbers."""
    return "".join(f'"{name}" {red} {green} {blue}\n' for name, (red, green, blue) in zip(names, colours, strict=True))
