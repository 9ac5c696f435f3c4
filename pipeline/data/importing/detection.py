"""Which tool exported a folder, told by its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.datasets.shared.facts import listed
from pipeline.data.datasets.shared.walking import walk
from pipeline.data.importing.options import FORMATS
from pipeline.data.importing.tools.coco import ROBOFLOW, is_coco
from pipeline.data.importing.tools.cvat import root_of
from pipeline.data.importing.tools.labelme import is_labelme
from pipeline.data.importing.tools.voc import find_roots
from serving.contract.errors import UserError, shown

_ONE_EACH = ("voc", "yolo")  # a folder holds one export of theirs
_YAML = ("data.yaml", "data.yml", "dataset.yaml")


@dataclass(frozen=True)
class Detected:
    """A format and its files.

    Attributes:
        format: one of `FORMATS`.
        files: of annotations, or the folder that holds them.
    """

    format: str
    files: tuple[Path, ...]


def detect(source: Path, wanted: str | None) -> Detected:
    """Find the annotations of a folder.

    Args:
        source: the folder.
        wanted: the format, where the user names it.

    Raises:
        UserError: nothing, or two formats.
    """
    if not source.is_dir():
        raise UserError(f"{shown(source)}: no such folder (unpack an archive first)")
    found = [one for one in _all(source) if one.files]
    if wanted is not None:
        found = [one for one in found if one.format == wanted]
    if not found:
        what = f"nothing of the format {wanted}" if wanted else f"none of {', '.join(FORMATS)}"
        raise UserError(
            f"{shown(source)}: {what} was found in it; docs/datasets.md says what each looks like, and "
            "`contrail describe-data` what folders of images and label images are, which need no import"
        )
    if len(found) > 1:
        told = "; ".join(f"{one.format} ({shown(one.files[0].relative_to(source))})" for one in found)
        raise UserError(f"{shown(source)}: may be several formats: {told}; say which: --format {found[0].format}")
    if found[0].format in _ONE_EACH and len(found[0].files) > 1:
        told = listed(shown(file.relative_to(source)) for file in found[0].files)
        raise UserError(f"{shown(source)}: holds several exports of the format {found[0].format}: {told}; import one")
    return found[0]


def _all(source: Path) -> list[Detected]:
    files = [source / file for file in walk(source).files]
    texts = [(file, _json(file)) for file in files if file.suffix.lower() == ".json"]
    coco = [file for file, content in texts if is_coco(content)]
    roboflow = [file for file in coco if file.name == ROBOFLOW]
    roots = [(file, root_of(file)) for file in files if file.suffix.lower() == ".xml"]
    labelme_xml = [file for file, root in roots if root is not None and root.tag == "annotation" and _drawn(root)]
    return [
        Detected("coco", tuple(file for file in coco if file not in roboflow)),
        Detected("roboflow-coco", tuple(roboflow)),
        Detected("cvat", tuple(file for file, root in roots if root is not None and root.tag == "annotations")),
        Detected("voc", tuple(find_roots(source))),
        Detected("labelme", tuple(file for file, content in texts if is_labelme(content))),
        Detected("labelme-xml", tuple(labelme_xml[:1] and [source])),
        Detected("yolo", _yolo(files)),
    ]


def _json(file: Path) -> Any:
    """What a JSON file holds; None for what is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return None


def _drawn(root: Any) -> bool:
    return any(one.find("polygon") is not None or one.find("segm") is not None for one in root.iterfind("object"))


def _yolo(files: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(file for file in files if file.name in _YAML)
