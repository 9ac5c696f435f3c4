"""What exports may hold besides what they should: refused in words, with everything of one kind at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pipeline.data.importing import replicas
from tests.pipeline.data.importing.importer import Run, call, needs_formats
from tests.pipeline.data.importing.replicas import covered, rectangle

pytestmark = needs_formats

Refused = Callable[..., str]
SQUARE = {"category_id": 1, "segmentation": [rectangle(1, 1, 6, 6)]}
HUGE = [0.0, 0.0, 1e9, 0.0, 1e9, 1e9]


def coco(source: Path, change: Callable[[Any], object] = lambda content: None) -> None:
    """One image with one square, and a change of the JSON."""
    replicas.image(source / "a.png")
    replicas.coco(source / "all.json", {"a.png": [SQUARE]}, {1: "one", 2: "two"})
    content = json.loads((source / "all.json").read_text())
    change(content)
    (source / "all.json").write_text(json.dumps(content))


class TestRules:
    def test_polygons_of_one_annotation_make_no_hole_and_one_on_top_does(self, source: Path, run: Run) -> None:
        """As COCO's tools have it: the parts of an annotation are united."""
        inner, outer = rectangle(3, 3, 6, 6), rectangle(1, 1, 10, 10)
        for name in ("filled.png", "holed.png"):
            replicas.image(source / name)
        drawn = {
            "filled.png": [{"category_id": 2, "segmentation": [outer, inner]}],
            "holed.png": [{"category_id": 2, "segmentation": [outer]}, {"category_id": 1, "segmentation": [inner]}],
        }
        replicas.coco(source / "all.json", drawn, {1: "background", 2: "ring"})
        made = run("--overlap", "last")
        assert (made.where("filled", "ring") == covered((1, 1, 10, 10))).all()
        assert (made.where("holed", "ring") == covered((1, 1, 10, 10)) & ~covered((3, 3, 6, 6))).all()

    def test_two_squares_apart_in_one_annotation_keep_the_ground_between_them(self, source: Path, run: Run) -> None:
        replicas.image(source / "a.png")
        parts = [rectangle(1, 1, 4, 4), rectangle(8, 1, 11, 4)]
        replicas.coco(source / "all.json", {"a.png": [{"category_id": 1, "segmentation": parts}]}, {1: "one"})
        assert (run().where("a", "one") == covered((1, 1, 4, 4), (8, 1, 11, 4))).all()

    def test_what_is_drawn_outside_is_said(self, source: Path, run: Run) -> None:
        outside = {"category_id": 2, "segmentation": [rectangle(30, 30, 40, 40)]}
        half = {"category_id": 1, "segmentation": [rectangle(-10, -10, 4, 4)]}
        replicas.image(source / "a.png")
        replicas.coco(source / "all.json", {"a.png": [outside, half]}, {1: "one", 2: "two"})
        made = run()
        assert (made.where("a", "one") == covered((0, 0, 4, 4))).all()
        assert "1 annotations are so small or so far outside" in made.said and "without a pixel: two" in made.said

    @pytest.mark.parametrize(("subset", "told"), [("train", "val: 20% of those of train"), ("val", "train: 80%")])
    def test_a_split_that_lacks_is_taken_from_the_other(
        self, source: Path, run: Run, tmp_path: Path, subset: str, told: str
    ) -> None:
        for one in (subset, "test"):
            names = [f"{one}{index}.png" for index in range(5)]
            for index, name in enumerate(names):
                replicas.image(source / "images" / one / name, shade=index)
            replicas.coco(source / f"annotations/instances_{one}.json", {name: [SQUARE] for name in names}, {1: "one"})
        made = run()
        assert f"the export has no images for {told}" in made.said
        assert made.prepare(tmp_path / "prepared").pairs == {"train": 4, "val": 1, "test": 5}

    def test_what_is_in_no_annotation_can_be_void(self, source: Path, run: Run) -> None:
        coco(source)
        made = run("--background", "void")
        assert made.classes == ["one", "two"] and (made.where("a", "void") == ~covered((1, 1, 6, 6))).all()


class TestEveryFormat:
    def test_a_background_that_is_no_class(self, source: Path, refused: Refused) -> None:
        coco(source)
        assert "--background: 'ground' is no class; the export has one, two, or write void" in refused(
            "--background", "ground"
        )

    def test_results_in_the_export_itself_and_an_export_that_is_not_there(self, source: Path, tmp_path: Path) -> None:
        coco(source)
        done = call(str(source), "--output", str(source / "data"))
        assert done.returncode == 2 and "lies in the export" in done.stderr and not (source / "data").exists()
        done = call(str(tmp_path / "export.zip"), "--output", str(tmp_path / "data"))
        assert done.returncode == 2 and "no such folder (unpack an archive first)" in done.stderr

    def test_a_place_that_cannot_be_written(self, source: Path, tmp_path: Path) -> None:
        coco(source)
        (tmp_path / "file").write_text("mine")
        done = call(str(source), "--output", str(tmp_path / "file/data"))
        assert done.returncode == 2 and "cannot be written" in done.stderr and done.stderr.count("\n") == 1

    def test_two_classes_of_one_name(self, source: Path, refused: Refused) -> None:
        replicas.image(source / "images/a.png")
        box = '<box label="car" xtl="2" ytl="3" xbr="6" ybr="7" z_order="0"></box>'
        replicas.cvat(source / "annotations.xml", {"a.png": [box]}, {"car": "#ff0000", " car": "#00ff00"})
        assert "two classes of one name" in refused()

    def test_an_export_on_which_nothing_is_drawn(self, source: Path, refused: Refused) -> None:
        coco(source, lambda content: content.update(annotations=[]))
        assert "nothing is drawn on any of the 1 images" in refused()

    @pytest.mark.parametrize("tool", ["voc", "yolo"])
    def test_several_exports_in_one_folder(self, source: Path, refused: Refused, tool: str) -> None:
        for part in ("one", "other"):
            if tool == "yolo":
                replicas.image(source / part / "images/a.jpg")
                (source / part / "data.yaml").write_text("names: [a]\ntrain: images\n")
            else:
                mask = np.zeros((replicas.HEIGHT, replicas.WIDTH, 3), np.uint8)
                replicas.voc(source / part, {"a": mask}, {"train": ["a"]}, "background:0,0,0::\n")
        assert f"several exports of the format {tool}: one" in refused()

    @pytest.mark.parametrize("tool", ["coco", "cvat", "labelme", "labelme-xml", "voc", "yolo"])
    def test_all_damaged_images_are_named_at_once(self, source: Path, refused: Refused, tool: str) -> None:
        names, points = ("a", "b", "c"), rectangle(1, 1, 6, 6)
        folder = source / {"voc": "JPEGImages", "labelme-xml": "Images/day"}.get(tool, "images")
        polygon = {"label": "one", "shape_type": "polygon", "points": replicas.pairs(points)}
        square = f'<polygon label="one" points="{replicas.cvat_points(points)}" z_order="0"></polygon>'
        for name in names:
            replicas.image(folder / f"{name}.jpg")
            if tool == "labelme":
                replicas.labelme(folder, name, [polygon])
            elif tool == "labelme-xml":
                corners = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in replicas.pairs(points))
                (source / "Annotations/day").mkdir(parents=True, exist_ok=True)
                (source / f"Annotations/day/{name}.xml").write_text(
                    f"<annotation><filename>{name}.jpg</filename><folder>day</folder><object><name>one</name><id>0</id>"
                    f"<polygon>{corners}</polygon></object></annotation>"
                )
            elif tool == "yolo":
                (source / "labels").mkdir(exist_ok=True)
                (source / f"labels/{name}.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
        if tool == "coco":
            replicas.coco(source / "all.json", {f"{name}.jpg": [SQUARE] for name in names}, {1: "one"})
        elif tool == "cvat":
            replicas.cvat(source / "all.xml", {f"{name}.jpg": [square] for name in names}, {"one": "#ff0000"})
        elif tool == "voc":
            mask = np.zeros((replicas.HEIGHT, replicas.WIDTH, 3), np.uint8)
            mask[2:5] = (255, 0, 0)
            replicas.voc(source, dict.fromkeys(names, mask), {"train": names}, "background:0,0,0::\none:255,0,0::\n")
        elif tool == "yolo":
            (source / "data.yaml").write_text("names: [one]\ntrain: images\n")
        for name in ("b", "c"):
            (folder / f"{name}.jpg").write_bytes(b"no image")
        said = refused()
        assert "unreadable (2)" in said and f"{folder / 'b.jpg'}: no image, or a damaged one" in said


class TestCoco:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda content: content["annotations"][0].update(image_id=[7]), "image_id: expected a number or a name"),
            (lambda content: content["annotations"][0].update(category_id=True), "category_id: expected a number"),
            (lambda content: content["images"][0].update(id={}), "images: id: expected a number or a name, got {}"),
            (lambda content: content["categories"][0].update(supercategory=[1]), "supercategory: expected a number"),
            (lambda content: content["annotations"].append(5), "annotations: expected objects, got 5"),
            (lambda content: content["annotations"][0].update(category_id="1"), "unknown category (1)"),
            (lambda content: content["annotations"][0].update(iscrowd="yes"), "invalid literal"),
            (lambda content: content["annotations"][0].update(iscrowd=2), "iscrowd; expected 0 or 1, got 2"),
            (lambda content: content["annotations"][0].update(segmentation=[HUGE]), "a polygon that reaches 1e+09"),
            (lambda content: content["categories"][1].update(name=None), "expected a number and a name"),
            (lambda content: content["categories"][1].update(id=1), "the number 1 is 'one' and 'two'"),
            (lambda content: content.pop("categories"), "unknown category (1)"),
            (lambda content: content["images"][0].update(width="20"), "height 12, width '20'"),
            (lambda content: content["images"][0].pop("file_name"), "missing image (1)"),
            (lambda content: content["images"][0].update(file_name="../../etc/passwd.png"), "missing image (1)"),
            (lambda content: content["images"].append(content["images"][0] | {"id": 99}), "listed twice (1)"),
            (lambda content: content.update(images=[], annotations=[]), "lists no image"),
        ],
    )
    def test_what_cannot_be_right_is_refused(
        self, source: Path, refused: Refused, change: Callable[[Any], object], said: str
    ) -> None:
        coco(source, change)
        assert said in refused()


class TestCvat:
    @pytest.mark.parametrize(
        ("shape", "change", "said"),
        [
            ("", ('width="20"', 'width="wide"'), "height '12', width 'wide'"),
            ("", ('width="20"', 'width="0"'), "height '12', width '0'"),
            ('<ellipse label="car" cx="x" cy="6" rx="8" ry="4"/>', ("", ""), "ellipse: could not convert"),
            ('<ellipse label="car" z_order="0"/>', ("", ""), "ellipse: could not convert"),
            ('<mask label="car" rle="-5, 14" left="0" top="0" width="3" height="3"/>', ("", ""), "runs of 9 pixels"),
            ('<box label="car" xtl="" ytl="4" xbr="12" ybr="8"/>', ("", ""), "box: could not convert"),
            ('<box label="car" xtl="nan" ytl="4" xbr="12" ybr="8"/>', ("", ""), "expected finite numbers"),
            ('<polygon label="car" points="0,0;1e9,0;1e9,1e9" z_order="0"/>', ("", ""), "reaches 1e+09"),
            ("", ("<labels>", "<labels><!--"), "none of coco"),
        ],
    )
    def test_what_cannot_be_right_is_refused(
        self, source: Path, refused: Refused, shape: str, change: tuple[str, str], said: str
    ) -> None:
        replicas.image(source / "images/a.png")
        square = '<polygon label="car" points="1,1;5,1;5,5" z_order="0"></polygon>'
        replicas.cvat(source / "annotations.xml", {"a.png": [square, shape]}, {"car": "#ff0000"})
        text = (source / "annotations.xml").read_text()
        (source / "annotations.xml").write_text(text.replace(*change))
        assert said in refused()


class TestLabelme:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"shapes": [5]}, "expected objects, got 5"),
            ({"shapes": []}, "nothing is labelled in 1 files of labelme"),
            ({"imageHeight": "12"}, "imageHeight '12', imageWidth 20"),
            ({"imageHeight": -5}, "imageHeight -5"),
            ({"imagePath": "C:\\photos\\b.jpg"}, "missing image (1)"),
            ({"shapes": [{"label": None, "shape_type": "polygon", "points": []}]}, "no label"),
            ({"shapes": [{"label": "a", "shape_type": "polygon", "points": None}]}, "bad shape (1)"),
            ({"shapes": [{"label": "a", "shape_type": "circle", "points": [[1, 1], [1e9, 1]]}]}, "reaches 1e+09"),
            ({"shapes": [{"label": "a", "shape_type": "mask", "points": [[1, 1]], "mask": "zzz"}]}, "bad shape (1)"),
        ],
    )
    def test_what_cannot_be_right_is_refused(
        self, source: Path, refused: Refused, change: dict[str, Any], said: str
    ) -> None:
        replicas.labelme(source, "a", [])
        content = json.loads((source / "a.json").read_text())
        (source / "a.json").write_text(json.dumps(content | change))
        assert said in refused()

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("<x>1.0</x>", "<x>left</x>", "datumaro cannot read this as label_me"),
            ("<filename>a.jpg", "<filename>gone.jpg", "missing image (1)"),
        ],
    )
    def test_the_older_ones_xml(self, source: Path, refused: Refused, old: str, new: str, said: str) -> None:
        replicas.image(source / "Images/day/a.jpg")
        points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in replicas.pairs(rectangle(1, 1, 6, 6)))
        text = (
            "<annotation><filename>a.jpg</filename><folder>day</folder><object><name>car</name><id>0</id><polygon>"
            f"{points}</polygon></object></annotation>"
        )
        (source / "Annotations/day").mkdir(parents=True)
        (source / "Annotations/day/a.xml").write_text(text.replace(old, new))
        assert said in refused()


class TestVoc:
    @pytest.mark.parametrize("what", ["no image", "damaged mask", "empty lists"])
    def test_what_lacks_is_refused(self, source: Path, refused: Refused, what: str) -> None:
        mask = np.zeros((replicas.HEIGHT, replicas.WIDTH, 3), np.uint8)
        mask[2:5] = (255, 0, 0)
        lists = {"train": [] if what == "empty lists" else ["a", "b"]}
        replicas.voc(source, {"a": mask, "b": mask}, lists, "background:0,0,0::\ncar:255,0,0::\n")
        if what == "no image":
            (source / "JPEGImages/b.jpg").unlink()
        if what == "damaged mask":
            (source / "SegmentationClass/b.png").write_bytes(b"damaged")
        said = {"no image": "missing image (1)", "damaged mask": "unreadable (1)", "empty lists": "such as train.txt"}
        assert said[what] in refused()


class TestYolo:
    def write(self, source: Path, text: str, line: str = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.3 0.7 0.1 0.5") -> None:
        for subset in ("train", "val"):
            replicas.image(source / f"images/{subset}/a.jpg", shade=len(subset))
        (source / "labels/train").mkdir(parents=True)
        (source / "labels/train/a.txt").write_text(f"{line}\n")
        (source / "data.yaml").write_text(text)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("names: 5", "names: expected a list of names, got 5"),
            ("names: cat", "names: expected a list of names, got cat"),
            ("names: [[a], {b: c}]", "names: expected a list of names"),
            ("names: {0: a, 2: b}", "names: expected the numbers 0 to 1"),
            ("names: [a, a]", "two classes of one name"),
            ("nc: 3\nnames: [a, b]", "nc is 3, and names has 2 classes"),
            ("kpt_shape: [17, 3]\nnames: [a]", "kpt_shape: its lines are boxes and key points"),
            ("names: [a]\ntest: nowhere", "missing images (1)"),
            ("names: [a]\ntest: /", "missing images (1)"),
            ("names: [a]\ntest: ../../..", "missing images (1)"),
            ("names: [a", "data.yaml: cannot be read"),
            ("other: [a]", "expected `names` of the classes"),
            ("names: [a]\ntest: list.txt", "1 images are missing, such as images/gone.jpg"),
        ],
    )
    def test_what_cannot_be_right_is_refused(self, source: Path, refused: Refused, text: str, said: str) -> None:
        self.write(source, f"train: images/train\nval: images/val\n{text}\n")
        (source / "list.txt").write_text("images/train/a.jpg\nimages/gone.jpg\n")
        assert said in refused()

    def test_hidden_files_are_no_images(self, source: Path, run: Run) -> None:
        self.write(source, "train: images/train\nval: images/val\nnames: [a]\n")
        replicas.image(source / "images/train/.ipynb_checkpoints/a-checkpoint.jpg")
        (source / "images/val/._a.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
        (source / "labels/train/._a.txt").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
        made = run()
        images = sorted(path.relative_to(made.folder).as_posix() for path in made.folder.glob("images/**/*.jpg"))
        assert images == ["images/train/a.jpg", "images/val/a.jpg"] and "belong to no image" not in made.said

    def test_labels_that_lie_elsewhere_are_not_taken_for_images_without_any(
        self, source: Path, refused: Refused
    ) -> None:
        self.write(source, "train: images/train\nval: images/val\nnames: [a]\n")
        (source / "labels").rename(source / "annotations")
        assert "nothing is drawn on any of the 2 images that the export lists; expected labels/" in refused()

    def test_paths_of_another_machine_files_of_no_image_and_oriented_boxes(self, source: Path, run: Run) -> None:
        text = "path: /home/me\ntrain: /home/me/sets/images/train\nval: ./images/val\nnames: [a]\n"
        self.write(source, text, "0 0.1 0.25 0.5 0.25 0.5 0.5 0.1 0.5")
        (source / "labels/train/b.txt").write_text("0 0 0 1 0 1 1\n")
        made = run()
        assert (made.where("train/a", "a") == covered((2, 3, 10, 6))).all()
        assert "1 files of labels belong to no image: b.txt" in made.said
        assert "if these are oriented boxes (OBB)" in made.said
