"""Which label belongs to which image: by the name that they share, below the folder of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.datasets.folder.layout import Place
from pipeline.data.datasets.folder.options import FolderOptions
from pipeline.data.datasets.shared.dataset import IMAGE_SUFFIXES, Pair
from pipeline.data.datasets.shared.names import composed
from pipeline.data.datasets.shared.walking import walk
from serving.contract.errors import UserError
from serving.images.listing import LeftOut, list_images

LABEL_SUFFIXES = frozenset({*IMAGE_SUFFIXES, ".gif", ".npy", ".mat"})


@dataclass
class Paired:
    """The pairs of one place.

    Attributes:
        pairs: sorted by name. An image without a label (or the reverse) has the path where the missing file should be;
            two files of one name give two pairs of that name.
        masks: label files of which several make a label.
        left_out: files that are neither image nor label.
    """

    pairs: list[Pair] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def pair_place(
    place: Place,
    options: FolderOptions,
    mask_name: Callable[[str], bool],
    sequence: Callable[[str], str | None],
) -> Paired:
    """Pair the images of a place with their labels.

    Names are compared in Unicode's composed form, with the folders that they lie in. A label may be several masks:
    the files of a folder called as the image, or `NAME_CLASS.png`.

    Args:
        place: the folders.
        options: suffixes and endings.
        mask_name: whether what follows the image's name in the name of a file tells a class.
        sequence: name -> sequence.
    """
    found = Paired()
    images = _by_name(
        _images(place, options, found.left_out), options.image_suffix, options.image_ending, found.left_out
    )
    labels = _by_name(
        _labels(place, options, found.left_out), options.label_suffix, options.label_ending, found.left_out
    )
    whole, masks = _belonging(labels, images, mask_name)
    found.masks = [path for paths in masks.values() for path in paths]
    ending = options.label_ending or ".png"
    for name in sorted(images.keys() | whole.keys()):
        for image in images.get(name) or [
            place.images / f"{name}{options.image_suffix}{options.image_ending or '.jpg'}"
        ]:
            of_name = [(path,) for path in whole.get(name, [])] + ([tuple(masks[name])] if name in masks else [])
            missing = place.labels / f"{name}{options.label_suffix}{ending}"
            found.pairs += [Pair(name, image, files[0], sequence(name), files[1:]) for files in of_name or [(missing,)]]
    return found


def _images(place: Place, options: FolderOptions, left_out: list[LeftOut]) -> list[tuple[Path, str]]:
    """Path and place below the folder of every image, labels that lie among them left out."""
    if not place.images.is_dir():
        return []
    try:
        listing = list_images([os.fspath(place.images)])
    except UserError:  # no image at all, which is told of the split
        return []
    inside = place.labels != place.images and place.images in place.labels.parents
    prefix = f"{place.labels.relative_to(place.images).as_posix()}/" if inside else None
    left_out += [each for each in listing.left_out if not _is_label(each.path, place, options)]
    found = []
    for image in listing.images:
        relative = Path(image.relative).as_posix()
        if prefix is not None and relative.startswith(prefix):
            continue
        if place.images == place.labels and _is_label(relative, place, options):
            continue
        found.append((Path(image.path), relative))
    return found


def _labels(place: Place, options: FolderOptions, left_out: list[LeftOut]) -> list[tuple[Path, str]]:
    """Path and place below the folder of every label."""
    if place.images == place.labels:
        files = [file for file in walk(place.labels).files if _is_label(file, place, options)]
        return [(place.labels / file, file) for file in files]
    walked = walk(place.labels)
    left_out += walked.left_out
    found = []
    for file in walked.files:
        ending = Path(file).suffix.lower()
        if ending in LABEL_SUFFIXES:
            found.append((place.labels / file, file))
        else:
            left_out.append(LeftOut(str(place.labels / file), f"no label ({ending or 'no ending'})"))
    return found


def _is_label(file: str, place: Place, options: FolderOptions) -> bool:
    """Whether a file of a folder that holds images and labels is a label: its name ends so."""
    path = Path(file)
    if place.images != place.labels:
        return place.labels in path.parents
    named = bool(options.label_suffix) and path.stem.endswith(options.label_suffix)
    ended = bool(options.label_ending) and path.suffix.lower() == options.label_ending.lower()
    if options.label_suffix and options.label_ending:
        return named and ended
    return named or ended


def _by_name(
    files: Iterable[tuple[Path, str]], suffix: str, ending: str, left_out: list[LeftOut]
) -> dict[str, list[Path]]:
    """Shared name -> files."""
    found: dict[str, list[Path]] = {}
    for path, relative in files:
        stem, dot, found_ending = relative.rpartition(".")
        if "/" in found_ending or not dot:
            stem, found_ending = relative, ""
        if ending and f".{found_ending}".lower() != ending.lower():
            left_out.append(LeftOut(str(path), f"does not end in {ending}"))
        elif not stem.endswith(suffix):
            left_out.append(LeftOut(str(path), f"its name does not end in {suffix}"))
        else:
            found.setdefault(composed(stem.removesuffix(suffix)), []).append(path)
    return found


def _belonging(
    labels: Mapping[str, Sequence[Path]], images: Mapping[str, Sequence[Path]], mask_name: Callable[[str], bool]
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Labels that are whole, and masks of which several make a label, by the name of their image."""
    whole: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    for name, paths in labels.items():
        bare = name.rpartition(".")[0]
        folder = next((each for each in _folders(name) if each in images), None)
        if name in images:
            whole.setdefault(name, []).extend(paths)
        elif folder is not None:
            masks.setdefault(folder, []).extend(paths)
        elif bare in images and Path(name).suffix.lower() in IMAGE_SUFFIXES:  # a.jpg.png of a.jpg
            whole.setdefault(bare, []).extend(paths)
        else:
            owner = _owner(name, images, mask_name)
            (masks if owner else whole).setdefault(owner or name, []).extend(paths)
    return whole, {name: sorted(paths) for name, paths in masks.items()}


def _folders(name: str) -> Iterable[str]:
    """The folders that a place lies in, the innermost first."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _owner(name: str, images: Mapping[str, Sequence[Path]], mask_name: Callable[[str], bool]) -> str | None:
    """The image whose name, an underscore and a class make this name; the longest that does."""
    for position in range(len(name) - 1, 0, -1):
        if name[position] in "_-" and name[:position] in images and mask_name(name[position + 1 :]):
            return name[:position]
    return None
