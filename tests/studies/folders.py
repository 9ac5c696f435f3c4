"""A dataset of a user's in a folder, for experiments whose files change on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("road", "car", "sky")
COUNTS = {"train": 6, "val": 2, "test": 4}


def street_folder(root: Path) -> None:
    """Write images of 64x96 pixels with labels of three classes, in `images/SPLIT` and `labels/SPLIT`."""
    rng = np.random.default_rng(0)
    root.mkdir()
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for split, count in COUNTS.items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            label = np.repeat(rng.integers(0, len(CLASSES), (64, 4), dtype=np.uint8), 24, axis=1)
            image = rng.integers(0, 100, (64, 96, 3), dtype=np.uint8) + 50 * label[..., None]
            Image.fromarray(image).save(root / "images" / split / f"{index}.png")
            Image.fromarray(label).save(root / "labels" / split / f"{index}.png", compress_level=0)


def mirror_a_label(root: Path, split: str = "train") -> None:
    """Turn a label of the folder upside down; size and time of the file stay."""
    path = root / "labels" / split / "0.png"
    before = path.stat()
    label = np.asarray(Image.open(path))[::-1]
    Image.fromarray(label).save(path, compress_level=0)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
