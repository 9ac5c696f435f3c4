"""One pair, looked at as a whole: both files readable, of one size, and the label such as the dataset promises."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.datasets.shared.dataset import Dataset, LoneImage, Pair
from pipeline.data.datasets.shared.facts import LabelFacts
from pipeline.data.datasets.shared.labels import UnreadableError
from pipeline.data.datasets.shared.prepared import Entry, files_sha256
from pipeline.data.preparing.image_notes import describe_mismatch
from serving.contract.errors import UserError, shown
from serving.images.decoding import decode_image


@dataclass(frozen=True)
class SoundPair:
    """A pair with nothing wrong in it.

    Attributes:
        entry: what dataset.json says of it.
        facts: of its label.
        orientation: EXIF orientation of the image, by which it was turned; 1 for none.
        image_notes: what was done with the image as it was decoded.
    """

    entry: Entry
    facts: LabelFacts
    orientation: int
    image_notes: tuple[str, ...]


@dataclass(frozen=True)
class SoundImage:
    """An image without a label, with nothing wrong in it.

    Attributes:
        entry: what dataset.json says of it.
        image_notes: what was done with the image as it was decoded.
    """

    entry: Entry
    image_notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadPair:
    """A pair that cannot be trained on.

    Attributes:
        kind: of the problem.
        problem: in words, with the path.
    """

    kind: str
    problem: str


def check_pair(dataset: Dataset, pair: Pair) -> SoundPair | BadPair:
    """Look at both files of a pair. Whatever is wrong with them is told in the result."""
    for what, path in (("image", pair.image), *(("label", path) for path in pair.labels)):
        if not path.is_file():
            other = pair.label if what == "image" else pair.image
            return BadPair(kind=f"missing {what}", problem=shown(f"{path} (for {other.name})"))
    try:
        content = pair.image.read_bytes()
        image = decode_image(io.BytesIO(content), str(pair.image))
    except (UserError, OSError) as error:
        return BadPair(kind="unreadable", problem=_with_path(error, pair.image))
    try:
        labels = [(path, path.read_bytes()) for path in pair.labels]
        facts = dataset.examine(labels)
    except (UnreadableError, OSError) as error:
        return BadPair(kind="unreadable", problem=_with_path(error, pair.label))
    except UserError as error:
        return BadPair(kind="bad label", problem=_with_path(error, pair.label))
    height, width = image.pixels.shape[:2]
    if (height, width) != (facts.height, facts.width):
        got = describe_mismatch((width, height), (facts.width, facts.height), image.orientation, facts.orientation)
        return BadPair(kind="size mismatch", problem=shown(f"{pair.image}: {got} ({pair.label})"))
    entry = Entry(
        name=shown(pair.name),
        image=_relative(pair.image, dataset.root),
        label=_relative(pair.label, dataset.root),
        image_sha256=hashlib.sha256(content).hexdigest(),
        label_sha256=files_sha256(labels),
        height=facts.height,
        width=facts.width,
        sequence=None if pair.sequence is None else shown(pair.sequence),
        more_labels=tuple(_relative(path, dataset.root) for path in pair.more_labels),
    )
    return SoundPair(entry, facts, image.orientation, image.notes)


def check_image(dataset: Dataset, image: LoneImage) -> SoundImage | BadPair:
    """Look at an image without a label. Whatever is wrong with it is told in the result."""
    try:
        content = image.image.read_bytes()
        decoded = decode_image(io.BytesIO(content), str(image.image))
    except (UserError, OSError) as error:
        return BadPair(kind="unreadable", problem=_with_path(error, image.image))
    height, width = decoded.pixels.shape[:2]
    entry = Entry(
        name=shown(image.name),
        image=_relative(image.image, dataset.root),
        label="",
        image_sha256=hashlib.sha256(content).hexdigest(),
        label_sha256="",
        height=height,
        width=width,
        sequence=None if image.sequence is None else shown(image.sequence),
    )
    return SoundImage(entry, decoded.notes)


def _with_path(error: Exception, path: Path) -> str:
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return shown(text if str(path) in text else f"{path}: {text}")


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
