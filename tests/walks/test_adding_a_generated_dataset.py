"""A dataset that makes its own files is its room and its registry line as well: one is added to a copy and prepared."""

from __future__ import annotations

import json
from pathlib import Path

from tests.documents.project import copy_of_tracked_files
from tests.walks.branch import run
from tests.walks.page import Walk

STRIPES = '''"""Stripes: a generated dataset of two classes, for this test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.datasets.shared.dataset import SPLITS, Dataset, Pair
from pipeline.data.datasets.shared.label_files import read_index_image
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, LabelTable


class Stripes(Dataset):
    """`<split>-image.png` and `<split>-label.png`: columns of two classes."""

    generated = True
    class_names = ("even", "odd")
    palette = ((0, 0, 0), (255, 255, 255))
    _table = LabelTable({0: 0, 1: 1, IGNORE_INDEX: IGNORE_INDEX})

    def layout_problems(self) -> list[str]:
        return []

    def pairs(self, split: str) -> list[Pair]:
        return [Pair(split, self.root / f"{split}-image.png", self.root / f"{split}-label.png")]

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        return self._table.apply(read_index_image(path, content), path)

    def generate(self, folder: Path, progress: Callable[[int, int], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, split in enumerate(SPLITS):
            label = np.tile((np.arange(96) // 8 % 2).astype(np.uint8), (64, 1))
            Image.fromarray(label).save(folder / f"{split}-label.png")
            Image.fromarray(np.stack([label * 200 + number] * 3, axis=2)).save(folder / f"{split}-image.png")
            progress(number + 1, len(SPLITS))
'''
WALK = Walk(
    {
        "pipeline/data/datasets/stripes/__init__.py": '"""Stripes: a generated dataset."""\n',
        "pipeline/data/datasets/stripes/dataset.py": STRIPES,
    },
    {
        (
            "pipeline/data/datasets/__init__.py",
            "DATASETS",
        ): '        "stripes": "pipeline.data.datasets.stripes.dataset:Stripes",\n'
    },
    {"prepare": {"dataset": "stripes", "options": {}}},
)
PREPARE = "from pipeline.stages import prepare\nprepare.main()"


def test_it_is_prepared(tmp_path: Path) -> None:
    root = tmp_path / "contrail"
    copy_of_tracked_files(root)
    WALK.apply(root)
    run(root, PREPARE)
    found = json.loads((root / "data/prepared/dataset.json").read_text(encoding="utf-8"))
    assert found["class_names"] == ["even", "odd"]
    assert {split: len(entries) for split, entries in found["splits"].items()} == {"train": 1, "val": 1, "test": 1}
