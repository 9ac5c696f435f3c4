"""Tiny replicas of what labelling tools export, each with what people's own exports hold: holes, crossings, gaps."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 20, 12


def image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), *, orientation: int = 1, shade: int = 0) -> None:
    """A picture with its own bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 40 + shade, np.uint8)
    pixels[: size[1] // 2, :, 0] = (sum(map(ord, path.stem)) + shade) % 256
    exif = Image.Exif()
    if orientation != 1:
        exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def rectangle(left: int, top: int, right: int, bottom: int) -> list[float]:
    """Corners of a polygon that covers pixels left to right - 1."""
    return [float(value) for value in (left, top, right, top, right, bottom, left, bottom)]


def covered(*boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The pixels of rectangles."""
    found = np.zeros((HEIGHT, WIDTH), bool)
    for left, top, right, bottom in boxes:
        found[top:bottom, left:right] = True
    return found


def rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed runs, column by column, the first of zeros."""
    flat = mask.ravel(order="F").astype(int)
    counts, value, run = [], 0, 0
    for each in flat:
        if each != value:
            counts.append(run)
            value, run = each, 0
        run += 1
    return {"size": list(mask.shape), "counts": [*counts, run]}


def coco(
    path: Path,
    images: Mapping[str, Sequence[Mapping[str, Any]]],
    categories: Mapping[int, str],
    **more: Any,
) -> None:
    """A file of annotations: image -> its annotations, each with `category_id` and what it is told by."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [
        {"id": number, "name": name, "supercategory": "none"} for number, name in categories.items()
    ]
    for category in content["categories"][1:]:
        category |= more
    for number, (name, drawn) in enumerate(images.items(), start=7):
        content["images"].append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for annotation in drawn:
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": number, "iscrowd": 0, "bbox": [], **annotation}
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def cvat(path: Path, images: Mapping[str, Sequence[str]], labels: Mapping[str, str], meta: str = "task") -> None:
    """CVAT for images 1.1: image -> elements of its shapes."""
    told = "".join(f"<label><name>{name}</name><color>{colour}</color></label>" for name, colour in labels.items())
    text = f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><{meta}><labels>{told}'
    text += f"</labels></{meta}></meta>"
    for number, (name, shapes) in enumerate(images.items()):
        text += f'<image id="{number}" name="{name}" width="{WIDTH}" height="{HEIGHT}">{"".join(shapes)}</image>'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}</annotations>", encoding="utf-8")


def cvat_points(points: Sequence[float]) -> str:
    """`x,y;x,y`."""
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in zip(points[::2], points[1::2], strict=True))


def cvat_mask(label: str, mask: NDArray[np.bool_], z_order: int = 0) -> str:
    """CVAT's runs are row by row, within the box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left, inner = rows[0], columns[0], mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    runs = ", ".join(map(str, rle(inner.T)["counts"]))
    return (
        f'<mask label="{label}" source="manual" occluded="0" rle="{runs}" left="{left}" top="{top}" '
        f'width="{inner.shape[1]}" height="{inner.shape[0]}" z_order="{z_order}"></mask>'
    )


def labelme(folder: Path, name: str, shapes: Sequence[Mapping[str, Any]]) -> None:
    """The JSON that labelme writes beside `NAME.jpg`."""
    image(folder / f"{name}.jpg")
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [{"group_id": None, "flags": {}, **shape} for shape in shapes],
        "imagePath": f"{name}.jpg",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def pairs(points: Sequence[float]) -> list[list[float]]:
    """`[[x, y], ...]`."""
    return [[x, y] for x, y in zip(points[::2], points[1::2], strict=True)]


def encoded(mask: NDArray[np.bool_]) -> str:
    """labelme's masks: PNGs in base64."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def voc(root: Path, masks: Mapping[str, NDArray[np.uint8]], lists: Mapping[str, Sequence[str]], labelmap: str) -> None:
    """Segmentation mask 1.1, as CVAT writes it: masks `[H,W,3]` in colours."""
    for name, mask in masks.items():
        image(root / f"JPEGImages/{name}.jpg")
        (root / f"SegmentationClass/{name}").parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
    for subset, names in lists.items():
        (root / f"ImageSets/Segmentation/{subset}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (root / "labelmap.txt").write_text(labelmap, encoding="utf-8")
