"""Segmentation mask (VOC): masks in the colours of `labelmap.txt`, checked before datumaro reads them.

datumaro takes an image without a mask for one on which nothing is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.datasets.shared.facts import colour_code, colour_of, count_values, listed
from pipeline.data.datasets.shared.labels import Colour
from pipeline.data.importing.export import Problems
from serving.contract.errors import UserError, shown
from serving.images.decoding import SILENCE

LISTS = "ImageSets/Segmentation"
MASKS = "SegmentationClass"
LABELMAP = "labelmap.txt"
VOID = ("ignored", "void", "unlabeled", "unlabelled")


def find_roots(source: Path) -> list[Path]:
    """The folders that hold `SegmentationClass` and `ImageSets/Segmentation`: this one, or those below, two deep."""
    places = (source, *sorted(source.glob("*/")), *sorted(source.glob("*/*/")))
    return [place for place in places if (place / MASKS).is_dir() and (place / LISTS).is_dir()]


def listed_images(root: Path) -> dict[str, list[str]]:
    """Subset -> names of its images. Of `trainval` beside `train` and `val` nothing is left to say."""
    found = {}
    for path in sorted((root / LISTS).glob("*.txt")):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        found[path.stem] = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if {"train", "val"} <= found.keys():
        found.pop("trainval", None)
    if not any(found.values()):
        raise UserError(f"{shown(root / LISTS)}: expected lists of images, such as train.txt")
    return found


def check_masks(root: Path, colours: Mapping[int, Colour], names: Mapping[str, list[str]], problems: Problems) -> None:
    """Note masks that are missing or hold colours that no class has.

    Args:
        root: holds the masks.
        colours: of the classes.
        names: subset -> names of its images.
        problems: gets what is wrong.
    """
    twice = [colour for colour in set(colours.values()) if list(colours.values()).count(colour) > 1]
    if twice:
        problems.add("colours", f"{LABELMAP} gives one colour to several classes: {listed(twice)}")
    known = {colour_code(colour) for colour in colours.values()}
    unknown: Counter[int] = Counter()
    first: dict[int, str] = {}
    for name in sorted({name for group in names.values() for name in group}):
        path = root / MASKS / f"{name}.png"
        if not path.is_file():
            problems.add("missing mask", str(path.relative_to(root)))
            continue
        try:
            with SILENCE, Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB")).astype(np.uint32)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.add("unreadable", f"{path.relative_to(root)}: {error}")
            continue
        codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
        for code, count in count_values(codes).items():
            if code not in known:
                unknown[code] += count
                first.setdefault(code, name)
    if unknown:
        told = listed(
            (f"{colour_of(code)}: {count} pixels, such as in {first[code]}" for code, count in unknown.most_common()),
            8,
            separator="; ",
        )
        there = (root / LABELMAP).is_file()
        whose = LABELMAP if there else f"there is no {LABELMAP} (lines of `name:red,green,blue::`), and Pascal VOC"
        problems.add("unknown colour", f"{told}; {whose} has {listed(sorted(colours.values()), 30)}")
