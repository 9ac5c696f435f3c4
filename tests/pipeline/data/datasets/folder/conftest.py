"""Folders of labels in every way that people save them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import Preparation, prepare
from tests.pipeline.data.datasets.folder.tree import Tree

Save = Callable[[np.ndarray, Path, int], object]


def scene(index: int, classes: int, height: int = 12, width: int = 16) -> np.ndarray:
    """A label with every class below `classes`: `[H,W]` uint8, different for every index."""
    ids = np.zeros((height, width), np.uint8)
    for number in range(1, classes):
        row = (number * 3 + index) % (height - 2)
        ids[row : row + 2, number : number + 6 + index % 3] = number
    return ids


def as_png(ids: np.ndarray, path: Path, index: int) -> None:
    Image.fromarray(ids).save(path.with_suffix(".png"))


class Own:
    """A dataset of one's own in a folder, prepared on demand."""

    scene = staticmethod(scene)

    def __init__(self, root: Path) -> None:
        self.root = root / "own"
        self._prepared = root / "prepared"

    def write(
        self,
        classes: Sequence[str],
        save: Save = as_png,
        *,
        count: int = 6,
        labels: Callable[[int], np.ndarray] | None = None,
    ) -> Own:
        """Write `count` pairs; `save(ids, path without ending, index)` writes a label, of all classes by default."""
        (self.root / "images").mkdir(parents=True)
        (self.root / "labels").mkdir()
        (self.root / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        for index in range(count):
            ids = labels(index) if labels is not None else scene(index, len(classes))
            noise = np.random.default_rng(index).integers(0, 256, (*ids.shape, 3), dtype=np.uint8)
            Image.fromarray(noise).save(self.root / "images" / f"p{index}.png")
            save(ids, self.root / "labels" / f"p{index}", index)
        return self

    def prepare(self, **options: object) -> Preparation:
        return prepare(PrepareConfig(dataset="folder", root=str(self.root), options=options), self._prepared)

    def load(self) -> Prepared:
        return load_prepared(self._prepared, self.root)

    def read(self, **options: object) -> dict[str, np.ndarray]:
        """Name -> train ids, as training reads them after preparing."""
        self.prepare(**options)
        prepared = self.load()
        splits = [split for split in prepared.splits.values() if len(split)]
        return {split.name(index): split.read_label(index) for split in splits for index in range(len(split))}

    def expect(self, classes: int, **options: object) -> None:
        """Every label is read as `scene` drew it."""
        found = self.read(**options)
        for name, ids in found.items():
            np.testing.assert_array_equal(ids, scene(int(name[1:]), classes))
        assert len(found) == 6


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """A folder to fill."""
    return Own(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A folder to fill file by file."""
    return Tree(tmp_path)
