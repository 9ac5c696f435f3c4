"""Images of a folder that have no label: those in `images/unlabelled`, or those that `unlabelled.txt` names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.data.datasets.folder.splits import UNLABELLED
from pipeline.data.datasets.shared.dataset import LoneImage, Pair
from pipeline.data.datasets.shared.names import composed
from serving.contract.errors import UserError, shown
from serving.images.listing import LeftOut, list_images


@dataclass
class Unlabelled:
    """What `images/unlabelled` holds.

    Attributes:
        images: sorted by name.
        left_out: files that are no images.
    """

    images: list[LoneImage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def images_without_labels(folder: Path, sequence: Callable[[str], str | None]) -> Unlabelled:
    """Every image below the folder, which need not be there.

    Args:
        folder: of the unlabelled images.
        sequence: name -> sequence.
    """
    if not folder.is_dir():
        return Unlabelled()
    try:
        listing = list_images([os.fspath(folder)])
    except UserError:  # no image at all
        return Unlabelled()
    found = []
    for image in listing.images:
        name = composed(f"{UNLABELLED}/{Path(image.relative).with_suffix('').as_posix()}")
        found.append(LoneImage(name, Path(image.path), sequence(name)))
    return Unlabelled(sorted(found, key=lambda image: (image.name, str(image.image))), list(listing.left_out))


def with_labels_all_the_same(place: Path, pairs: Iterable[Pair]) -> list[str]:
    """One line where images of the folder, or the list, of the unlabelled ones have labels."""
    labelled = [pair for pair in pairs if pair.label.is_file()]
    if not labelled:
        return []
    return [
        f"{shown(place)}: {len(labelled)} of its images have labels, such as {shown(labelled[0].label)}; take them out "
        "of it, or their labels away"
    ]
