"""Anyone's own data: classes.txt, splits in folders, splits by name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.datasets.folder.classes import distinct_colour
from pipeline.data.datasets.folder.dataset import Folder
from pipeline.data.datasets.folder.splits import deal
from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from serving.contract.errors import UserError


@pytest.fixture
def flat(tmp_path: Path, write_image, write_label) -> Path:
    """Ten pairs in images/ and labels/, two classes."""
    root = tmp_path / "own"
    for index in range(10):
        write_image(root / "images" / f"{index:02}.png")
        write_label(root / "labels" / f"{index:02}.png", index % 2)
    (root / "classes.txt").write_text("road\nnot road\n")
    return root


def folder(root: Path, **options: object) -> Folder:
    return Folder(root, options)


class TestSplits:
    def test_by_name_where_there_are_no_folders(self, flat: Path, tmp_path: Path) -> None:
        config = PrepareConfig(dataset="folder", root=str(flat), options={"val_fraction": 0.3, "test_fraction": 0.2})
        assert prepare(config, tmp_path / "prepared").pairs == {"train": 5, "val": 3, "test": 2}
        names = [load_prepared(tmp_path / "prepared", flat).split(s).entries for s in ("train", "val", "test")]
        assert sorted(entry.name for entries in names for entry in entries) == [f"{i:02}" for i in range(10)]

    def test_the_documented_order(self, flat: Path) -> None:
        """The order of the SHA-256 of the names: first val, then test, the rest train."""
        import hashlib

        ordered = sorted((f"{i:02}" for i in range(10)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        dataset = folder(flat, val_fraction=0.2, test_fraction=0.1)
        assert sorted(ordered[:2]) == [pair.name for pair in dataset.pairs("val")]
        assert ordered[2:3] == [pair.name for pair in dataset.pairs("test")]
        assert sorted(ordered[3:]) == [pair.name for pair in dataset.pairs("train")]

    def test_folders_are_the_split(self, tmp_path: Path, write_image, write_label) -> None:
        for split, count in {"train": 3, "val": 2}.items():
            for index in range(count):
                write_image(tmp_path / "images" / split / f"{index}.JPG", seed=hash(split) % 100 + index)
                write_label(tmp_path / "labels" / split / f"{index}.png", index % 2)
        (tmp_path / "classes.txt").write_text("a\nb\n")
        done = prepare(PrepareConfig(dataset="folder", root=str(tmp_path)), tmp_path / "prepared")
        assert done.pairs == {"train": 3, "val": 2, "test": 0}

    def test_folders_without_val_or_with_loose_images(self, tmp_path: Path, write_image, write_label) -> None:
        write_image(tmp_path / "images/train/a.png")
        write_image(tmp_path / "images/b.png")
        write_label(tmp_path / "labels/train/a.png", 0)
        (tmp_path / "classes.txt").write_text("a\nb\n")
        problems = folder(tmp_path).layout_problems()
        missing = f"{tmp_path / 'images/val'}: missing folder (images to validate on); expected val or valid or"
        assert any(problem.startswith(missing) for problem in problems)
        assert any("b.png: an image beside the folders" in problem for problem in problems)

    def test_sequences_stay_whole(self, tmp_path: Path, write_image, write_label) -> None:
        for sequence in "abcdef":
            for frame in range(4):
                write_image(tmp_path / "images" / f"{sequence}_{frame}.png")
                write_label(tmp_path / "labels" / f"{sequence}_{frame}.png", frame % 2)
        (tmp_path / "classes.txt").write_text("x\ny\n")
        dataset = folder(tmp_path, sequence_pattern=r"^(\w)_", val_fraction=0.34)
        found = {split: {pair.sequence for pair in dataset.pairs(split)} for split in ("train", "val")}
        assert len(found["val"]) == 2 and len(found["train"]) == 4 and not found["train"] & found["val"]
        assert all(len(dataset.pairs(split)) == 4 * len(found[split]) for split in found)

    @settings(deadline=None)
    @given(
        names=st.lists(st.text(min_size=1), min_size=2, max_size=60, unique=True),
        val=st.floats(0.01, 0.5),
        test=st.floats(0, 0.4),
    )
    def test_every_name_gets_one_split_whatever_the_order(self, names: list[str], val: float, test: float) -> None:
        split_of = deal(names, val_fraction=val, test_fraction=test)
        assert split_of == deal(names[::-1], val_fraction=val, test_fraction=test)
        counts = Counter(split_of.values())
        assert set(split_of) == set(names)
        assert counts["val"] == max(1, round(len(names) * val))

    def test_a_single_image_is_not_enough(self, tmp_path: Path, write_image, write_label) -> None:
        write_image(tmp_path / "images/a.png")
        write_label(tmp_path / "labels/a.png", 0)
        (tmp_path / "classes.txt").write_text("x\ny\n")
        with pytest.raises(UserError, match="train: the only image with a label is in val"):
            prepare(PrepareConfig(dataset="folder", root=str(tmp_path)), tmp_path / "prepared")

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"val_fraction": 0.0}, "val_fraction: expected between 0 and 1"),
            ({"val_fraction": 0.6, "test_fraction": 0.4}, "val_fraction + test_fraction: expected below 1"),
            ({"sequence_pattern": "("}, "sequence_pattern: not a regular expression"),
            ({"sequence_pattern": "a"}, "sequence_pattern: expected one (group), got 0"),
        ],
    )
    def test_bad_options(self, tmp_path: Path, options: dict[str, object], problem: str) -> None:
        with pytest.raises(ValueError) as caught:
            PrepareConfig(dataset="folder", root=str(tmp_path), options=options)
        assert problem in str(caught.value)


class TestClasses:
    def write(self, root: Path, text: str) -> Folder:
        (root / "classes.txt").write_bytes(text.encode())
        return folder(root)

    def test_names_and_colours(self, tmp_path: Path) -> None:
        dataset = self.write(tmp_path, "road 128 64 128\n\ufeffside walk\nlane 2, 1, 2, 3\r\n\n".replace("\ufeff", ""))
        assert dataset.class_names == ("road", "side walk", "lane 2")
        assert dataset.palette == ((128, 64, 128), distinct_colour(1), (1, 2, 3))

    def test_a_byte_order_mark_is_no_part_of_a_name(self, tmp_path: Path) -> None:
        (tmp_path / "classes.txt").write_text("road\nsky\n", encoding="utf-8-sig")
        assert folder(tmp_path).class_names == ("road", "sky")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("road\n\nsky\n", "classes.txt:2: expected a class name"),
            ("road\nsky\nroad\n", "classes.txt:3: the class 'road' is named twice"),
            ("road 300 0 0\nsky\n", "classes.txt:1: a colour is three numbers up to 255"),
            ("road\n", "expected 2 to 254 classes, got 1"),
            ("", "expected 2 to 254 classes, got 0"),
            ("\n".join(f"c{i}" for i in range(255)), "expected 2 to 254 classes, got 255"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, text: str, problem: str) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "labels").mkdir()
        assert any(problem in found for found in self.write(tmp_path, text).layout_problems())

    def test_a_file_that_is_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00bad")
        with pytest.raises(UserError, match="expected a text file with one class name a line"):
            _ = folder(tmp_path).class_names

    def test_everything_that_is_missing_is_named(self, tmp_path: Path) -> None:
        problems = folder(tmp_path).layout_problems()
        assert [problem.split(":")[0].rpartition("/")[2] for problem in problems] == ["images", "labels", "classes.txt"]

    def test_colours_of_neighbours_differ(self) -> None:
        colours = [distinct_colour(index) for index in range(40)]
        assert len(set(colours)) == 40

    def test_classes_that_changed_since_prepare(self, flat: Path, tmp_path: Path) -> None:
        prepare(PrepareConfig(dataset="folder", root=str(flat)), tmp_path / "prepared")
        (flat / "classes.txt").write_text("not road\nroad\n")
        with pytest.raises(
            UserError, match=r"its classes are not those of .*dataset\.json any more; run prepare again"
        ):
            load_prepared(tmp_path / "prepared", flat)

    def test_void_and_unknown_ids(self, flat: Path, write_label) -> None:
        dataset = folder(flat)
        label = dataset.decode_label(write_label(flat / "labels/00.png", [[0, 1, 255]]))
        assert label.tolist() == [[0, 1, 255]]
        with pytest.raises(UserError, match="unknown label 2; expected 0 to 1, 255"):
            dataset.decode_label(write_label(flat / "labels/00.png", [[2]]))
