"""One label file of a folder, whatever it is saved as: read, and looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.data.datasets.folder.meaning.masks import MODE, compose
from pipeline.data.datasets.shared.arrays import read_matlab_label, read_numpy_label
from pipeline.data.datasets.shared.facts import LabelFacts, colour_codes, count_values
from pipeline.data.datasets.shared.label_files import LabelImage, read_label_image


def read_label(path: Path, content: bytes | None, mat_variable: str | None) -> LabelImage:
    """Read an image, a .npy or a .mat as it is.

    Args:
        path: the file; its ending tells arrays from images.
        content: its bytes where they are known.
        mat_variable: name of the label map in a .mat; None where it is the only one.

    Raises:
        UnreadableError: the file cannot be read.
        LabelError: it can, but holds no exact label.
    """
    ending = path.suffix.lower()
    if ending == ".npy":
        return LabelImage(read_numpy_label(path, content), ".npy")
    if ending == ".mat":
        return LabelImage(read_matlab_label(path, mat_variable, content), ".mat")
    return read_label_image(path, content)


def examine_label(label: LabelImage, name: str) -> LabelFacts:
    """The facts of a label that messages call `name`."""
    height, width = label.pixels.shape[:2]
    values = colour_codes(label.pixels.astype(np.uint8, copy=False)) if label.is_coloured else label.pixels
    counts = count_values(values)
    palette, key = {}, None
    if label.palette is not None:
        palette = {index: _colour(label.palette[index].tolist()) for index in counts}
        key = hashlib.blake2b(label.palette.tobytes(), digest_size=8).digest()
    hidden = count_values(values[label.transparent]) if label.transparent is not None else {}
    return LabelFacts(
        name, height, width, counts, label.mode, label.is_coloured, palette, key, hidden, label.orientation
    )


def examine_masks(
    masks: Sequence[tuple[Path, LabelImage]],
    name: str,
    class_names: Sequence[str],
    of_objects: int | None,
    *,
    last: bool,
) -> LabelFacts:
    """The facts of a label of several masks that messages call `name`; see `compose`."""
    composed = compose(masks, class_names, of_objects, last=last)
    height, width = composed.shape
    orientation = masks[0][1].orientation
    return LabelFacts(name, height, width, count_values(composed), MODE, orientation=orientation)


def _colour(parts: list[int]) -> tuple[int, int, int]:
    return parts[0], parts[1], parts[2]
