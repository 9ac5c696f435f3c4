"""Where images and labels lie: in one pair of folders, or in one for each split, above or below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.datasets.folder.options import FolderOptions
from pipeline.data.datasets.folder.splits import NAMES, split_folder
from pipeline.data.datasets.shared.dataset import SPLITS
from serving.contract.errors import did_you_mean, shown


@dataclass(frozen=True)
class Place:
    """A folder of images and the folder of their labels.

    Attributes:
        images: may be the same as `labels`.
        labels: likewise.
        split: that they are in; None where names say.
    """

    images: Path
    labels: Path
    split: str | None


@dataclass(frozen=True)
class Layout:
    """Where everything lies.

    Attributes:
        places: folders to look into.
        problems: what lacks, one line each.
    """

    places: tuple[Place, ...]
    problems: tuple[str, ...] = ()

    @property
    def is_split(self) -> bool:
        """Whether folders say what the splits are."""
        return any(place.split is not None for place in self.places)


def find_layout(root: Path, options: FolderOptions) -> Layout:
    """Find images and labels: `images/`, `images/train/` or `train/images/`, with the names that the options give."""
    if not root.is_dir():
        return Layout((), (f"{shown(root)}: no such folder",))
    images, labels = root / options.image_folder, root / options.label_folder
    below = {split: split_folder(images, split) for split in SPLITS}
    above = {split: split_folder(root, split) for split in SPLITS}
    if options.image_folder == ".":  # then both are the same folders
        below = dict.fromkeys(SPLITS)
    if any(below.values()):
        return _split_below(images, labels, below)
    if any(folder is not None and (folder / options.image_folder).is_dir() for folder in above.values()):
        return _split_above(root, above, options)
    missing = [
        (folder, what) for folder, what in ((images, "the images"), (labels, "their labels")) if not folder.is_dir()
    ]
    problems = tuple(f"{shown(folder)}: missing folder ({what}){_instead(folder, what)}" for folder, what in missing)
    return Layout((Place(images, labels, None),), problems)


def _split_below(images: Path, labels: Path, below: dict[str, Path | None]) -> Layout:
    """`images/train` with `labels/train`."""
    places, problems = [], []
    for split, folder in below.items():
        if folder is None:
            if split != "test":
                problems.append(_no_split(images, split))
            continue
        of_labels = split_folder(labels, split)
        if of_labels is None:
            problems.append(f"{shown(labels / folder.name)}: missing folder (labels of {split})")
        else:
            places.append(Place(folder, of_labels, split))
    return Layout(tuple(places), tuple(problems))


def _split_above(root: Path, above: dict[str, Path | None], options: FolderOptions) -> Layout:
    """`train/images` with `train/labels`."""
    places, problems = [], []
    for split, folder in above.items():
        if folder is None:
            if split != "test":
                problems.append(_no_split(root, split))
            continue
        place = Place(folder / options.image_folder, folder / options.label_folder, split)
        lacking = [each for each in (place.images, place.labels) if not each.is_dir()]
        problems += [f"{shown(each)}: missing folder ({split}){_instead(each, 'it')}" for each in lacking]
        places.append(place)
    return Layout(tuple(places), tuple(problems))


def _no_split(folder: Path, split: str) -> str:
    names = " or ".join(NAMES[split])
    purpose = "images to train on" if split == "train" else "images to validate on"
    return f"{shown(folder / split)}: missing folder ({purpose}); expected {names}"


def _instead(folder: Path, what: str) -> str:
    """What else lies there, to be named in an option."""
    option = "label_folder" if "label" in what else "image_folder"
    try:
        found: Sequence[str] = sorted(each.name for each in folder.parent.iterdir() if each.is_dir())
    except OSError:
        found = ()
    found = [name for name in found if not name.startswith(".")]
    return f"{did_you_mean(folder.name, map(shown, found))} (prepare.options.{option} names it)" if found else ""
