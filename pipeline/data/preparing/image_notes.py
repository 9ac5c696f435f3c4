"""What was done with images as they were decoded, and EXIF orientation: how a camera was held.

Images are turned by their orientation, and so are labels that have one of their own.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.data.datasets.shared.facts import Findings

_QUARTER_TURNS = (5, 6, 7, 8)
# Notes of `decode_image` on what can be meant in one way only; whatever else it notes is warned of.
_TURNED = "turned by its EXIF tag"
_CERTAIN = frozenset(
    {"16 bits per channel brought to 8", "several pictures in the file, the first taken"}
    | {"CMYK converted without its colour profile"}
)


def describe_mismatch(image: tuple[int, int], label: tuple[int, int], of_image: int, of_label: int) -> str:
    """Two sizes (width, height) that differ, in words; where a quarter turn would cure it, EXIF is named.

    Args:
        image: of the image, turned by its EXIF orientation.
        label: of the label, likewise.
        of_image: EXIF orientation of the image, 1 for none.
        of_label: EXIF orientation of the label.
    """
    got = f"image {image[0]}x{image[1]}, label {label[0]}x{label[1]}"
    if image != label[::-1]:
        return got
    if of_image in _QUARTER_TURNS and of_label not in _QUARTER_TURNS:
        why = f"the image is turned by its EXIF orientation {of_image}, the label, which has none, is not"
    elif of_label in _QUARTER_TURNS and of_image not in _QUARTER_TURNS:
        why = f"the label is turned by its EXIF orientation {of_label}, the image, which has none, is not"
    else:
        why = "an EXIF orientation may have been lost when one of them was saved"
    return f"{got}; a quarter turn would cure it: {why}; save both upright and without EXIF orientation"


def judge_image_notes(notes: Iterable[tuple[str, Iterable[str]]], findings: Findings) -> None:
    """Say what was done with images beyond decoding them.

    Args:
        notes: name of an image, and what `decode_image` noted.
        findings: gets a note where nothing else could be meant, else a warning; one line a kind.
    """
    names: dict[str, list[str]] = {}
    for name, what in notes:
        for note in what:
            names.setdefault(note, []).append(name)
    for note, images in sorted(names.items()):
        if note == _TURNED:
            continue  # `judge_orientations` says more
        tell = findings.note if note in _CERTAIN else findings.warn
        tell("images", f"{note}: {len(images)} image{'s' * (len(images) != 1)}, such as {images[0]}")


def judge_orientations(pairs: Iterable[tuple[str, tuple[int, int], int, int]], findings: Findings) -> None:
    """Say how many files were turned, and whether it is certain that labels were drawn on turned images.

    Args:
        pairs: name, size, EXIF orientation of the image and of the label, for pairs whose sizes agree.
        findings: gets notes, and a warning where nothing tells.
    """
    images, labels, sure, unsure = 0, 0, 0, []
    for name, (height, width), of_image, of_label in pairs:
        images += of_image != 1
        labels += of_label != 1
        if of_image == of_label:
            continue
        if of_image in _QUARTER_TURNS and height != width and of_label == 1:
            sure += 1  # the label has the size of the turned image
        else:
            unsure.append(name)
    if images or labels:
        findings.note("EXIF", f"{images} images and {labels} labels were turned by their EXIF orientation")
    if unsure:
        untold = (
            f"{len(unsure)} images, such as {unsure[0]}, are turned by an EXIF orientation that their labels do not "
            "have, and their sizes do not tell whether the labels were drawn on the turned image"
        )
        if sure:  # a label drawn on a stored image that is turned by a quarter would have been refused for its size
            findings.note("EXIF", f"{untold}: taken so, as the labels of {sure} other images fit the turned image")
        else:
            findings.warn("EXIF", f"{untold}: look at them (python -m pipeline.commands.describe_data draws them)")
