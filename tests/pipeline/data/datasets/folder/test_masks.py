"""Labels in several files: a mask for every class, or for every object."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets.shared.prepared import load_prepared
from serving.contract.errors import UserError
from tests.pipeline.data.datasets.folder.tree import Tree


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
