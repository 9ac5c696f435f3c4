"""labelme's JSON, one file an image, which datumaro does not read (its `label_me` is the older LabelMe's XML)."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from PIL import Image

from pipeline.data.importing.export import Export, Picture, Problems, plain_name, stored_size
from pipeline.data.importing.tools.coco import CocoSubset
from pipeline.data.importing.tools.finding import Finder
from serving.contract.errors import UserError, shown

_VOID = "__ignore__"  # labelme's own name for pixels that count for nothing
_NO_MASKS = ("point", "points", "line", "linestrip")


def is_labelme(content: Any) -> bool:
    """Whether what a JSON file holds is an image labelled by labelme."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(source: Path, files: Sequence[Path], problems: Problems) -> tuple[list[CocoSubset], Export]:
    """Read labelled images.

    Args:
        source: the folder of the export.
        files: the JSON of every image.
        problems: gets what is wrong.
    """
    finder = Finder(source)
    contents = {file: json.loads(file.read_text(encoding="utf-8-sig")) for file in files}
    for file, content in contents.items():
        strange = [shape for shape in content["shapes"] if not isinstance(shape, dict)]
        if strange:
            problems.add(
                "bad shape", f"{file.relative_to(source)}: expected objects, got {json.dumps(strange[0])[:80]}"
            )
    problems.raise_any()
    labels = sorted(
        {plain_name(shape.get("label")) for content in contents.values() for shape in content["shapes"]} - {""}
    )
    left_out: Counter[str] = Counter()
    subsets: dict[str, CocoSubset] = {}
    for file, content in contents.items():
        # The subset is the folder below the export, where there is one.
        place = file.parent.relative_to(source).parts
        name = place[0] if place else ""
        path = finder.find(str(content["imagePath"]), [file.parent, *finder.of_subset(name)])
        if path is None:
            problems.add("missing image", f"{file.relative_to(source)}: {content['imagePath']}")
            continue
        subset = subsets.setdefault(name, CocoSubset(name, labels))
        stored = stored_size(path, problems)
        if stored is None:
            continue
        height, width, _ = stored
        size = (content.get("imageHeight") or height, content.get("imageWidth") or width)
        if not all(isinstance(side, int) and side > 0 for side in size):
            problems.add("size", f"{file.relative_to(source)}: imageHeight {size[0]!r}, imageWidth {size[1]!r}")
            continue
        subset.pictures.append(Picture(path, finder.name(path), name, *size))
        for index, shape in enumerate(content["shapes"]):
            where = f"{file.relative_to(source)}: shape {index + 1}"
            try:
                _annotate(subset, shape, labels, left_out)
            except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
                problems.add("bad shape", f"{where} ({shape.get('shape_type')}): {error}")
    problems.raise_any()
    if not labels:
        raise UserError(f"{shown(source)}: nothing is labelled in {len(files)} files of labelme")
    notes = finder.notes([picture.path for subset in subsets.values() for picture in subset.pictures])
    void = labels.index(_VOID) if _VOID in labels else None
    return list(subsets.values()), Export("labelme", labels, [], None, void, True, left_out, notes)


def _annotate(subset: CocoSubset, shape: Mapping[str, Any], labels: Sequence[str], left_out: Counter[str]) -> None:
    """One shape. Raises ValueError (or its kin) for one that is not as labelme draws them."""
    kind = shape.get("shape_type") or "polygon"
    if not plain_name(shape.get("label")):
        raise ValueError("no label")
    label = labels.index(plain_name(shape.get("label")))
    points = [(float(x), float(y)) for x, y in shape.get("points", [])]
    if not all(math.isfinite(value) for point in points for value in point):
        raise ValueError("points that are no numbers")
    if kind in _NO_MASKS:
        left_out[kind] += 1
    elif kind == "polygon":
        if len(points) < 3:
            raise ValueError(f"{len(points)} points; expected three at least")
        subset.annotate(label, [[value for point in points for value in point]], [])
    elif kind == "rectangle":
        (left, top), (right, bottom) = points
        subset.annotate(label, [], [min(left, right), min(top, bottom), abs(right - left), abs(bottom - top)])
    elif kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        angles = [math.tau * step / 72 for step in range(72)]
        subset.annotate(label, [[v for a in angles for v in (x + radius * math.cos(a), y + radius * math.sin(a))]], [])
    elif kind == "mask":
        subset.annotate(label, _rle(shape["mask"], points, subset.pictures[-1]), [])
    else:
        raise ValueError("a kind of shape that is not known")


def _rle(encoded: str, points: Sequence[tuple[float, float]], picture: Picture) -> dict[str, Any]:
    """A mask within its box as COCO's RLE."""
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        mask = np.asarray(image.convert("L")) > 0
    left, top = (round(value) for value in points[0])
    if left < 0 or top < 0 or top + mask.shape[0] > picture.height or left + mask.shape[1] > picture.width:
        raise ValueError(f"a mask of {mask.shape[1]}x{mask.shape[0]} at {left}, {top} leaves the image")
    whole = np.zeros((picture.height, picture.width), np.uint8, order="F")
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    rle = coco_mask.encode(whole)
    return {"size": [picture.height, picture.width], "counts": rle["counts"].decode("ascii")}
