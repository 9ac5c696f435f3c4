"""YOLO segmentation, of which datumaro reads boxes alone: `class x1 y1 x2 y2 ...` in shares of width and height."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeline.data.datasets.shared.facts import listed
from pipeline.data.datasets.shared.walking import walk
from pipeline.data.importing.export import Export, Picture, Problems, plain_name, stored_size
from pipeline.data.importing.tools.coco import CocoSubset
from pipeline.data.importing.tools.finding import Finder
from serving.contract.errors import UserError, shown
from serving.images.formats import SUFFIXES

_SUBSETS = ("train", "val", "valid", "test")


def read_yolo(source: Path, description: Path, problems: Problems) -> tuple[list[CocoSubset], Export]:
    """Read what a `data.yaml` describes.

    Args:
        source: the folder of the export.
        description: the `data.yaml`.
        problems: gets what is wrong.
    """
    content = _load(description)
    labels = _names(content, description)
    if content.get("nc", len(labels)) != len(labels):
        raise UserError(f"{shown(description)}: nc is {content['nc']}, and names has {len(labels)} classes")
    finder = Finder(source)
    pictures: dict[str, list[Path]] = {}
    for subset in _SUBSETS:
        if content.get(subset):
            stated = content[subset] if isinstance(content[subset], list) else [content[subset]]
            found = [path for one in stated for path in _images(source, content, str(one), finder)]
            if not found:
                problems.add("missing images", f"{description.name}: {subset}: {content[subset]}")
            pictures[subset] = found
    subsets = []
    for subset, paths in pictures.items():
        made = CocoSubset(subset, labels)
        for path in paths:
            stored = stored_size(path, problems)
            if stored is None:
                continue
            height, width, _ = stored
            made.pictures.append(Picture(path, finder.name(path), subset, height, width))
            _annotate(made, _label_file(path), problems)
        subsets.append(made)
    every = [path for paths in pictures.values() for path in paths]
    read = {_label_file(path) for path in every}
    places = {file.parent for file in read}
    orphans = sorted(file for place in places for file in place.glob("[!.]*.txt") if file not in read)
    notes = finder.notes(every)
    corners = {len(part) for made in subsets for one in made.annotations for part in one["segmentation"]}
    if corners == {8}:
        notes.append("every polygon has four corners: if these are oriented boxes (OBB), their pixels are no masks")
    if orphans:
        notes.append(f"{len(orphans)} files of labels belong to no image: {listed((one.name for one in orphans), 3)}")
    return subsets, Export("yolo", labels, [], notes=notes)


def _load(description: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(description.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{shown(description)}: cannot be read: {error}") from error
    if not isinstance(content, dict) or not content.get("names"):
        raise UserError(f"{shown(description)}: expected `names` of the classes")
    if content.get("kpt_shape"):
        raise UserError(f"{shown(description)}: kpt_shape: its lines are boxes and key points, which are no masks")
    return content


def _names(content: Mapping[str, Any], description: Path) -> list[str]:
    names = content["names"]
    values = names.values() if isinstance(names, dict) else names
    if not isinstance(names, (list, dict)) or not all(isinstance(name, (str, int, float)) for name in values):
        raise UserError(f"{shown(description)}: names: expected a list of names, got {str(names)[:80]}")
    if isinstance(names, list):
        return [plain_name(name) for name in names]
    numbered = {str(number): plain_name(name) for number, name in names.items()}
    expected = [str(number) for number in range(len(names))]
    if set(numbered) != set(expected):
        raise UserError(f"{shown(description)}: names: expected the numbers 0 to {len(names) - 1}, got {list(names)}")
    return [numbered[number] for number in expected]


def _images(source: Path, content: Mapping[str, Any], stated: str, finder: Finder) -> list[Path]:
    """The images of a folder or a list, wherever the machine that wrote it had them."""
    text = stated.replace("\\", "/")
    while text.startswith(("../", "./")):
        text = text.partition("/")[2]
    base = str(content.get("path") or "").replace("\\", "/")
    # What is absolute is of another machine: the longest end of it that is here.
    parts = PurePosixPath(text).parts
    ends = [PurePosixPath(*parts[start:]) for start in range(1, len(parts))] if text.startswith("/") else [text]
    starts = [source, *([source / base] if base and not base.startswith("/") else [])]
    for place in (start / end for start in starts for end in ends):
        if not Path(os.path.normpath(place)).is_relative_to(source):
            continue
        if place.is_dir():
            return [place / file for file in walk(place).files if Path(file).suffix.lower() in SUFFIXES]
        if place.is_file():
            lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
            found = {line: finder.find(line, [source, place.parent]) for line in lines}
            missing = [line for line, path in found.items() if path is None]
            if missing:
                raise UserError(f"{shown(place)}: {len(missing)} images are missing, such as {shown(missing[0])}")
            return [path for path in found.values() if path is not None]
    return []


def _label_file(image: Path) -> Path:
    """`labels/...` for `images/...`: the last folder of that name, as Ultralytics has it."""
    parts = list(image.with_suffix(".txt").parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts)


def _annotate(subset: CocoSubset, file: Path, problems: Problems) -> None:
    """The lines of one file; an image without one shows nothing."""
    picture = subset.pictures[-1]
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        problems.add("unreadable", f"{file}: {error}")
        return
    for number, line in enumerate(lines, start=1):
        where = f"{PurePosixPath(file.name)}:{number}"
        if not line.strip():
            continue
        try:
            first, *rest = line.split()
            label, shares = int(first), [float(value) for value in rest]
        except ValueError:
            problems.add("bad line", f"{where}: expected a class and numbers, got {line[:60]!r}")
            continue
        if not 0 <= label < len(subset.labels):
            problems.add("unknown class", f"{where}: {label}; names has 0 to {len(subset.labels) - 1}")
        elif len(shares) == 4 and all(0 <= share <= 1.01 for share in shares):
            x, y, width, height = shares
            scaled = [x - width / 2, y - height / 2, width, height]
            subset.annotate(label, [], _scaled(scaled, picture))
        elif len(shares) < 6 or len(shares) % 2:
            problems.add(
                "bad line", f"{where}: {len(shares)} numbers; expected x, y of three points at least, or a box"
            )
        elif not all(-0.01 <= share <= 1.01 for share in shares):  # of no order with NaN
            problems.add("bad line", f"{where}: numbers beyond 0 to 1; expected shares of width and height")
        else:
            subset.annotate(label, [_scaled(shares, picture)], [])


def _scaled(shares: list[float], picture: Picture) -> list[float]:
    return [share * (picture.height if index % 2 else picture.width) for index, share in enumerate(shares)]
