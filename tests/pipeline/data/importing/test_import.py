from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.datasets.folder.classes import read_classes
from pipeline.data.importing.environment import REQUIREMENTS, VARIABLE
from tests.pipeline.data.importing import replicas
from tests.pipeline.data.importing.importer import REPOSITORY, Run, call, needs_formats
from tests.pipeline.data.importing.replicas import HEIGHT, WIDTH, covered, rectangle

HOLE = covered((2, 2, 12, 10)) & ~covered((5, 4, 8, 7))
COMPRESSED = "j0840000JO11OO11OO115000000n2"
# Its lines cross: two triangles that meet in the middle.
BOW = [0.0, 0.0, 12.0, 12.0, 12.0, 0.0, 0.0, 12.0]


@needs_formats
class TestCoco:
    def test_polygons_runs_holes_crossings_crowds_and_boxes(self, source: Path, run: Run, tmp_path: Path) -> None:
        images: dict[str, list[dict[str, Any]]] = {
            "polygon.png": [
                {"category_id": 1, "segmentation": [rectangle(1, 1, 5, 4), rectangle(10, 6, 14, 9)]},
                {"category_id": 5, "segmentation": [], "bbox": [15.0, 1.0, 3.0, 4.0]},
            ],
            "runs.png": [{"category_id": 5, "segmentation": replicas.rle(HOLE), "bbox": [2.0, 2.0, 10.0, 8.0]}],
            "crowd.png": [{"category_id": 1, "segmentation": replicas.rle(HOLE), "iscrowd": 1}],
            "crossing.png": [{"category_id": 1, "segmentation": [BOW]}],
            "nothing.png": [],
            "überlappt ñ.png": [
                {"category_id": 1, "segmentation": [rectangle(0, 0, 8, 8)]},
                {"category_id": 5, "segmentation": [rectangle(4, 4, 12, 12)]},
            ],
        }
        for name in images:
            replicas.image(source / "images/default" / name)
        replicas.image(source / "images/default/unlisted.png")
        replicas.coco(source / "annotations/instances_default.json", images, {1: "cat", 5: "dog 2"})
        made = run()
        assert made.classes == ["background", "cat", "dog 2"]
        assert (made.where("polygon", "cat") == covered((1, 1, 5, 4), (10, 6, 14, 9))).all()
        assert (made.where("polygon", "void") == covered((15, 1, 18, 5))).all()
        assert (made.where("runs", "dog 2") == HOLE).all()
        assert (made.where("crowd", "cat") == HOLE).all()
        crossing = made.where("crossing", "cat")
        assert crossing[6, 1] and crossing[6, 10] and not crossing[1, 6] and not crossing[10, 6]
        assert (made.label("nothing") == 0).all()
        both = covered((0, 0, 8, 8)) & covered((4, 4, 12, 12))
        assert (made.where("überlappt ñ", "void") == both).all()
        assert "overlap: 16 pixels" in made.said and "they are void (--overlap)" in made.said
        assert "boxes: 1 have no mask: their pixels are void" in made.said
        assert "1 regions of many objects" in made.said and "1 images have none at all" in made.said
        assert "1 images are in no list of the export and were left out: images/default/unlisted.png" in made.said
        link = made.folder / "images/nothing.png"
        assert link.is_symlink() and link.resolve() == source / "images/default/nothing.png"
        assert made.prepare(tmp_path / "prepared").pairs == {"train": 5, "val": 1, "test": 0}

    @pytest.mark.parametrize(
        ("options", "of_box"),
        [
            ((), "void"),
            (("--boxes", "fill"), "void"),
            (("--boxes", "fill", "--overlap", "smallest"), "car"),
            (("--boxes", "fill", "--overlap", "last"), "road"),
            (("--overlap", "smallest"), "void"),
            (("--boxes", "leave-out"), "road"),
        ],
    )
    def test_a_box_over_a_polygon_follows_the_rule(
        self, source: Path, run: Run, options: tuple[str, ...], of_box: str
    ) -> None:
        drawn = [
            {"category_id": 2, "segmentation": [], "bbox": [4.0, 3.0, 6.0, 5.0]},
            {"category_id": 1, "segmentation": [rectangle(0, 0, 20, 12)]},
        ]
        replicas.image(source / "a.png")
        replicas.coco(source / "a.json", {"a.png": drawn}, {1: "road", 2: "car"})
        made = run(*options)
        box = covered((4, 3, 10, 8))
        assert made.where("a", of_box)[box].all() and made.where("a", "road")[~box].all()

    @pytest.mark.parametrize(("overlap", "of_both"), [("last", "large"), ("smallest", "small"), ("void", "void")])
    def test_overlap_follows_the_rule(self, source: Path, run: Run, overlap: str, of_both: str) -> None:
        replicas.image(source / "a.png")
        drawn = [
            {"category_id": 2, "segmentation": [rectangle(2, 2, 5, 5)]},
            {"category_id": 1, "segmentation": [rectangle(0, 0, 10, 10)]},
        ]
        replicas.coco(source / "any name.json", {"a.png": drawn}, {1: "large", 2: "small"})
        made = run("--overlap", overlap)
        assert (made.where("a", of_both)[2:5, 2:5]).all()

    def test_compressed_runs(self, source: Path, run: Run) -> None:
        """As pycocotools 2.0.11 writes them for a mask with a hole."""
        replicas.image(source / "a.png")
        drawn = [{"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": COMPRESSED}}]
        replicas.coco(source / "all.json", {"a.png": drawn}, {1: "one"})
        assert (run().where("a", "one") == HOLE).all()

    def test_overlap_can_be_refused(self, source: Path, refused: Callable[..., str]) -> None:
        replicas.image(source / "a.png")
        drawn = [{"category_id": one, "segmentation": [rectangle(0, 0, one, 4)]} for one in (1, 2)]
        replicas.coco(source / "all.json", {"a.png": drawn}, {1: "one", 2: "two"})
        assert "4 pixels of 1 images lie in shapes of two classes" in refused("--overlap", "refuse")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"category_id": 3}, "unknown category (1)"),
            ({"segmentation": [[1.0, 1.0, 2.0, 2.0]]}, "three points at least"),
            ({"segmentation": [[1.0, 1.0, 2.0, 2.0, 3.0]]}, "three points at least"),
            ({"segmentation": {"size": [5, 5], "counts": [25]}}, "RLE of size [5, 5]"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1, 2]}}, "RLE of 3 pixels"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": ""}}, "RLE of 0 pixels"),
            ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "garbage!!"}}, "RLE with the character"),
            ({"segmentation": [["1", "1", "5", "1", "5", "5"]]}, "expected numbers"),
            ({"segmentation": [[1, 1, float("nan"), 1, 5, 5]]}, "expected numbers"),
            ({"bbox": [1, 2, 3]}, "expected x, y, width and height"),
            ({"bbox": [5, 5, -3, -3]}, "a box of width -3"),
            ({"image_id": 99}, "of images that it does not list"),
        ],
    )
    def test_what_cannot_be_right_is_refused(
        self, source: Path, refused: Callable[..., str], change: dict[str, Any], said: str
    ) -> None:
        replicas.image(source / "a.png")
        replicas.coco(source / "all.json", {"a.png": [{"category_id": 1, "segmentation": []} | change]}, {1: "one"})
        assert said in refused()

    def test_images_found_in_other_folders_than_stated_are_told(self, source: Path, run: Run) -> None:
        drawn = [{"category_id": 1, "segmentation": [rectangle(0, 0, 4, 3)]}]
        stated = {"seq1/a.png": drawn, "data/seq2/b.png": drawn, "/home/me/photos/c.png": drawn, "d.png": drawn}
        for index, place in enumerate(("seq2/a.png", "seq2/b.png", "seq2/c.png", "seq2/d.png")):
            replicas.image(source / "pictures" / place, shade=index)
        replicas.coco(source / "all.json", stated, {1: "one"})
        said = run().said
        assert "LOOK: 2 images were found by their names alone, in other folders than the annotations say" in said
        assert "pictures/seq2/a.png for seq1/a.png, pictures/seq2/c.png for /home/me/photos/c.png" in said

    def test_all_missing_images_are_named_at_once(self, source: Path, refused: Callable[..., str]) -> None:
        replicas.coco(source / "all.json", {"a.png": [], "b/c.png": []}, {1: "one"})
        assert "missing image (2)" in (said := refused()) and "b/c.png" in said

    def test_images_of_one_name_are_refused(self, source: Path, refused: Callable[..., str]) -> None:
        for name in ("a.png", "a.bmp"):
            replicas.image(source / name)
        drawn = [{"category_id": 1, "segmentation": [rectangle(0, 0, 4, 3)]}]
        replicas.coco(source / "all.json", {"a.png": drawn, "a.bmp": drawn}, {1: "one"})
        assert "equal names (1)" in refused()

    @pytest.mark.parametrize("orientation", [6, 8])
    def test_labels_drawn_on_the_stored_image_are_turned_with_it(
        self, source: Path, run: Run, tmp_path: Path, orientation: int
    ) -> None:
        for name in ("a.jpg", "b.jpg"):
            replicas.image(source / name, orientation=orientation)
        drawn = [{"category_id": 1, "segmentation": [rectangle(0, 0, 4, 3)]}]
        replicas.coco(source / "all.json", {"a.jpg": drawn, "b.jpg": drawn}, {1: "one"})
        made = run()
        expected = np.rot90(covered((0, 0, 4, 3)), -1 if orientation == 6 else 1)
        assert (made.where("a", "one") == expected).all()
        assert "2 labels were turned" in made.said
        made.prepare(tmp_path / "prepared")

    def test_a_size_that_no_turn_explains_is_refused(self, source: Path, refused: Callable[..., str]) -> None:
        replicas.image(source / "a.png", size=(30, 30))
        drawn = [{"category_id": 1, "segmentation": [rectangle(0, 0, 4, 3)]}]
        replicas.coco(source / "all.json", {"a.png": drawn}, {1: "one"})
        assert "the export says 20x12, the image is 30x30" in refused()


@needs_formats
class TestRoboflow:
    def test_categories_from_zero_and_splits(self, source: Path, run: Run, tmp_path: Path) -> None:
        """Roboflow's category 0 is the name of the project; datumaro takes a category 0 for none at all."""
        for subset in ("train", "valid", "test"):
            replicas.image(source / subset / f"{subset}_jpg.rf.0a1b.jpg")
            drawn = [{"category_id": 1, "segmentation": [rectangle(1, 1, 6, 6)]}]
            replicas.coco(
                source / subset / "_annotations.coco.json",
                {f"{subset}_jpg.rf.0a1b.jpg": drawn},
                {0: "pets", 1: "cat"},
                supercategory="pets",
            )
        made = run()
        assert made.classes == ["background", "cat"]
        assert (made.where("val/valid_jpg.rf.0a1b", "cat") == covered((1, 1, 6, 6))).all()
        assert "'pets', as the parent of the classes, is none itself" in made.said
        assert made.prepare(tmp_path / "prepared").pairs == {"train": 1, "val": 1, "test": 1}

    def test_a_parent_called_as_a_class_is_not_that_class(self, source: Path, run: Run) -> None:
        replicas.image(source / "train/a.jpg")
        drawn = [{"category_id": number, "segmentation": [rectangle(number, 1, number + 1, 6)]} for number in (1, 2)]
        file = source / "train/_annotations.coco.json"
        replicas.coco(file, {"a.jpg": drawn}, {0: "facade", 1: "door", 2: "facade"}, supercategory="facade")
        made = run()
        assert made.classes == ["background", "door", "facade"]
        assert (made.where("a", "facade") == covered((2, 1, 3, 6))).all()

    def test_a_category_zero_that_is_drawn_is_a_class(self, source: Path, run: Run) -> None:
        replicas.image(source / "train/a.jpg")
        drawn = [{"category_id": 0, "segmentation": [rectangle(1, 1, 6, 6)]}]
        replicas.coco(
            source / "train/_annotations.coco.json", {"a.jpg": drawn}, {0: "pet", 1: "cat"}, supercategory="pet"
        )
        made = run()
        assert made.classes == ["background", "pet", "cat"]
        assert (made.where("a", "pet") == covered((1, 1, 6, 6))).all()
        assert "classes without a pixel: cat" in made.said


LABELS = {"car": "#ff0000", "road": "#804080"}


@needs_formats
class TestCvat:
    def test_shapes_layers_and_what_is_no_mask(self, source: Path, run: Run, tmp_path: Path) -> None:
        def polygon(label: str, points: list[float], z_order: int = 0) -> str:
            return f'<polygon label="{label}" points="{replicas.cvat_points(points)}" z_order="{z_order}"></polygon>'

        shapes = {
            "layers.png": [
                polygon("car", rectangle(0, 0, 8, 8), 1),
                polygon("road", rectangle(4, 4, 12, 12), 0),
                '<polyline label="road" points="1,1;5,5" z_order="0"></polyline>',
                '<points label="car" points="3,3" z_order="0"></points>',
                '<tag label="car"></tag>',
                '<cuboid label="car" xtl1="1"></cuboid>',
            ],
            "masks.png": [replicas.cvat_mask("car", HOLE)],
            "sub folder/boxes.png": ['<box label="car" xtl="2" ytl="3" xbr="6" ybr="7" z_order="0"></box>'],
            "ellipse.png": ['<ellipse label="road" cx="10" cy="6" rx="8" ry="4" z_order="0"></ellipse>'],
            "leer é.png": [],
        }
        for name in shapes:
            replicas.image(source / "images" / name)
        replicas.cvat(source / "annotations.xml", shapes, LABELS)
        made = run()
        assert [(line.name, line.colour) for line in read_classes(made.folder / "classes.txt")] == [
            ("background", (0, 0, 0)),
            ("car", (255, 0, 0)),
            ("road", (128, 64, 128)),
        ]
        assert (made.where("layers", "car") == covered((0, 0, 8, 8))).all()
        assert (made.where("layers", "road") == covered((4, 4, 12, 12)) & ~covered((0, 0, 8, 8))).all()
        assert (made.where("masks", "car") == HOLE).all()
        assert (made.where("sub folder/boxes", "void") == covered((2, 3, 6, 7))).all()
        rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        inside = ((columns - 10) / 8) ** 2 + ((rows - 6) / 4) ** 2
        drawn = made.where("ellipse", "road")
        assert drawn[inside < 0.8].all() and not drawn[inside > 1.25].any()
        for kind in ("1 polyline", "1 points", "1 label", "1 cuboid"):
            assert f"left out: {kind}" in made.said
        assert made.prepare(tmp_path / "prepared").pairs["val"] == 1

    @pytest.mark.parametrize(("boxes", "label"), [("fill", "car"), ("leave-out", "background"), ("void", "void")])
    def test_boxes_follow_the_rule(self, source: Path, run: Run, boxes: str, label: str) -> None:
        replicas.image(source / "images/a.png")
        box = '<box label="car" xtl="2" ytl="3" xbr="6" ybr="7" z_order="0"></box>'
        replicas.cvat(source / "annotations.xml", {"a.png": [box]}, LABELS, meta="job")
        made = run("--boxes", boxes)
        assert made.where("a", label)[3:7, 2:6].all()
        assert "boxes: 1 have no mask" in made.said

    @pytest.mark.parametrize(("boxes", "label"), [("fill", "car"), ("leave-out", "road"), ("void", "void")])
    @pytest.mark.parametrize(("z_order", "above"), [(5, True), (0, True), (-1, False)])
    @pytest.mark.parametrize("group", [0, 3])
    def test_a_box_lies_above_and_below_polygons_as_it_was_drawn(
        self, source: Path, run: Run, boxes: str, label: str, z_order: int, above: bool, group: int
    ) -> None:
        replicas.image(source / "images/a.png")
        shapes = [
            f'<polygon label="road" points="0,0;20,0;20,12;0,12" z_order="0" group_id="{group}"></polygon>',
            f'<box label="car" xtl="2" ytl="3" xbr="6" ybr="7" z_order="{z_order}" group_id="{group}"></box>',
        ]
        replicas.cvat(source / "annotations.xml", {"a.png": shapes}, LABELS)
        made = run("--boxes", boxes)
        box = covered((2, 3, 6, 7))
        assert made.where("a", label if above else "road")[box].all() and made.where("a", "road")[~box].all()
        assert "boxes: 1 have no mask" in made.said
        assert ("overlap: 16 pixels" in made.said) == (boxes != "leave-out")

    @pytest.mark.parametrize("z_order", [5, -1])
    def test_a_box_over_its_own_class_leaves_it(self, source: Path, run: Run, z_order: int) -> None:
        replicas.image(source / "images/a.png")
        shapes = [
            '<polygon label="car" points="0,0;4,0;4,12;0,12" z_order="0"></polygon>',
            f'<box label="car" xtl="2" ytl="3" xbr="6" ybr="7" z_order="{z_order}"></box>',
        ]
        replicas.cvat(source / "annotations.xml", {"a.png": shapes}, LABELS)
        made = run()
        assert (made.where("a", "car") == covered((0, 0, 4, 12))).all()
        assert (made.where("a", "void") == covered((4, 3, 6, 7))).all()
        assert "overlap:" not in made.said

    @pytest.mark.parametrize(
        ("shape", "said"),
        [
            ('<polygon label="lorry" points="1,1;2,2;3,1" z_order="0"></polygon>', "unknown label (1)"),
            ('<polygon label="car" points="1,1;2,2" z_order="0"></polygon>', "three points at least"),
            ('<polygon label="car" points="1,1;2;3,1" z_order="0"></polygon>', "x and y of each"),
            ('<mask label="car" rle="1, 2" left="0" top="0" width="3" height="3" z_order="0"/>', "runs of 3 pixels"),
            ('<mask label="car" rle="0, 9" left="18" top="10" width="3" height="3" z_order="0"/>', "leaves the image"),
            ('<mask label="car" rle="x" left="0" top="0" width="1" height="1" z_order="0"/>', "invalid literal"),
        ],
    )
    def test_what_cannot_be_right_is_refused(
        self, source: Path, refused: Callable[..., str], shape: str, said: str
    ) -> None:
        replicas.image(source / "images/a.png")
        replicas.cvat(source / "annotations.xml", {"a.png": [shape], "gone.png": []}, LABELS)
        assert said in (told := refused()) and "missing image (1)" in told

    def test_an_orientation_that_is_text_is_none(self, source: Path, run: Run) -> None:
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\x006\0\0\0" + bytes(4)
        replicas.image(source / "images/a.png")
        Image.open(source / "images/a.png").save(source / "images/a.png", exif=exif)
        square = '<polygon label="car" points="0,0;8,0;8,8;0,8" z_order="0"></polygon>'
        replicas.cvat(source / "annotations.xml", {"a.png": [square]}, LABELS)
        assert (run().where("a", "car") == covered((0, 0, 8, 8))).all()

    def test_a_turned_box(self, source: Path, run: Run) -> None:
        replicas.image(source / "images/a.png")
        box = '<box label="car" xtl="4" ytl="4" xbr="12" ybr="8" rotation="90" z_order="0"/>'
        replicas.cvat(source / "annotations.xml", {"a.png": [box]}, LABELS)
        assert (run("--boxes", "fill").where("a", "car") == covered((6, 2, 10, 10))).all()

    def test_videos_are_refused(self, source: Path, refused: Callable[..., str]) -> None:
        (source / "annotations.xml").write_text("<annotations><meta><task/></meta><track id='0'/></annotations>")
        assert "export it as CVAT for images" in refused()


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:255,0,0::\nroad:128,64,128::\n"


def coloured(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    return np.array([(0, 0, 0), (255, 0, 0), (128, 64, 128), (1, 2, 3)], np.uint8)[labels]


@needs_formats
class TestVoc:
    def test_masks_in_the_colours_of_the_list(self, source: Path, run: Run, tmp_path: Path) -> None:
        labels = {"a": HOLE * 1, "b": covered((0, 0, 9, 9)) * 2, "naïve/c": HOLE * 2}
        lists = {"train": ["a", "b"], "val": ["naïve/c"], "trainval": ["a", "b", "naïve/c"]}
        replicas.voc(source, {name: coloured(label) for name, label in labels.items()}, lists, LABELMAP)
        made = run()
        assert made.classes == ["background", "car", "road"]
        places = [
            path.relative_to(made.folder / "labels").as_posix() for path in (made.folder / "labels").rglob("*.png")
        ]
        assert sorted(places) == ["train/a.png", "train/b.png", "val/c.png"]
        assert (made.label("train/a") == labels["a"]).all() and (made.label("val/c") == labels["naïve/c"]).all()
        assert made.prepare(tmp_path / "prepared").pairs == {"train": 2, "val": 1, "test": 0}

    def test_unknown_colours_and_missing_masks_are_refused(self, source: Path, refused: Callable[..., str]) -> None:
        replicas.voc(source, {"a": coloured(HOLE * 3)}, {"train": ["a", "b"]}, LABELMAP)
        said = refused()
        assert "(1, 2, 3): 71 pixels, such as in a" in said and "missing mask (1)" in said

    def test_colours_without_a_list_of_them_are_refused(self, source: Path, refused: Callable[..., str]) -> None:
        replicas.voc(source, {"a": coloured(HOLE * 1)}, {"train": ["a"]}, LABELMAP)
        (source / "labelmap.txt").unlink()
        assert "there is no labelmap.txt (lines of `name:red,green,blue::`)" in refused()

    def test_one_colour_for_two_classes_is_refused(self, source: Path, refused: Callable[..., str]) -> None:
        replicas.voc(source, {"a": coloured(HOLE * 1)}, {"train": ["a"]}, LABELMAP + "lorry:255,0,0::\n")
        assert "gives one colour to several classes: (255, 0, 0)" in refused()

    def test_void_of_the_challenge_is_void(self, source: Path, run: Run) -> None:
        mask = coloured(HOLE * 1)
        mask[0] = (224, 224, 192)
        replicas.voc(source, {"a": mask}, {"train": ["a"]}, LABELMAP + "ignored:224,224,192::\n")
        made = run()
        assert made.classes == ["background", "car", "road"] and made.where("a", "void")[0].all()
        assert "'ignored' is void" in made.said


@needs_formats
class TestLabelme:
    def test_all_shapes(self, source: Path, run: Run, tmp_path: Path) -> None:
        replicas.labelme(
            source,
            "a",
            [
                {"label": "cell", "shape_type": "polygon", "points": replicas.pairs(rectangle(1, 1, 6, 6))},
                {"label": "hole", "shape_type": "polygon", "points": replicas.pairs(rectangle(2, 2, 4, 4))},
                {"label": "cell", "shape_type": "point", "points": [[3, 3]]},
                {"label": "cell", "shape_type": "linestrip", "points": [[3, 3], [5, 5]]},
                {"label": "cell", "shape_type": "rectangle", "points": [[18, 9], [15, 5]]},
            ],
        )
        inner = HOLE[2:10, 2:12]
        shapes = [{"label": "cell", "shape_type": "mask", "points": [[2, 2], [11, 9]], "mask": replicas.encoded(inner)}]
        replicas.labelme(source, "b ü", shapes)
        replicas.labelme(source, "c", [{"label": "cell", "shape_type": "circle", "points": [[10, 6], [10, 10]]}])
        replicas.labelme(source, "d", [])
        made = run()
        assert made.classes == ["background", "cell", "hole"]
        assert (made.where("a", "hole") == covered((2, 2, 4, 4))).all()
        assert (made.where("a", "cell") == covered((1, 1, 6, 6)) & ~covered((2, 2, 4, 4))).all()
        assert (made.where("a", "void") == covered((15, 5, 18, 9))).all()
        assert (made.where("b ü", "cell") == HOLE).all()
        assert made.where("c", "cell")[6, 10] and 40 < made.where("c", "cell").sum() < 60
        assert "left out: 1 point" in made.said and "left out: 1 linestrip" in made.said
        assert made.prepare(tmp_path / "prepared").pairs["train"] == 3

    def test_images_in_a_folder_beside_the_annotations(self, source: Path, run: Run) -> None:
        points = replicas.pairs(rectangle(1, 1, 6, 6))
        for subset in ("train", "val"):
            replicas.labelme(source / subset / "json", "a", [{"label": subset, "points": points}])
            replicas.image(source / subset / "images/a.jpg", shade=len(subset))
            (source / subset / "json/a.jpg").unlink()
            content = json.loads((source / subset / "json/a.json").read_text())
            (source / subset / "json/a.json").write_text(json.dumps(content | {"imagePath": "..\\images\\a.jpg"}))
        made = run()
        for subset in ("train", "val"):
            assert (made.where(f"{subset}/a", subset) == covered((1, 1, 6, 6))).all()
            assert (made.folder / f"images/{subset}/a.jpg").resolve() == source / subset / "images/a.jpg"
        assert "LOOK" not in made.said

    def test_a_rectangle_drawn_last_is_void_or_filled(self, source: Path, run: Run) -> None:
        shapes = [
            {"label": "tissue", "shape_type": "polygon", "points": replicas.pairs(rectangle(0, 0, 20, 12))},
            {"label": "cell", "shape_type": "rectangle", "points": [[2, 2], [6, 6]]},
        ]
        replicas.labelme(source, "a", shapes)
        assert (run("--boxes", "fill").where("a", "cell") == covered((2, 2, 6, 6))).all()

    def test_what_labelme_ignores_is_void(self, source: Path, run: Run) -> None:
        points = replicas.pairs(rectangle(1, 1, 6, 6))
        replicas.labelme(source, "a", [{"label": "cell", "shape_type": "polygon", "points": points}])
        replicas.labelme(source, "b", [{"label": "__ignore__", "shape_type": "polygon", "points": points}])
        made = run()
        assert made.classes == ["background", "cell"]
        assert (made.where("b", "void") == covered((1, 1, 6, 6))).all()

    def test_holes_may_be_named_as_background(self, source: Path, run: Run) -> None:
        replicas.labelme(
            source,
            "a",
            [
                {"label": "cell", "shape_type": "polygon", "points": replicas.pairs(rectangle(1, 1, 6, 6))},
                {"label": "_background_", "shape_type": "polygon", "points": replicas.pairs(rectangle(2, 2, 4, 4))},
            ],
        )
        made = run()
        assert made.classes == ["_background_", "cell"]
        assert (made.where("a", "cell") == covered((1, 1, 6, 6)) & ~covered((2, 2, 4, 4))).all()

    @pytest.mark.parametrize(
        ("shape", "said"),
        [
            ({"shape_type": "polygon", "points": [[1, 1], [2, 2]]}, "three at least"),
            ({"shape_type": "star", "points": []}, "not known"),
            ({"shape_type": "polygon", "points": [[1, 1], [2, 2], [3, float("inf")]]}, "no numbers"),
            ({"shape_type": "mask", "points": [[18, 9], [19, 10]], "mask": replicas.encoded(HOLE)}, "leaves the image"),
        ],
    )
    def test_what_cannot_be_right_is_refused(
        self, source: Path, refused: Callable[..., str], shape: dict[str, Any], said: str
    ) -> None:
        replicas.labelme(source, "a", [{"label": "cell"} | shape])
        assert said in refused() and "bad shape (1)" in refused()


@needs_formats
class TestYolo:
    def write(self, source: Path, lines: dict[str, str], names: object = ("cat", "dog")) -> None:
        for place, text in lines.items():
            replicas.image(source / f"images/{place}.jpg")
            if text:
                (source / f"labels/{place}.txt").parent.mkdir(parents=True, exist_ok=True)
                (source / f"labels/{place}.txt").write_text(text)
        content = {"path": "/somewhere/else", "train": "images/train", "val": "images/val", "names": names}
        (source / "data.yaml").write_text(json.dumps(content))

    def shares(self, points: list[float]) -> str:
        return " ".join(str(value / (HEIGHT if index % 2 else WIDTH)) for index, value in enumerate(points))

    def test_polygons_boxes_and_images_without_lines(self, source: Path, run: Run, tmp_path: Path) -> None:
        polygon = self.shares(rectangle(1, 1, 6, 6))
        lines = {
            "train/a": f"1 {polygon}\n",
            "train/b": "0 0.5 0.5 0.2 0.5\n",
            "val/ç": f"0 {self.shares(BOW)}",
            "val/d": "",
        }
        self.write(source, lines, {0: "cat", 1: "dog"})
        made = run()
        assert made.classes == ["background", "cat", "dog"]
        assert (made.where("train/a", "dog") == covered((1, 1, 6, 6))).all()
        assert (made.where("train/b", "void") == covered((8, 3, 12, 9))).all()
        assert made.where("val/ç", "cat")[6, 1] and not made.where("val/ç", "cat")[1, 6]
        assert (made.label("val/d") == 0).all() and "1 images have none at all" in made.said
        assert made.prepare(tmp_path / "prepared").pairs == {"train": 2, "val": 2, "test": 0}

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("2 0 0 1 0 1 1", "names has 0 to 1"),
            ("-1 0 0 1 0 1 1", "names has 0 to 1"),
            ("0 0 0 1", "3 numbers"),
            ("0 nan 0 1 0 1 1", "beyond 0 to 1"),
            ("0 0 0 1 0 1", "5 numbers"),
            ("0 0 0 20 0 20 12", "beyond 0 to 1"),
            ("cat 0 0 1 0 1 1", "expected a class and numbers"),
        ],
    )
    def test_what_cannot_be_right_is_refused(
        self, source: Path, refused: Callable[..., str], line: str, said: str
    ) -> None:
        self.write(source, {"train/a": f"{line}\n", "val/b": ""})
        told = refused()
        assert said in told


@needs_formats
class TestDetection:
    def test_an_older_labelme_is_read_by_datumaro(self, source: Path, run: Run) -> None:
        replicas.image(source / "Images/day/a.jpg")
        points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in replicas.pairs(rectangle(1, 1, 6, 6)))
        (source / "Annotations/day").mkdir(parents=True)
        (source / "Annotations/day/a.xml").write_text(
            f"<annotation><filename>a.jpg</filename><folder>day</folder><imagesize><nrows>{HEIGHT}</nrows><ncols>{WIDTH}"
            f"</ncols></imagesize><object><name>car</name><id>0</id><polygon>{points}</polygon></object></annotation>"
        )
        made = run()
        assert (made.where("a", "car") == covered((1, 1, 6, 6))).all()

    def test_two_formats_are_not_guessed(self, source: Path, refused: Callable[..., str]) -> None:
        replicas.labelme(source, "a", [])
        replicas.coco(source / "all.json", {"a.jpg": []}, {1: "one"})
        assert "may be several formats: coco (all.json); labelme (a.json)" in refused()

    def test_nothing_and_the_wrong_format(self, source: Path, refused: Callable[..., str]) -> None:
        (source / "notes.json").write_text("[]")
        assert "none of coco, roboflow-coco, cvat" in refused()
        assert "nothing of the format cvat" in refused("--format", "cvat")

    def test_results_are_never_written_over(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data/mine.txt").write_text("precious")
        done = call(str(source), "--output", str(tmp_path / "data"))
        assert done.returncode == 2 and "exists already" in done.stderr
        assert (tmp_path / "data/mine.txt").read_text() == "precious"


def test_without_the_environment_the_way_to_make_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    command = [sys.executable, "-m", "pipeline.commands.import_data", str(tmp_path), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "make formats" in done.stderr and str(REQUIREMENTS) in done.stderr


def test_every_version_is_pinned() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 20 and all(line.count("==") == 1 for line in lines)
    assert any(line.startswith("datumaro==") for line in lines)
