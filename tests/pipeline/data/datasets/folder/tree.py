"""A dataset folder that is written file by file, as people keep theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import Preparation, prepare


class Tree:
    """A dataset written file by file; pair k has a label with two classes, drawn for k alone."""

    def __init__(self, root: Path) -> None:
        self.root = root / "own"
        self.prepared = root / "prepared"
        self.root.mkdir()
        (self.root / "classes.txt").write_text("ground\ndisc\n")
        self.count = 0

    def image(self, place: str, key: int, **options: Any) -> Path:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(key).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, **options)
        return path

    @staticmethod
    def drawing(key: int) -> np.ndarray:
        return (np.arange(80).reshape(8, 10) % (key + 2) == 0).astype(np.uint8)

    def label(self, place: str, key: int) -> Path:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, self.drawing(key))
        else:
            Image.fromarray(self.drawing(key)).save(path)
        return path

    def pair(self, image: str, label: str) -> None:
        self.count += 1
        self.image(image, self.count)
        self.label(label, self.count)

    def prepare(self, **options: Any) -> Preparation:
        return prepare(PrepareConfig(dataset="folder", root=str(self.root), options=options), self.prepared)

    def names(self, **options: Any) -> dict[str, list[str]]:
        """Split -> names, every label checked to be its image's."""
        self.prepare(**options)
        splits = load_prepared(self.prepared, self.root).splits
        for split in splits.values():
            for index in range(len(split)):
                image, label = split.read_image(index), split.read_label(index)
                key = next(
                    key
                    for key in range(1, self.count + 1)
                    if (image == np.random.default_rng(key).integers(0, 256, (8, 10, 3), dtype=np.uint8)).all()
                )
                np.testing.assert_array_equal(label, self.drawing(key))
        return {
            name: [split.name(index) for index in range(len(split))] for name, split in splits.items() if len(split)
        }

    def all_names(self, **options: Any) -> list[str]:
        return sorted(name for names in self.names(**options).values() for name in names)
