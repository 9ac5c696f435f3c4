"""Images and labels where people keep them: every file is taken, or left out with the reason."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.preparing.config import PrepareConfig
from serving.contract.errors import UserError
from tests.pipeline.data.datasets.folder.tree import Tree


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


class TestBesideSplits:
    def test_folders_of_images_beside_those_of_the_splits_are_told(self, tree: Tree) -> None:
        for split in ("train", "val", "valid", "extra"):
            for name in ("a", "b"):
                tree.pair(f"{split}/images/{split}{name}.png", f"{split}/labels/{split}{name}.png")
        tree.image("unlabelled/images/c.png", 99)
        (tree.root / "notes").mkdir()
        assert tree.names().keys() == {"train", "val"}
        assert tree.prepare().warnings == (
            "left out: 3 left out, images beside the folders of the splits: extra, unlabelled, valid",
        )

    def test_splits_that_are_themselves_folders_of_images(self, tree: Tree) -> None:
        for split in ("train", "val", "more"):
            tree.pair(f"{split}/a{split}.png", f"{split}/a{split}_mask.png")
        options = {"image_folder": ".", "label_folder": ".", "label_suffix": "_mask"}
        assert "left out: 1 left out, images beside the folders of the splits: more" in tree.prepare(**options).warnings

    def test_labels_of_a_split_without_images_are_told(self, tree: Tree) -> None:
        for split in ("train", "val"):
            tree.pair(f"images/{split}/{split}.png", f"labels/{split}/{split}.png")
        tree.label("labels/test/t.png", 9)
        tree.label("labels/u.png", 9)
        (tree.root / "labels/notes.txt").write_text("x")
        assert tree.prepare().warnings == (
            "left out: 2 left out, labels beside the folders of the splits: labels/test, labels/u.png",
        )


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
