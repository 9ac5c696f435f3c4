"""What is said of a dataset is true of it, also where a part of it was looked at or a split is empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import Progress

from pipeline.data.datasets.folder.dataset import Folder
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.looking import look_at


def folder(root: Path, names: list[str], classes: str = "ground\ndisc\n") -> Path:
    for place in ("images/unlabelled", "labels"):
        (root / place).mkdir(parents=True)
    (root / "classes.txt").write_text(classes)
    for index, name in enumerate(names):
        noise = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"images/{name}.png")
        Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(root / f"labels/{name}.png")
    return root


def look(root: Path, limit: int | None = None, **options: Any) -> Any:
    with Progress(disable=True) as bar:
        return look_at(Folder(root, options), PrepareConfig("folder", str(root)), bar, limit=limit).findings


class TestAPart:
    def test_classes_without_pixels_are_of_the_images_looked_at(self, tmp_path: Path) -> None:
        root = folder(tmp_path / "own", list("abcdefgh"), "ground\ndisc\nrare\n")
        last = sorted(pair.label for pair in Folder(root, {}).pairs("train"))[-1]
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 3).save(last)
        told = "unused class: rare: no pixel in any split (of 8 images, 4 were looked at)"
        assert told in look(root, 2, labels="numbers").warnings
        warnings = look(root, labels="numbers").warnings
        assert not any("unused class" in warning or "looked at" in warning for warning in warnings)

    def test_all_images_without_labels_are_counted(self, tmp_path: Path) -> None:
        root = folder(tmp_path / "own", list("abcdefgh"))
        for index in range(5):
            Image.new("RGB", (8, 6), (index, 0, 0)).save(root / f"images/unlabelled/{index}.png")
        for limit in (2, None):
            assert "unlabelled: 5 images without labels are listed; they are never scored" in look(root, limit).notes


class TestAnEmptySplit:
    def test_one_sequence_cannot_be_dealt_out(self, tmp_path: Path) -> None:
        root = folder(tmp_path / "own", [f"A_{index}" for index in range(5)])
        assert look(root, sequence_pattern=r"^(\w)_").problems["empty split"] == [
            f"train: no image of this split found under {root}, and 5 of val; all are of one sequence, 'A', which "
            "stays in one split as a whole"
        ]

    def test_where_all_images_are_is_said(self, tmp_path: Path) -> None:
        root = folder(tmp_path / "own", list("abc"))
        (root / "train.txt").write_text("a\nb\nc\n")
        (root / "val.txt").write_text("")
        assert look(root).problems["empty split"] == [f"val: no image of this split found under {root}, and 3 of train"]

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        root = folder(tmp_path / "own", [])
        assert look(root).problems["empty split"] == [
            f"{split}: no image found under {root}" for split in ("train", "val")
        ]
