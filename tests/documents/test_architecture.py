"""docs/architecture.md beside the code: its rooms, its pictures, its registries."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

import grimp
import pytest
import yaml

from tests.documents.markdown import ROOT
from tests.documents.pictures import PICTURES

PAGE = "docs/architecture.md"
PACKAGES = ("serving", "pipeline", "export")
SVG = "{http://www.w3.org/2000/svg}"


def rooms(root: Path = ROOT) -> dict[str, str]:
    """Room -> what its `__init__.py` says first."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("__init__.py")):
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            found[path.parent.relative_to(root).as_posix()] = said.splitlines()[0] if said else ""
    return found


def test_the_tables_of_rooms_are_what_the_rooms_say() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    rows = dict(re.findall(rf"^\| `((?:{'|'.join(PACKAGES)})[\w/]*)` \| (.+) \|$", text, re.MULTILINE))
    wanted = rooms()
    missing = [f"| `{room}` | {said} |" for room, said in wanted.items() if rows.get(room) != said]
    assert not missing, f"{PAGE} lacks the lines\n" + "\n".join(missing)
    assert rows.keys() == wanted.keys(), f"{PAGE} has rooms that are gone"


def test_every_room_says_what_it_is() -> None:
    assert not [room for room, said in rooms().items() if not said.endswith(".")]


def test_every_registry_of_names_is_in_the_table() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    registries = {
        (name, path.relative_to(ROOT).as_posix())
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
        for name in re.findall(r"^([A-Z]+): Registry\[", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(re.findall(r"`([A-Z]+)` in `([\w/.]+)`", text)) == registries


def drawn(picture: str, kind: str) -> dict[str, tuple[float, float]]:
    """Name -> left and top of the boxes of a picture."""
    tree = ElementTree.parse(ROOT / "docs" / "images" / picture)
    found = {}
    for group in tree.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        if kind in group.attrib and box is not None:
            found[group.attrib[kind]] = (float(box.attrib["x"]), float(box.attrib["y"]))
    return found


def test_the_way_shows_the_stages_of_dvc_yaml() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert drawn("way.svg", "data-stage").keys() == stages.keys()


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)


HOUSE = drawn("house.svg", "data-room")


def test_the_house_shows_every_room_of_each_package() -> None:
    first_floor = {".".join(Path(room).parts[:2]) for room in rooms() if "/" in room}
    shown = {".".join(room.split(".")[:2]) for room in HOUSE}
    missing = sorted(first_floor - shown)
    assert not missing, f"docs/images/house.svg lacks {missing}: give them a place in tests/documents/pictures.py"


@pytest.mark.parametrize("picture", list(PICTURES))
def test_the_pictures_are_as_they_are_drawn(picture: str) -> None:
    drawn_now = (ROOT / "docs" / "images" / picture).read_text(encoding="utf-8")
    assert drawn_now == PICTURES[picture](), "run python -m tests.documents.pictures"


@pytest.mark.parametrize("room", sorted(HOUSE))
def test_imports_in_the_house_go_right_and_down(room: str) -> None:
    def drawn_room(module: str) -> str | None:
        parts = module.split(".")
        return next((".".join(parts[:end]) for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in HOUSE), None)

    wrong = []
    for importer in {room, *imports().find_descendants(room)}:
        for imported in imports().find_modules_directly_imported_by(importer):
            other = drawn_room(imported)
            if other is not None and other != room and drawn_room(importer) == room:
                same_package = other.split(".")[0] == room.split(".")[0]
                (left, top), (other_left, other_top) = HOUSE[room], HOUSE[other]
                if other_top <= top if same_package else other_left <= left:
                    wrong.append(f"{importer} imports {imported}")
    assert not wrong
