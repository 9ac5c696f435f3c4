"""A folder that nobody has described: what it seems to be, in the ways that people arrange their data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress

from pipeline.data.describing.description import Described, describe_folder
from pipeline.data.describing.guessing import guess_dataset
from pipeline.data.describing.sheet import draw_sheet
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from serving.contract.errors import UserError

COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)


def scene(index: int, classes: int = 3) -> np.ndarray:
    ids = np.zeros((24, 32), np.uint8)
    for number in range(1, classes):
        ids[4 + 5 * number : 8 + 5 * number, 2 + index : 12 + 2 * index] = number
    return ids


def photo(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)


def pairs(root: Path, image: str, label: str, value: Callable[[np.ndarray], np.ndarray] = lambda ids: ids) -> None:
    for index, name in enumerate(("a", "b", "c", "d", "e")):
        photo(root / image.format(name), index)
        save(root / label.format(name), value(scene(index)))


def describe(root: Path) -> Described:
    with Progress(disable=True) as bar:
        return describe_folder(root, bar, limit=None, threads=1)


def check(root: Path, tmp_path: Path, expected: dict[str, Any], images: int = 5) -> Described:
    """The section that is proposed has these options, `prepare` takes it, and a sheet is drawn."""
    described = describe(root)
    section = described.description.section
    options = {name: value for name, value in section["options"].items() if name != "classes"}
    assert (section["dataset"], options) == ("folder", expected)
    assert described.description.problems == {}
    done = prepare(PrepareConfig(**section), tmp_path / "prepared")
    assert sum(done.pairs.values()) == images
    assert draw_sheet(described).ndim == 3
    return described


@pytest.mark.parametrize(
    ("image", "label", "options"),
    [
        ("images/{}.jpg", "labels/{}.png", {}),
        ("images/{}.png", "masks/{}.png", {"label_folder": "masks"}),
        ("img/{}.jpg", "gt/{}.npy", {"image_folder": "img", "label_folder": "gt"}),
        ("data/rgb/{}.jpg", "data/seg/{}.png", {"image_folder": "data/rgb", "label_folder": "data/seg"}),
        ("images/{}.jpg", "labels/{}_mask.png", {"label_suffix": "_mask"}),
        ("images/{}_sat.jpg", "labels/{}_gt.png", {"image_suffix": "_sat", "label_suffix": "_gt"}),
        ("all/{}.jpg", "all/{}_L.png", {"image_folder": "all", "label_folder": "all", "label_suffix": "_L"}),
        ("{}.jpg", "{}_mask.png", {"image_folder": ".", "label_folder": ".", "label_suffix": "_mask"}),
        (
            *("{}.jpg", "{}.png"),
            {"image_folder": ".", "label_folder": ".", "image_ending": ".jpg", "label_ending": ".png"},
        ),
        ("images/day1/{}.jpg", "labels/day1/{}.png", {}),
    ],
)
def test_folders_suffixes_and_endings(tmp_path: Path, image: str, label: str, options: dict[str, Any]) -> None:
    pairs(tmp_path / "own", image, label)
    check(tmp_path / "own", tmp_path, options)


@pytest.mark.parametrize(
    "pattern", ["images/{split}/{{}}.jpg labels/{split}/{{}}.png", "{split}/images/{{}}.jpg {split}/labels/{{}}.png"]
)
@pytest.mark.parametrize("val", ["val", "valid"])
def test_splits_in_folders(tmp_path: Path, pattern: str, val: str) -> None:
    for split in ("train", val):
        pairs(tmp_path / "own", *pattern.format(split=split).split())
    described = check(tmp_path / "own", tmp_path, {}, 10)
    assert described.description.images == {"train": 5, "val": 5, "test": 0}


def test_splits_with_images_and_labels_together(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pairs(tmp_path / "own", f"{split}/{{}}.jpg", f"{split}/{{}}_mask.png")
    check(tmp_path / "own", tmp_path, {"image_folder": ".", "label_folder": ".", "label_suffix": "_mask"}, 10)


def test_drawings_beside_labels(tmp_path: Path) -> None:
    pairs(tmp_path / "own", "images/{}.png", "labels/{}.png")
    for index, name in enumerate(("a", "b", "c", "d", "e")):
        photo(tmp_path / f"own/labels/{name}.jpg", index)
    check(tmp_path / "own", tmp_path, {"label_ending": ".png"})


class TestClasses:
    def classes(self, root: Path, tmp_path: Path) -> list[str]:
        described = check(root, tmp_path, {})
        lines: list[str] = list(described.description.section["options"].get("classes", []))
        return lines

    def test_binary_masks(self, tmp_path: Path) -> None:
        pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png", lambda ids: np.array([0, 255, 255], np.uint8)[ids])
        assert self.classes(tmp_path / "own", tmp_path) == ["background 0", "object 255"]

    def test_numbers(self, tmp_path: Path) -> None:
        pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png", lambda ids: np.array([7, 9, 255], np.uint8)[ids])
        assert self.classes(tmp_path / "own", tmp_path) == ["class7 7", "class9 9"]

    def test_colours(self, tmp_path: Path) -> None:
        pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png", lambda ids: COLOURS[ids])
        lines = self.classes(tmp_path / "own", tmp_path)
        assert sorted(line.partition(" ")[2] for line in lines) == ["0 0 0", "0 0 200", "200 0 0"]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("labelmap.txt", "# label:color_rgb:parts:actions\nground:0,0,0::\nlane 2:200,0,0::\nbar:0,0,200::\n"),
            ("label_colors.txt", "0 0 0\tground\n200 0 0\tlane 2\n0 0 200\tbar\n"),
            ("class_dict.csv", "name,r,g,b\nground,0,0,0\nlane 2,200,0,0\nbar,0,0,200\n"),
        ],
    )
    def test_lists_of_other_tools(self, tmp_path: Path, name: str, text: str) -> None:
        pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png", lambda ids: COLOURS[ids])
        (tmp_path / "own" / name).write_text(text)
        assert self.classes(tmp_path / "own", tmp_path) == ["ground 0 0 0", '"lane 2" 200 0 0', "bar 0 0 200"]

    def test_a_plain_list_of_names(self, tmp_path: Path) -> None:
        pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png")
        (tmp_path / "own/class_names.txt").write_text("_background_\npotted plant\ntv/monitor\n")
        assert self.classes(tmp_path / "own", tmp_path) == ["_background_", "potted plant", "tv/monitor"]

    def test_what_labelme_ignores_is_no_class(self, tmp_path: Path) -> None:
        pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png")
        (tmp_path / "own/labels.txt").write_text("__ignore__\n_background_\ncar\ndog\n")
        assert self.classes(tmp_path / "own", tmp_path) == ["_background_", "car", "dog"]

    def test_classes_txt_is_kept(self, tmp_path: Path) -> None:
        pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png")
        (tmp_path / "own/classes.txt").write_text("ground\ndisc\nbar\n")
        assert self.classes(tmp_path / "own", tmp_path) == []


def test_masks_of_classes_and_of_objects(tmp_path: Path) -> None:
    for root, names, lines in (
        ("classes", ("road", "car"), "background\nroad\ncar\n"),
        ("objects", ("1", "2"), "background\nnucleus\n"),
    ):
        for index, name in enumerate(("a", "b", "c")):
            photo(tmp_path / root / f"images/{name}.jpg", index)
            for number, mask in enumerate(names, start=1):
                save(tmp_path / root / f"labels/{name}/{mask}.png", (scene(index) == number).astype(np.uint8) * 255)
        (tmp_path / root / "classes.txt").write_text(lines)
        check(tmp_path / root, tmp_path / root, {}, 3)


def test_published_layouts_are_known(tmp_path: Path, replicas: Any) -> None:
    for name in ("cityscapes", "ade20k", "pascal_context", "coco_164k", "coco_10k", "camvid32"):
        guess = guess_dataset(getattr(replicas, name)(tmp_path / name))
        assert guess.dataset == name.replace("coco_164k", "coco_stuff").replace("coco_10k", "coco_stuff")
        assert guess.options == ({"release": "10k"} if name == "coco_10k" else {})


def test_what_prepare_would_refuse_is_told_and_drawn(tmp_path: Path) -> None:
    pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png", lambda ids: ids + np.uint8(1))
    (tmp_path / "own/classes.txt").write_text("ground\ndisc\nbar\n")
    described = describe(tmp_path / "own")
    assert "Do the labels count from 1?" in described.description.problems["bad label"][0]
    assert described.description.classes == ()
    assert draw_sheet(described).shape[1] > 500


@pytest.mark.parametrize("what", ["missing", "empty", "images only", "annotations"])
def test_nothing_to_train_on_is_one_message(tmp_path: Path, what: str) -> None:
    root = tmp_path / "own"
    if what != "missing":
        root.mkdir()
    if what in ("images only", "annotations"):
        for index in range(3):
            photo(root / f"images/{index}.jpg", index)
    if what == "annotations":
        for index in range(3):
            (root / f"images/{index}.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        guess_dataset(root)
    expected = {
        "missing": "no such folder",
        "empty": "it holds nothing",
        "images only": "it holds 3 .jpg",
        "annotations": "annotations in JSON (COCO, labelme): `contrail import` may read them",
    }
    assert expected[what] in str(caught.value)


def test_large_images_are_described_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", scene(0).size - 1)
    assert describe(tmp_path / "own").description.looked_at


def test_a_part_of_a_large_folder_is_looked_at(tmp_path: Path) -> None:
    pairs(tmp_path / "own", "images/{}.jpg", "labels/{}.png")
    with Progress(disable=True) as bar:
        described = describe_folder(tmp_path / "own", bar, limit=2, threads=1)
    assert described.description.images["train"] == 4 and described.description.looked_at == 3


@pytest.mark.parametrize(
    ("image", "label", "options"),
    [
        ("images/a.jpg", "labels/a.png", {}),
        ("images/a.png", "labels/a.png", {}),
        (
            "JPEGImages/a.jpg",
            "masks/a_mask.png",
            {"image_folder": "JPEGImages", "label_folder": "masks", "label_suffix": "_mask"},
        ),
        ("data/a.jpg", "data/a_mask.png", {"image_folder": "data", "label_folder": "data", "label_suffix": "_mask"}),
        ("a.jpg", "a.png", {"image_folder": ".", "label_folder": ".", "image_ending": ".jpg", "label_ending": ".png"}),
    ],
)
def test_a_single_pair_is_described_and_what_lacks_is_told(
    tmp_path: Path, image: str, label: str, options: dict[str, Any]
) -> None:
    photo(tmp_path / "own" / image, 0)
    save(tmp_path / "own" / label, scene(0))
    described = describe(tmp_path / "own").description
    assert {key: value for key, value in described.section["options"].items() if key != "classes"} == options
    assert "1 image in " in described.why and described.looked_at == 1 and len(described.classes) == 3
    assert described.problems["empty split"] == [
        "train: the only image with a label is in val; expected one to train on and one to validate on at least"
    ]


def test_a_single_photo_beside_one_of_its_name_is_no_pair(tmp_path: Path) -> None:
    photo(tmp_path / "own/a.jpg", 0)
    photo(tmp_path / "own/a.png", 1)
    with pytest.raises(UserError, match=r"it holds 1 \.jpg, 1 \.png"):
        guess_dataset(tmp_path / "own")
