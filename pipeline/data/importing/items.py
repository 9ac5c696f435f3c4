"""What datumaro reads, as pictures and shapes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import datumaro
import numpy as np
import pycocotools.mask as coco_mask
from datumaro.components.annotation import AnnotationType as Kind
from numpy.typing import NDArray

from pipeline.data.datasets.shared.labels import Colour
from pipeline.data.importing.export import Export, Picture, Problems, Shape, stored_size
from pipeline.data.importing.tools.coco import CocoSubset
from pipeline.data.importing.tools.finding import Finder
from pipeline.data.importing.tools.voc import MASKS, VOID, check_masks, listed_images
from serving.contract.errors import UserError, shown

_BOXES = (Kind.bbox, Kind.rotated_bbox)
_VOC_VOID = (224, 224, 192)
_FARTHEST = 100  # of the longer side of an image


def read_items(path: Path, form: str, check: Callable[[Any], None] = lambda dataset: None) -> Any:
    """A dataset of datumaro's.

    Args:
        path: the folder.
        form: its format, in datumaro's words.
        check: looks at the classes before anything else is read.

    Raises:
        UserError: it cannot be read.
    """
    logging.disable(logging.WARNING)  # what it would only warn of was looked for before, or is told in our words
    try:
        dataset = datumaro.Dataset.import_from(str(path), form)
        check(dataset)
        dataset.init_cache()
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        raise UserError(f"datumaro cannot read this as {form}: {type(cause).__name__}: {cause}") from error
    return dataset


def add_coco(subset: CocoSubset, folder: Path, left_out: Counter[str]) -> None:
    """Add the shapes of a subset to its pictures."""
    subset.write(folder)
    add_shapes(read_items(folder, "coco_instances"), subset.pictures, len(subset.labels), left_out)


def add_shapes(dataset: Any, pictures: Sequence[Picture], labels: int, left_out: Counter[str]) -> None:
    """Add the shapes of items whose names are the numbers of pictures."""
    count = 0
    for item in dataset:
        count += 1
        picture = pictures[int(item.id) - 1]
        # datumaro gives COCO's annotations in reverse; their numbers grow in the order of the file.
        picture.shapes += list(shapes_of(item.annotations, picture.height, picture.width, labels, left_out))
    if count != len(pictures):
        raise UserError(f"datumaro read {count} of {len(pictures)} images")


def shapes_of(
    annotations: Sequence[Any], height: int, width: int, labels: int, left_out: Counter[str]
) -> Iterable[Shape]:
    """The annotations that cover pixels, and boxes that stand for themselves; the rest is counted.

    Raises:
        UserError: an annotation of no class.
    """
    covering = {one.id for one in annotations if one.type in (Kind.polygon, Kind.mask) and one.group and one.id}
    parts: dict[int, list[Any]] = {}
    for index, one in enumerate(annotations):
        covers = one.type in (Kind.polygon, Kind.mask, *_BOXES)
        if covers and (one.label is None or not 0 <= one.label < labels):
            raise UserError(f"an annotation ({one.type.name}) of no class that the export lists")
        numbered = bool(one.group and one.id)
        order = (int(getattr(one, "z_order", 0) or 0), one.id if numbered else index)
        if one.type == Kind.polygon and numbered:
            parts.setdefault(one.id, []).append((order, one))  # several polygons are one object
        elif one.type == Kind.polygon:
            yield Shape(one.label, order, "polygon", _polygons([one.points], height, width))
        elif one.type == Kind.mask:
            crowd = bool(one.attributes.get("is_crowd"))
            yield Shape(one.label, order, "mask", _mask(one, height, width), crowd)
        elif one.type in _BOXES:
            if not (numbered and one.id in covering):
                yield Shape(one.label, order, "box", _box(one, height, width))
        else:
            left_out[one.type.name] += 1
    for found in parts.values():
        first = found[0][1]
        points = [one.points for _, one in found]
        order = found[0][0]
        crowd = bool(first.attributes.get("is_crowd"))
        yield Shape(first.label, order, "polygon", _polygons(points, height, width), crowd)


def read_voc(root: Path, problems: Problems) -> Export:
    """Segmentation masks in the layout of Pascal VOC."""
    names = listed_images(root)

    def check(dataset: Any) -> None:
        check_masks(root, _colours_of(dataset), names, problems)
        problems.raise_any()

    dataset = read_items(root, "voc_segmentation", check)
    labels = [label.name for label in dataset.categories()[Kind.label].items]
    colours = _colours_of(dataset)
    finder = Finder(root, leave_out=(MASKS, "SegmentationObject"))
    left_out: Counter[str] = Counter()
    pictures = []
    for item in dataset:
        if item.subset not in names:
            continue
        media: Any = item.media
        path = Path(media.path) if hasattr(media, "path") and media.path else None
        if path is None or not path.is_file():
            problems.add("missing image", f"JPEGImages/{item.id}")
            continue
        stored = stored_size(root / MASKS / f"{item.id}.png", problems)
        if stored is None:
            continue
        height, width, _ = stored
        picture = Picture(path, item.id, item.subset, height, width)
        picture.shapes += list(shapes_of(item.annotations, height, width, len(labels), left_out))
        pictures.append(picture)
    void = next(
        (index for index, name in enumerate(labels) if name.casefold() in VOID or colours.get(index) == _VOC_VOID), None
    )
    told = [colours[index] for index in range(len(labels)) if index in colours]
    alike = len(told) == len(labels) and len(set(told)) == len(labels)
    notes = finder.notes([picture.path for picture in pictures])
    return Export("voc", labels, pictures, told if alike else None, void, ordered=True, left_out=left_out, notes=notes)


def read_labelme_xml(source: Path, problems: Problems) -> Export:
    """The XML of the older LabelMe."""
    dataset = read_items(source, "label_me")
    labels = [label.name for label in dataset.categories()[Kind.label].items]
    left_out: Counter[str] = Counter()
    pictures = []
    for item in dataset:
        path = Path(item.media.path)
        if not path.is_file():
            problems.add("missing image", str(path.relative_to(source)) if path.is_relative_to(source) else str(path))
            continue
        stored = stored_size(path, problems)
        if stored is None:
            continue
        height, width = item.media.size or stored[:2]
        picture = Picture(path, f"{item.subset}/{item.id}".strip("/"), item.subset, height, width)
        picture.shapes += list(shapes_of(item.annotations, height, width, len(labels), left_out))
        pictures.append(picture)
    if not labels:
        raise UserError(f"{shown(source)}: nothing is labelled in it")
    return Export("labelme-xml", labels, pictures, ordered=True, left_out=left_out)


def _colours_of(dataset: Any) -> dict[int, Colour]:
    """Index of a class -> its colour."""
    colours = dict(dataset.categories()[Kind.mask].colormap)
    return {index: (int(one[0]), int(one[1]), int(one[2])) for index, one in colours.items() if one is not None}


def _polygons(parts: Sequence[Sequence[float]], height: int, width: int) -> Callable[[], NDArray[np.bool_]]:
    """Their union, by COCO's own rule of what a polygon covers; its lines may cross."""
    farthest = max(abs(float(value)) for points in parts for value in points)

    def draw() -> NDArray[np.bool_]:
        # pycocotools walks along every line, and a line of 1e9 pixels takes more memory than there is.
        if farthest > _FARTHEST * max(height, width):
            raise ValueError(f"a polygon that reaches {farthest:g}, on an image of {width}x{height}")
        rles = coco_mask.frPyObjects([list(map(float, points)) for points in parts], height, width)
        return np.asarray(coco_mask.decode(coco_mask.merge(rles))).astype(bool)

    return draw


def _mask(one: Any, height: int, width: int) -> Callable[[], NDArray[np.bool_]]:
    def draw() -> NDArray[np.bool_]:
        found = np.asarray(one.image).astype(bool)
        if found.shape != (height, width):
            raise UserError(f"a mask of {found.shape[1]}x{found.shape[0]} on an image of {width}x{height}")
        return found

    return draw


def _box(one: Any, height: int, width: int) -> Callable[[], NDArray[np.bool_]]:
    points = np.asarray(one.as_polygon(), dtype=float).reshape(-1)
    return _polygons([points.tolist()], height, width)
