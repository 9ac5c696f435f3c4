"""COCO as it is found: whatever the files are called and wherever the images lie, brought to the form datumaro reads.

datumaro takes the category 0 for none (Roboflow counts from 0), gives annotations in reverse, keeps one of two images
that differ in their endings alone, and wants files in folders of fixed names. So the annotations are written anew with
numbers of our own; what they mean is left to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.importing.export import Export, Picture, Problems, plain_name, stored_size
from pipeline.data.importing.tools.finding import Finder
from serving.contract.errors import UserError, shown

ROBOFLOW = "_annotations.coco.json"
_IDENTITIES = {"images": ("id",), "annotations": ("image_id", "category_id"), "categories": ("id", "supercategory")}


@dataclass
class CocoSubset:
    """One file of annotations in COCO's terms, with numbers of our own.

    Attributes:
        subset: its name.
        labels: names of the classes; class k has the category k + 1.
        pictures: image k has the number k + 1.
        annotations: as COCO has them; `id` grows in the order of the file.
    """

    subset: str
    labels: list[str]
    pictures: list[Picture] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)

    def annotate(self, label: int, segmentation: Any, box: Sequence[float], *, crowd: int = 0) -> None:
        """Add an annotation to the last picture."""
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": len(self.pictures),
                "category_id": label + 1,
                "segmentation": segmentation,
                "bbox": list(box),
                "iscrowd": crowd,
                "area": 0,
            }
        )

    def write(self, folder: Path) -> None:
        """Write what datumaro reads: `annotations/instances_NAME.json`; images need not be there."""
        (folder / "annotations").mkdir(parents=True)
        (folder / "images").mkdir()
        content = {
            "images": [
                {"id": number, "file_name": f"{number}.png", "height": picture.height, "width": picture.width}
                for number, picture in enumerate(self.pictures, start=1)
            ],
            "categories": [{"id": index + 1, "name": f"class {index}"} for index in range(len(self.labels))],
            "annotations": self.annotations,
        }
        (folder / "annotations/instances_all.json").write_text(json.dumps(content), encoding="utf-8")


def is_coco(content: Any) -> bool:
    """Whether what a JSON file holds are annotations of COCO."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def read_coco(source: Path, files: Sequence[Path], problems: Problems) -> tuple[list[CocoSubset], Export]:
    """Read files of annotations.

    Args:
        source: the folder of the export.
        files: of annotations in it.
        problems: gets what is wrong.

    Returns:
        One subset for each file, and the export without its shapes.
    """
    finder = Finder(source)
    contents = {file: _load(file) for file in files}
    categories = {file: _categories(file, content, problems) for file, content in contents.items()}
    notes = []
    if files and all(file.name == ROBOFLOW for file in files):
        parents = {name for file, content in contents.items() for name in _drop_parents(content, categories[file])}
        notes += [f"{name!r}, as the parent of the classes, is none itself" for name in sorted(parents)]
    labels = list(dict.fromkeys(name for found in categories.values() for name in found.values()))
    subsets = [_subset(file, content, categories[file], labels, finder, problems) for file, content in contents.items()]
    notes += finder.notes([picture.path for subset in subsets for picture in subset.pictures])
    return subsets, Export("coco", labels, [], notes=notes)


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(file)}: cannot be read as JSON: {error}") from error
    if not is_coco(content):
        raise UserError(f"{shown(file)}: expected annotations of COCO, with `images` and `annotations`")
    for key, identities in _IDENTITIES.items():
        for each in content.get(key) or []:
            if not isinstance(each, dict):
                raise UserError(f"{shown(file)}: {key}: expected objects, got {json.dumps(each)[:80]}")
            for name in identities:
                if isinstance(each.get(name), (bool, list, dict)):
                    told = json.dumps(each[name])[:80]
                    raise UserError(f"{shown(file)}: {key}: {name}: expected a number or a name, got {told}")
    return dict(content)


def _categories(file: Path, content: Mapping[str, Any], problems: Problems) -> dict[int, str]:
    found: dict[int, str] = {}
    for category in content.get("categories") or []:
        number, name = category.get("id"), plain_name(category.get("name"))
        if not isinstance(number, int) or not name:
            problems.add("categories", f"{file.name}: expected a number and a name, got {json.dumps(category)[:80]}")
        elif number in found and found[number] != name:
            problems.add("categories", f"{file.name}: the number {number} is {found[number]!r} and {name!r}")
        else:
            found[number] = name
    return found


def _drop_parents(content: Mapping[str, Any], categories: dict[int, str]) -> list[str]:
    """Take out what Roboflow adds: the project as a category that nothing is drawn of, maybe called as a class is."""
    drawn = {annotation.get("category_id") for annotation in content["annotations"]}
    above = {category.get("supercategory") for category in content.get("categories") or []}
    roots = [
        category.get("id")
        for category in content.get("categories") or []
        if category.get("supercategory") in (None, "", "none") or category.get("supercategory") == category.get("name")
    ]
    return [
        categories.pop(number)
        for number in roots
        if number in categories and number not in drawn and categories[number] in above
    ]


def _subset(
    file: Path,
    content: Mapping[str, Any],
    categories: Mapping[int, str],
    labels: Sequence[str],
    finder: Finder,
    problems: Problems,
) -> CocoSubset:
    """One file, with numbers of our own."""
    name = file.parent.name if file.name == ROBOFLOW else file.stem.removeprefix("instances_")
    subset = CocoSubset(name, list(labels))
    of_image: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation.get("image_id"), []).append(annotation)
    for entry in content["images"]:
        stated = str(entry.get("file_name", ""))
        path = finder.find(stated, [file.parent, *finder.of_subset(name)])
        annotations = of_image.pop(entry.get("id"), [])
        if path is None:
            problems.add("missing image", f"{file.name}: {stated}")
            continue
        stored = stored_size(path, problems)
        if stored is None:
            continue
        height, width, _ = stored
        size = (entry.get("height") or height, entry.get("width") or width)
        if not all(isinstance(side, int) and side > 0 for side in size):
            problems.add("size", f"{file.name}: {stated}: height {size[0]!r}, width {size[1]!r}")
            continue
        subset.pictures.append(Picture(path, finder.name(path), name, *size))
        for annotation in annotations:
            _annotate(subset, annotation, categories, f"{file.name}: annotation {annotation.get('id')}", problems)
    lost = sum(map(len, of_image.values()))
    if lost:
        problems.add("unknown image", f"{file.name}: {lost} annotations are of images that it does not list")
    return subset


def _annotate(
    subset: CocoSubset, annotation: Mapping[str, Any], categories: Mapping[int, str], where: str, problems: Problems
) -> None:
    category = annotation.get("category_id")
    name = categories.get(category) if isinstance(category, int) else None
    if name not in subset.labels:
        problems.add("unknown category", f"{where}: {category!r}; the file lists {sorted(categories)}")
        return
    picture = subset.pictures[-1]
    try:
        segmentation = _segmentation(annotation.get("segmentation") or [], picture)
        box = _box(annotation.get("bbox") or [])
        crowd = int(annotation.get("iscrowd") or 0)
        if crowd not in (0, 1):
            raise ValueError(f"iscrowd; expected 0 or 1, got {annotation['iscrowd']!r}")
    except (ValueError, TypeError) as error:
        problems.add("bad annotation", f"{where}: {error}")
        return
    subset.annotate(subset.labels.index(name), segmentation, box, crowd=crowd)


def _segmentation(stated: Any, picture: Picture) -> Any:
    """Polygons, or runs as numbers. Raises ValueError for what is neither."""
    if isinstance(stated, list):
        parts = [part for part in stated if part]
        if any(not isinstance(part, list) or len(part) < 6 or len(part) % 2 for part in parts):
            raise ValueError("a polygon; expected lists of x, y, three points at least")
        return [_numbers(part) for part in parts]
    if not isinstance(stated, dict) or list(stated.get("size", [])) != [picture.height, picture.width]:
        size = stated.get("size") if isinstance(stated, dict) else None
        raise ValueError(f"RLE of size {size}, the image [{picture.height}, {picture.width}]")
    counts = stated.get("counts")
    runs = counts if isinstance(counts, list) else _runs(str(counts))
    if any(not isinstance(run, int) or run < 0 for run in runs) or sum(runs) != picture.height * picture.width:
        raise ValueError(f"RLE of {sum(runs)} pixels; expected {picture.height * picture.width}")
    return {"size": [picture.height, picture.width], "counts": runs}


def _box(stated: Any) -> list[float]:
    """`x, y, width, height`. Raises ValueError for what is none."""
    if not stated:
        return []
    if not isinstance(stated, list) or len(stated) != 4:
        raise ValueError("a box; expected x, y, width and height")
    numbers = _numbers(stated)
    if min(numbers[2:]) < 0:
        raise ValueError(f"a box of width {numbers[2]:g} and height {numbers[3]:g}")
    return numbers


def _numbers(values: Sequence[Any]) -> list[float]:
    if any(
        isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) for value in values
    ):
        raise ValueError("expected numbers")
    return [float(value) for value in values]


def _runs(text: str) -> list[int]:
    """COCO's compressed runs: five bits a character, the lowest first; from the third run on, what it differs by."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"RLE with the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return runs
