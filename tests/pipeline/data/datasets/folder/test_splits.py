"""The splits of a folder: folders above or below `images/`, and lists."""

from __future__ import annotations

import pytest

from serving.contract.errors import UserError
from tests.pipeline.data.datasets.folder.tree import Tree


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

    def test_two_lists_of_one_split_are_a_problem(self, tree: Tree) -> None:
        for name in ("a", "b", "c"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        for name, lines in {"train": "a\n", "val": "b\n", "dev": "c\n"}.items():
            (tree.root / f"{name}.txt").write_text(lines)
        with pytest.raises(UserError, match=r"val\.txt: there is dev\.txt too, and both are lists of val; keep one"):
            tree.prepare()

    def test_a_label_alone_in_no_list_is_named_itself(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.png")
        tree.label("labels/lonely.png", 9)
        (tree.root / "train.txt").write_text("a\n")
        (tree.root / "val.txt").write_text("b\n")
        assert tree.prepare().warnings == ("left out: 1 left out, in no list of a split: labels/lonely.png",)

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
