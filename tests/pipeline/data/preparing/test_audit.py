"""What the labels of a whole dataset amount to is told, and stays told: by prepare, and in what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from serving.contract.errors import UserError

EVERY = np.arange(48).reshape(6, 8) % 12


def camvid(root: Path) -> PrepareConfig:
    return PrepareConfig(dataset="camvid", root=str(root))


def label(root: Path, split: str, ids: object) -> None:
    for path in (root / f"{split}annot").iterdir():
        Image.fromarray(np.asarray(ids, np.uint8)).save(path)


def test_a_class_without_pixels_in_a_split_is_named_and_kept(camvid_replica: Path, tmp_path: Path) -> None:
    label(camvid_replica, "val", EVERY % 10)
    done = prepare(camvid(camvid_replica), tmp_path / "prepared")
    assert done.warnings == ("absent class: bicyclist: no pixel in val, and no part in its mIoU",)
    content = json.loads((tmp_path / "prepared/dataset.json").read_text())
    assert content["warnings"] == list(done.warnings) and content["notes"] == []
    assert load_prepared(tmp_path / "prepared", camvid_replica).warnings == done.warnings


def test_a_class_without_pixels_anywhere(camvid_replica: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        label(camvid_replica, split, EVERY % 10)
    done = prepare(camvid(camvid_replica), tmp_path / "prepared")
    assert done.warnings == ("unused class: bicyclist: no pixel in any split",)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_a_labelled_pixel_is_refused(camvid_replica: Path, tmp_path: Path, split: str) -> None:
    label(camvid_replica, split, np.full((6, 8), 11))
    with pytest.raises(UserError, match=rf"no labels \(1\):\n    {split}: none of its \d images has a labelled pixel"):
        prepare(camvid(camvid_replica), tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_some_images_without_a_labelled_pixel_are_counted(camvid_replica: Path, tmp_path: Path) -> None:
    path = camvid_replica / "trainannot/0016E5_00390.png"
    Image.fromarray(np.full((6, 8), 11, np.uint8)).save(path)
    done = prepare(camvid(camvid_replica), tmp_path / "prepared")
    assert done.warnings == ("unlabelled: 1 of 2 images of train are void throughout: 0016E5_00390",)


def test_a_training_split_of_one_class_is_refused(camvid_replica: Path, tmp_path: Path) -> None:
    label(camvid_replica, "train", np.where(EVERY == 11, 11, 3))
    with pytest.raises(UserError, match="train: all labelled pixels are 'road'"):
        prepare(camvid(camvid_replica), tmp_path / "prepared")


class TestOrientation:
    """Images are turned by their EXIF orientation; whether labels were drawn on the turned ones must be certain."""

    def photo(self, root: Path, split: str, name: str, orientation: int, height: int = 6, width: int = 8) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        noise = np.random.default_rng(list(name.encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / split / f"{name}.png", exif=exif)

    def mask(self, root: Path, split: str, name: str, ids: Any, **options: object) -> None:
        Image.fromarray(np.asarray(ids, np.uint8)).save(root / f"{split}annot" / f"{name}.png", **options)

    def test_turned_images_with_labels_of_the_turned_size_are_counted(
        self, camvid_replica: Path, tmp_path: Path
    ) -> None:
        for name in ("a_1", "b_1"):
            self.photo(camvid_replica, "train", name, 6)
            self.mask(camvid_replica, "train", name, EVERY.T)
        done = prepare(camvid(camvid_replica), tmp_path / "prepared")
        assert done.notes == ("EXIF: 2 images and 0 labels were turned by their EXIF orientation",)
        assert done.warnings == ()
        train = load_prepared(tmp_path / "prepared", camvid_replica).split("train")
        assert all(
            train.read_image(i).shape[:2] == train.size(i) == train.read_label(i).shape for i in range(len(train))
        )

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_a_label_of_the_unturned_size_names_exif(
        self, camvid_replica: Path, tmp_path: Path, orientation: int
    ) -> None:
        self.photo(camvid_replica, "train", "a_1", orientation)
        self.mask(camvid_replica, "train", "a_1", EVERY)
        with pytest.raises(UserError) as caught:
            prepare(camvid(camvid_replica), tmp_path / "prepared")
        assert "image 6x8, label 8x6; a quarter turn would cure it" in str(caught.value)
        assert f"the image is turned by its EXIF orientation {orientation}, the label, which has none" in str(
            caught.value
        )

    def test_a_lost_orientation_is_thought_of(self, camvid_replica: Path, tmp_path: Path) -> None:
        self.photo(camvid_replica, "train", "a_1", 1)
        self.mask(camvid_replica, "train", "a_1", EVERY.T)
        with pytest.raises(UserError, match="an EXIF orientation may have been lost"):
            prepare(camvid(camvid_replica), tmp_path / "prepared")

    @pytest.mark.parametrize(("orientation", "height", "width"), [(3, 6, 8), (2, 6, 8), (4, 6, 8), (6, 8, 8)])
    def test_what_sizes_cannot_tell_is_warned_of(
        self, camvid_replica: Path, tmp_path: Path, orientation: int, height: int, width: int
    ) -> None:
        self.photo(camvid_replica, "train", "a_1", orientation, height, width)
        self.mask(camvid_replica, "train", "a_1", np.resize(EVERY, (height, width)))
        done = prepare(camvid(camvid_replica), tmp_path / "prepared")
        assert [warning.partition(":")[0] for warning in done.warnings] == ["EXIF"]
        assert "a_1" in done.warnings[0]

    @pytest.mark.parametrize(("orientation", "stored"), [(3, EVERY), (6, EVERY)])
    def test_a_label_of_a_published_dataset_with_its_images_tag_is_not_warned_of(
        self, camvid_replica: Path, tmp_path: Path, orientation: int, stored: Any
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        self.photo(camvid_replica, "train", "a_1", orientation)
        self.mask(camvid_replica, "train", "a_1", stored, exif=exif)
        done = prepare(camvid(camvid_replica), tmp_path / "prepared")
        assert done.notes == ("EXIF: 1 images and 1 labels were turned by their EXIF orientation",)
        assert done.warnings == ()

    def test_a_label_that_was_turned_by_its_tag_tells_nothing_of_other_photos(
        self, camvid_replica: Path, tmp_path: Path
    ) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        self.photo(camvid_replica, "train", "a_1", 6)
        self.mask(camvid_replica, "train", "a_1", EVERY, exif=exif)
        self.photo(camvid_replica, "train", "b_1", 3)
        self.mask(camvid_replica, "train", "b_1", EVERY)
        done = prepare(camvid(camvid_replica), tmp_path / "prepared")
        assert [warning.partition(", are")[0] for warning in done.warnings] == ["EXIF: 1 images, such as b_1"]

    def test_other_photos_tell_and_it_is_said(self, camvid_replica: Path, tmp_path: Path) -> None:
        """Where labels fit photos turned by a quarter, they were drawn on what the eye sees."""
        for name, orientation, ids in (("a_1", 3, EVERY), ("b_1", 6, EVERY.T)):
            self.photo(camvid_replica, "train", name, orientation)
            self.mask(camvid_replica, "train", name, ids)
        done = prepare(camvid(camvid_replica), tmp_path / "prepared")
        assert done.warnings == ()
        (note,) = (note for note in done.notes if "such as a_1" in note)
        assert note.startswith("EXIF: 1 images") and note.endswith(
            "as the labels of 1 other images fit the turned image"
        )

    def test_a_damaged_orientation_turns_nothing(self, camvid_replica: Path, tmp_path: Path) -> None:
        self.photo(camvid_replica, "train", "a_1", 77)
        self.mask(camvid_replica, "train", "a_1", EVERY)
        assert prepare(camvid(camvid_replica), tmp_path / "prepared").notes == ()
