"""Images and labels where people keep them: every file is taken, or left out with the reason."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets.folder.dataset import Folder
from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import Preparation, prepare
from serving.contract.errors import UserError


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


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


class TestEveryFile:
    def test_deeper_folders_are_taken(self, tree: Tree) -> None:
        for name in ("a", "b", "day2/a", "day2/b", "day2/noon/c"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        assert tree.all_names() == ["a", "b", "day2/a", "day2/b", "day2/noon/c"]

    def test_linked_folders_and_two_links_to_one_file(self, tree: Tree, tmp_path: Path) -> None:
        tree.pair("images/a.png", "labels/a.png")
        tree.pair("store/images/b.png", "store/labels/b.png")
        for folder in ("images", "labels"):
            (tree.root / folder / "linked").symlink_to(tree.root / "store" / folder)
            (tree.root / folder / "again.png").symlink_to(tree.root / folder / "a.png")
        assert tree.all_names() == ["a", "again", "linked/b"]

    def test_a_link_back_ends(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        (tree.root / "images/up").symlink_to(tree.root / "images")
        assert tree.all_names() == ["a", "b"]
        (warning,) = tree.prepare().warnings
        assert warning.startswith("left out: 1 left out, a link back to a folder that it lies in: images/up")

    def test_odd_endings_are_taken_by_their_first_bytes(self, tree: Tree) -> None:
        for index, ending in enumerate([".PNG", ".Jpeg", ".jfif", ".png.1", ""]):
            tree.count += 1
            tree.image(f"images/{index}{ending}", tree.count, format="PNG")
            name = f"{index}" if ending != ".png.1" else f"{index}.png"
            tree.label(f"labels/{name}.png", tree.count)
        assert len(tree.all_names()) == 5

    def test_what_is_left_out_is_named_with_the_reason(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        (tree.root / "images/c.gif").write_bytes(b"GIF89a" + bytes(20))
        (tree.root / "images/d.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
        (tree.root / "labels/notes.docx").write_bytes(b"PK")
        (tree.root / "labels/a.json").write_text("{}")
        (tree.root / "images/.DS_Store").write_bytes(b"x")
        done = tree.prepare()
        assert sorted(done.warnings) == [
            "left out: 1 left out, GIF is not read: images/c.gif",
            "left out: 1 left out, HEIC is not read: images/d.heic",
            "left out: 1 left out, no label (.docx): labels/notes.docx",
        ]
        assert sorted(done.notes) == [
            "files: 1 left out, hidden: images/.DS_Store",
            "files: 1 left out, no label (.json): labels/a.json",
        ]

    def test_undecodable_names_are_taken(self, tree: Tree) -> None:
        odd = os.fsdecode(b"caf\xe9")
        for name in ("a", odd, "b\nc"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        assert tree.all_names() == ["a", "b\\nc", "caf\\xe9"]
        assert (tree.prepared / "dataset.json").read_bytes().isascii()

    def test_forms_of_unicode_are_one_name(self, tree: Tree) -> None:
        for name in ("cafe", "café", "Übung"):
            image, label = unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)
            tree.pair(f"images/{image}.png", f"labels/{label}.png")
        assert tree.all_names() == ["cafe", "café", "Übung"]

    def test_two_files_of_one_name_in_two_forms_are_a_problem(self, tree: Tree) -> None:
        for form in ("NFC", "NFD"):
            tree.pair(*(f"{folder}/{unicodedata.normalize(form, 'é')}.png" for folder in ("images", "labels")))
        with pytest.raises(UserError, match="duplicate name"):
            tree.prepare()

    def test_a_label_without_image_and_an_image_without_label_are_problems(self, tree: Tree) -> None:
        for name in ("a", "day2/b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        (tree.root / "labels/day2/b.png").rename(tree.root / "labels/b.png")
        with pytest.raises(UserError) as caught:
            tree.prepare()
        assert "labels/day2/b.png (for b.png)" in str(caught.value) and "images/b.jpg (for b.png)" in str(caught.value)


class TestNames:
    def test_a_suffix_of_labels(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}_mask.png")
        assert tree.all_names(label_suffix="_mask") == ["a", "b"]
        with pytest.raises(UserError, match="missing label"):
            tree.prepare()

    def test_one_folder_for_both(self, tree: Tree) -> None:
        for name in ("a", "b", "day2/c"):
            tree.pair(f"data/{name}.png", f"data/{name}_mask.png")
        options = {"image_folder": "data", "label_folder": "data", "label_suffix": "_mask"}
        assert tree.all_names(**options) == ["a", "b", "day2/c"]

    def test_the_dataset_s_folder_itself_and_endings(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"{name}.png", f"{name}.npy")
        options = {"image_folder": ".", "label_folder": ".", "label_ending": ".npy"}
        assert tree.all_names(**options) == ["a", "b"]

    def test_suffixes_of_both(self, tree: Tree) -> None:
        for name in ("1", "2"):
            tree.pair(f"tiles/{name}_sat.png", f"tiles/{name}_gt.png")
        options = {"image_folder": "tiles", "label_folder": "tiles", "image_suffix": "_sat", "label_suffix": "_gt"}
        assert tree.all_names(**options) == ["1", "2"]

    def test_endings_choose_among_files(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
            tree.image(f"labels/{name}.jpg", 9)  # a drawing for the eye
        with pytest.raises(UserError, match="duplicate name"):
            tree.prepare()
        assert tree.all_names(label_ending=".png") == ["a", "b"]
        assert tree.prepare(label_ending=".png").warnings == (
            "left out: 2 left out, does not end in .png: labels/a.jpg, labels/b.jpg",
        )

    def test_a_label_called_as_the_whole_image(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png.png")
        assert tree.all_names() == ["a", "b"]

    def test_other_folders(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"JPEGImages/{name}.png", f"SegmentationClass/{name}.png")
        with pytest.raises(
            UserError,
            match=r"images: missing folder.*did you mean 'JPEGImages'\? \(prepare.options.image_folder names it\)",
        ):
            tree.prepare()
        assert tree.all_names(image_folder="JPEGImages", label_folder="SegmentationClass") == ["a", "b"]

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"image_folder": "x", "label_folder": "x"}, "label_suffix or label_ending must tell"),
            ({"label_ending": "png"}, "expected an ending such as .png"),
            ({"image_folder": ""}, "expected the name of a folder"),
        ],
    )
    def test_options_that_cannot_be(self, options: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            PrepareConfig(dataset="folder", root="x", options=options)


class TestSplits:
    @pytest.mark.parametrize(
        "pattern",
        ["images/{split}/{name}.png labels/{split}/{name}.png", "{split}/images/{name}.png {split}/labels/{name}.png"],
    )
    @pytest.mark.parametrize(
        "names", [("train", "val", "test"), ("training", "validation", "testing"), ("train", "valid", "test")]
    )
    def test_folders_above_or_below(self, tree: Tree, pattern: str, names: tuple[str, str, str]) -> None:
        for split in names:
            for name in ("a", "deep/b"):
                tree.pair(*pattern.format(split=split, name=name).split())
        assert tree.names() == {split: ["a", "deep/b"] for split in ("train", "val", "test")}

    def test_splits_with_both_in_one_folder(self, tree: Tree) -> None:
        for split in ("train", "val"):
            for name in ("a", "b"):
                tree.pair(f"{split}/data/{name}.png", f"{split}/data/{name}_mask.png")
        options = {"image_folder": "data", "label_folder": "data", "label_suffix": "_mask"}
        assert tree.names(**options) == {"train": ["a", "b"], "val": ["a", "b"]}

    @pytest.mark.parametrize("folder", ["", "splits/", "ImageSets/Segmentation/"])
    @pytest.mark.parametrize(
        "line", ["{name}", "{name}.png", "images/{name}.png", "images/{name}.png labels/{name}.png"]
    )
    def test_lists(self, tree: Tree, folder: str, line: str) -> None:
        for name in ("a", "b", "deep/c", "d e"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        (tree.root / folder).mkdir(parents=True, exist_ok=True)
        lines = {name: line.format(name=name) for name in ("a", "b", "deep/c")}
        (tree.root / folder / "train.txt").write_text(f"{lines['b']}\n{lines['a']}\n")
        (tree.root / folder / "val.txt").write_text(f"\ufeff{lines['deep/c']}\r\n\n")
        assert tree.names() == {"train": ["a", "b"], "val": ["deep/c"]}
        assert tree.prepare().warnings == ("left out: 1 left out, in no list of a split: images/d e.png",)

    def test_lists_that_are_wrong(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        (tree.root / "train.txt").write_text("a\nb\nnone\n")
        (tree.root / "test.txt").write_text("b\n")
        with pytest.raises(UserError) as caught:
            tree.prepare()
        for text in ("val.txt: missing list", "'none' is no image", "'b' is in the list of train too"):
            assert text in str(caught.value)

    def test_a_folder_beside_those_of_the_splits(self, tree: Tree) -> None:
        for split in ("train", "val", "extra"):
            tree.pair(f"images/{split}/a.png", f"labels/{split}/a.png")
        with pytest.raises(UserError, match="images/extra: a folder beside the folders of the splits"):
            tree.prepare()


class TestMasks:
    def write(self, tree: Tree, places: dict[str, np.ndarray], image: str = "a", key: int = 1) -> None:
        tree.image(f"images/{image}.png", key)
        for place, mask in places.items():
            path = tree.root / "labels" / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(path)

    def read(self, tree: Tree, **options: Any) -> np.ndarray:
        tree.prepare(**options)
        splits = load_prepared(tree.prepared, tree.root).splits
        return {split.name(i): split.read_label(i) for split in splits.values() for i in range(len(split))}["a"]

    def area(self, top: int, bottom: int) -> np.ndarray:
        mask = np.zeros((8, 10), bool)
        mask[top:bottom] = True
        return mask

    @pytest.mark.parametrize(
        "pattern", ["{name}/{of}", "{name}_{of}", "{name}/{name}_{of}", "{name}-{of}", "{name}/{of}_1"]
    )
    @pytest.mark.parametrize("last", ["traffic light", "traffic_light"])
    def test_one_for_every_class(self, tree: Tree, pattern: str, last: str) -> None:
        (tree.root / "classes.txt").write_text(f"background\ncar\n{last}\n")
        areas = {"car": self.area(0, 2), "Traffic_Light": self.area(4, 7)}
        for index, name in enumerate(("a", "b", "c_car")):
            self.write(tree, {pattern.format(name=name, of=of): area for of, area in areas.items()}, name, index + 1)
        found = self.read(tree)
        np.testing.assert_array_equal(found, np.where(areas["car"], 1, np.where(areas["Traffic_Light"], 2, 0)))
        assert tree.prepare().notes == ("masks: 37.5 % of the pixels are in no mask: 'background'",)

    def test_without_a_background_the_rest_is_asked_about(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("road\ncar\nrest\n")
        for index, name in enumerate(("a", "b")):
            self.write(tree, {f"{name}/road": self.area(0, 3), f"{name}/car": self.area(3, 5)}, name, index + 1)
        with pytest.raises(
            UserError, match=r"if they are 'rest', write prepare.options.background: rest; if they are void"
        ):
            tree.prepare()
        assert self.read(tree, background="rest")[:, 0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
        assert self.read(tree, background="void")[:, 0].tolist() == [0, 0, 0, 1, 1, 255, 255, 255]
        with pytest.raises(UserError, match="background: 'rset' is no class; did you mean 'rest'"):
            tree.prepare(background="rset")

    def test_every_class_has_masks_and_the_rest_is_void(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("road\ncar\n")
        for index, name in enumerate(("a", "b")):
            self.write(tree, {f"{name}/road": self.area(0, 3), f"{name}/car": self.area(3, 5)}, name, index + 1)
        assert self.read(tree)[:, 0].tolist() == [0, 0, 0, 1, 1, 255, 255, 255]

    def test_pixels_in_the_masks_of_two_classes(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("background\nroad\ncar\n")
        for index, name in enumerate(("a", "b")):
            self.write(tree, {f"{name}/car": self.area(2, 5), f"{name}/road": self.area(0, 4)}, name, index + 1)
        with pytest.raises(UserError, match=r"40 pixels are in the masks of two classes, such as in labels/a/car.png"):
            tree.prepare()
        assert self.read(tree, overlap="last")[:, 0].tolist() == [1, 1, 2, 2, 2, 0, 0, 0]
        assert self.read(tree, overlap="void")[:, 0].tolist() == [1, 1, 255, 255, 2, 0, 0, 0]

    @pytest.mark.parametrize("lines", ["background\nnucleus\n", "nucleus\nbackground\n"])
    @pytest.mark.parametrize("pattern", ["{name}/{number}", "{name}/{number}_x", "{name}/sub/{number}"])
    def test_one_for_every_object(self, tree: Tree, lines: str, pattern: str) -> None:
        (tree.root / "classes.txt").write_text(lines)
        for index, name in enumerate(("a", "b")):
            objects = {pattern.format(name=name, number=n): self.area(n, n + 1 + index) for n in (1, 2, 5)}
            self.write(tree, objects, name, index + 1)
        inside = np.isin(np.arange(8), (1, 2, 5))
        expected = inside if lines.startswith("background") else ~inside
        assert self.read(tree)[:, 0].tolist() == expected.astype(int).tolist()

    def test_an_object_file_alone_is_a_mask_too(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("background\nnucleus\n")
        for index, name in enumerate(("a", "b")):
            self.write(tree, {f"{name}/x{index}": self.area(index, index + 2)}, name, index + 1)
        assert self.read(tree)[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]

    def test_what_is_no_mask(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("background\ncar\n")
        for index, name in enumerate(("a", "b")):
            self.write(tree, {f"{name}/car": self.area(0, 2)}, name, index + 1)
        soft = np.linspace(0, 255, 80).reshape(8, 10).astype(np.uint8)
        Image.fromarray(soft).save(tree.root / "labels/b/car.png")
        with pytest.raises(UserError, match=r"labels/b/car.png: 79 values beside 0; expected a mask of two"):
            tree.prepare()

    def test_names_that_tell_no_class_among_those_that_do(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("background\ncar\nroad\n")
        for index, name in enumerate(("a", "b")):
            self.write(tree, {f"{name}/car": self.area(0, 2), f"{name}/cra": self.area(2, 4)}, name, index + 1)
        with pytest.raises(UserError, match=r"2 masks whose names tell no class of classes.txt: labels/a/cra.png"):
            tree.prepare()

    def test_masks_of_two_sizes(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("background\ncar\nroad\n")
        for index, name in enumerate(("a", "b")):
            self.write(tree, {f"{name}/car": self.area(0, 2), f"{name}/road": self.area(2, 4)}, name, index + 1)
        Image.new("L", (9, 9)).save(tree.root / "labels/b/road.png")
        with pytest.raises(UserError, match=r"labels/b/road.png: 9x9, the other masks 10x8"):
            tree.prepare()

    def test_masks_and_whole_labels_are_not_mixed(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("background\ncar\n")
        self.write(tree, {"a/car": self.area(0, 2)}, "a", 1)
        self.write(tree, {"b": self.area(0, 2)}, "b", 2)
        with pytest.raises(UserError, match=r"1 of 2 labels are whole, such as labels/b.png"):
            tree.prepare()

    def test_a_mask_that_changed_is_refused(self, tree: Tree) -> None:
        (tree.root / "classes.txt").write_text("background\ncar\nroad\n")
        for index, name in enumerate(("a", "b")):
            self.write(tree, {f"{name}/car": self.area(0, 2), f"{name}/road": self.area(2, 4)}, name, index + 1)
        tree.prepare()
        Image.fromarray(self.area(3, 4).astype(np.uint8)).save(tree.root / "labels/a/road.png")
        with pytest.raises(UserError, match="not what was prepared"):
            splits = load_prepared(tree.prepared, tree.root).splits
            [split.read_label(i) for split in splits.values() for i in range(len(split))]


class TestArrays:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, bool])
    @pytest.mark.parametrize("ending", [".npy", ".mat"])
    def test_label_maps(self, tree: Tree, dtype: type, ending: str) -> None:
        from scipy.io import savemat

        for key, name in enumerate(("a", "b"), start=1):
            tree.image(f"images/{name}.png", key)
            path = tree.root / "labels" / f"{name}{ending}"
            path.parent.mkdir(exist_ok=True)
            drawing = tree.drawing(key).astype(dtype)
            np.save(path, drawing) if ending == ".npy" else savemat(path, {"map": drawing, "about": "a"})
        tree.count = 2
        assert tree.all_names() == ["a", "b"]

    def test_minus_one_is_void_when_said(self, tree: Tree) -> None:
        tree.pair("images/a.png", "labels/a.npy")
        tree.pair("images/b.png", "labels/b.npy")
        drawing = tree.drawing(1).astype(np.int32)
        drawing[0] = -1
        np.save(tree.root / "labels/a.npy", drawing)
        with pytest.raises(UserError, match=r"unknown label -1: 10 pixels"):
            tree.prepare()
        tree.prepare(void_values=[-1])
        dataset = Folder(tree.root, {"void_values": [-1]})
        assert (dataset.decode_label(tree.root / "labels/a.npy")[0] == 255).all()

    @pytest.mark.parametrize(
        ("array", "problem"),
        [
            (np.full((8, 10), 0.5), "holds fractions"),
            (np.zeros((8, 10, 3)), "expected whole numbers, HxW"),
            (np.array([{}], dtype=object), "Python objects"),
        ],
    )
    def test_arrays_that_are_no_labels(self, tree: Tree, array: np.ndarray, problem: str) -> None:
        tree.pair("images/a.png", "labels/a.npy")
        tree.pair("images/b.png", "labels/b.npy")
        np.save(tree.root / "labels/a.npy", array, allow_pickle=True)
        with pytest.raises(UserError, match=problem):
            tree.prepare()

    def test_a_bomb(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.npy")
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (400000, 400000), }".ljust(117) + b"\n"
        (tree.root / "labels/a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(UserError, match="400000x400000 values; at most"):
            tree.prepare()
