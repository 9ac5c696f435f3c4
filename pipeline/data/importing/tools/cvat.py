"""CVAT for images: its XML, with the images found first and ellipses made polygons, as datumaro takes it."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement

from defusedxml import ElementTree as SafeTree

from pipeline.data.importing.export import Export, Picture, Problems, stored_size
from pipeline.data.importing.tools.finding import Finder
from serving.contract.errors import UserError, shown

_READ = ("polygon", "mask", "box", "polyline", "points", "tag")
_POINTS = 72


def root_of(file: Path) -> Element | None:
    """The root element of an XML file; None for what is none."""
    try:
        root: Element | None = SafeTree.parse(file).getroot()
    except (OSError, SafeTree.ParseError, ValueError):
        return None
    return root


def read_cvat(source: Path, files: Sequence[Path], folder: Path, problems: Problems) -> Export:
    """Bring the annotations of CVAT into the form that datumaro reads.

    Args:
        source: the folder of the export.
        files: of annotations in it.
        folder: where `annotations.xml` and the images, numbered, are written.
        problems: gets what is wrong.

    Returns:
        The export without its shapes; picture k has the number k + 1 in `folder`.
    """
    finder = Finder(source)
    labels: list[str] = []
    colours: dict[str, str] = {}
    pictures: list[Picture] = []
    left_out: Counter[str] = Counter()
    (folder / "images").mkdir(parents=True)
    whole = Element("annotations")
    meta = SubElement(SubElement(whole, "meta"), "task")
    for file in files:
        root = root_of(file)
        if root is None or root.tag != "annotations":
            raise UserError(f"{shown(file)}: expected CVAT's XML, with the element `annotations`")
        if root.find("track") is not None:
            raise UserError(f"{shown(file)}: CVAT for video, whose frames are no files; export it as CVAT for images")
        for label in root.iterfind("./meta//labels/label"):
            name = label.findtext("name") or ""
            if name and name not in labels:
                labels.append(name)
                colours[name] = (label.findtext("color") or "").strip()
        for image in root.iterfind("image"):
            _take(image, file, finder, labels, pictures, left_out, problems, whole, folder)
    of_meta = SubElement(meta, "labels")
    for index in range(len(labels)):
        SubElement(SubElement(of_meta, "label"), "name").text = f"class {index}"
    if len({picture.subset for picture in pictures}) == 1:
        for picture in pictures:
            picture.subset = ""
    ElementTree(whole).write(folder / "annotations.xml", encoding="utf-8", xml_declaration=True)
    parsed = [_colour(colours[name]) for name in labels]
    told = [colour for colour in parsed if colour is not None]
    notes = finder.notes([picture.path for picture in pictures])
    return Export(
        "cvat",
        labels,
        pictures,
        colours=told if len(set(told)) == len(labels) else None,
        ordered=True,
        left_out=left_out,
        notes=notes,
    )


def _take(
    image: Element,
    file: Path,
    finder: Finder,
    labels: Sequence[str],
    pictures: list[Picture],
    left_out: Counter[str],
    problems: Problems,
    whole: Element,
    folder: Path,
) -> None:
    """One image: found, numbered, and its shapes as datumaro knows them."""
    stated, subset = image.get("name", ""), image.get("subset", "")
    path = finder.find(stated, [*finder.of_subset(subset), file.parent / "images", file.parent])
    if path is None:
        problems.add("missing image", f"{file.name}: {stated}")
        return
    stored = stored_size(path, problems)
    if stored is None:
        return
    height, width, _ = stored
    size = [image.get("height") or str(height), image.get("width") or str(width)]
    if not all(side.isdecimal() and int(side) for side in size):
        problems.add("size", f"{file.name}: {stated}: height {size[0]!r}, width {size[1]!r}")
        return
    pictures.append(Picture(path, finder.name(path), subset, int(size[0]), int(size[1])))
    number = len(pictures)
    name = f"{number}{path.suffix.lower()}"
    link = folder / "images" / name
    try:
        link.symlink_to(path.resolve())
    except OSError:  # where links are not allowed
        shutil.copyfile(path, link)
    made = SubElement(whole, "image", {"id": str(number), "name": name})
    made.set("height", str(pictures[-1].height))
    made.set("width", str(pictures[-1].width))
    for shape in image:
        if shape.tag == "ellipse":
            try:
                shape = _as_polygon(shape)
            except ValueError as error:
                problems.add("bad shape", f"{file.name}: {stated}: ellipse: {error}")
                continue
        if shape.tag not in _READ:
            left_out[shape.tag] += 1
            continue
        if shape.get("label") not in labels:
            problems.add("unknown label", f"{file.name}: {stated}: {shape.tag} of {shape.get('label')!r}")
            continue
        wrong = _wrong(shape, pictures[-1])
        if wrong:
            problems.add("bad shape", f"{file.name}: {stated}: {wrong}")
            continue
        shape.set("label", f"class {labels.index(shape.get('label', ''))}")
        made.append(shape)


def _wrong(shape: Element, picture: Picture) -> str | None:
    """What is wrong with a shape, or None."""
    try:
        if shape.tag == "mask":
            left, top, width, height = (int(shape.get(key, "")) for key in ("left", "top", "width", "height"))
            runs = [int(run) for run in shape.get("rle", "").split(",")]
            if min(runs) < 0 or sum(runs) != width * height:
                return f"mask: runs of {sum(runs)} pixels; expected {width} x {height}"
            if min(left, top) < 0 or left + width > picture.width or top + height > picture.height:
                return f"mask: {width}x{height} at {left}, {top} leaves the image"
        elif shape.tag == "polygon":
            points = [[float(value) for value in point.split(",")] for point in shape.get("points", "").split(";")]
            if len(points) < 3 or any(len(point) != 2 or not all(map(math.isfinite, point)) for point in points):
                return f"polygon: {shape.get('points')!r}; expected three points at least, x and y of each"
        elif shape.tag == "box" and not all(
            math.isfinite(float(shape.get(key, ""))) for key in ("xtl", "ytl", "xbr", "ybr")
        ):
            return "box: expected finite numbers"
    except ValueError as error:
        return f"{shape.tag}: {error}"
    return None


def _as_polygon(ellipse: Element) -> Element:
    """An ellipse as CVAT writes it: centre, radii and a rotation in degrees."""
    x, y, across, down = (float(ellipse.get(key, "")) for key in ("cx", "cy", "rx", "ry"))
    turn = math.radians(float(ellipse.get("rotation", "0")))
    points = []
    for step in range(_POINTS):
        angle = math.tau * step / _POINTS
        right, below = across * math.cos(angle), down * math.sin(angle)
        points.append(
            f"{x + right * math.cos(turn) - below * math.sin(turn):.2f},"
            f"{y + right * math.sin(turn) + below * math.cos(turn):.2f}"
        )
    kept = {key: value for key, value in ellipse.items() if key not in ("cx", "cy", "rx", "ry", "rotation")}
    return Element("polygon", kept | {"points": ";".join(points)})


def _colour(text: str) -> tuple[int, int, int] | None:
    """`#3d3df5`."""
    try:
        number = int(text.removeprefix("#"), 16)
    except ValueError:
        return None
    return number >> 16 & 255, number >> 8 & 255, number & 255
