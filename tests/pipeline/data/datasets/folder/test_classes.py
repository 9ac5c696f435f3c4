"""classes.txt in the ways that people write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.datasets.folder.classes import read_classes
from serving.contract.errors import UserError

Lines = list[tuple[str, int, tuple[int, int, int] | None]]


def read(folder: Path, text: str) -> Lines:
    (folder / "classes.txt").write_text(text, encoding="utf-8")
    return [(line.name, line.value, line.colour) for line in read_classes(folder / "classes.txt")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("road\nsky", [("road", 0, None), ("sky", 1, None)]),
        ("nucleus 255\ncytoplasm 128\nrest 0", [("nucleus", 255, None), ("cytoplasm", 128, None), ("rest", 0, None)]),
        ("background\nnucleus 255", [("background", 0, None), ("nucleus", 255, None)]),
        ("0 road\n1 sky", [("road", 0, None), ("sky", 1, None)]),
        ("1: road\n2: sky", [("road", 1, None), ("sky", 2, None)]),
        ("3. road\n4) sky", [("road", 3, None), ("sky", 4, None)]),
        ("7,road\n9,sky", [("road", 7, None), ("sky", 9, None)]),
        ("road=7\nsky: 9", [("road", 7, None), ("sky", 9, None)]),
        ("64 128 64\tAnimal\n0 0 0\tVoid", [("Animal", 0, (64, 128, 64)), ("Void", 1, (0, 0, 0))]),
        ("Animal,64,128,64\nVoid,0,0,0", [("Animal", 0, (64, 128, 64)), ("Void", 1, (0, 0, 0))]),
        ("7 road 128 64 128\n3 sky 1 2 3", [("road", 7, (128, 64, 128)), ("sky", 3, (1, 2, 3))]),
        ("road = 7 128 64 128\nsky = 3 1 2 3", [("road", 7, (128, 64, 128)), ("sky", 3, (1, 2, 3))]),
        ("lane 1\nlane 2\nsky", [("lane 1", 0, None), ("lane 2", 1, None), ("sky", 2, None)]),
        ("lane 2, 1, 2, 3\nsky", [("lane 2", 0, (1, 2, 3)), ("sky", 1, None)]),
        ('"lane 2"\nsky', [("lane 2", 0, None), ("sky", 1, None)]),
        ('"lane 2" 7\nsky', [("lane 2", 7, None), ("sky", 1, None)]),
        ("2 wheeler\ncar", [("2 wheeler", 0, None), ("car", 1, None)]),
        ("traffic light\nvéhicule léger", [("traffic light", 0, None), ("véhicule léger", 1, None)]),
        ("tree-1\nClass2", [("tree-1", 0, None), ("Class2", 1, None)]),
    ],
)
def test_a_line_is_a_name_with_its_value_or_colour(tmp_path: Path, text: str, expected: Lines) -> None:
    assert read(tmp_path, text) == expected
    assert read(tmp_path, text.replace("\n", "\r\n") + "\r\n\r\n") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("road 3\nsky 3", "the label value 3 stands for 'road' (line 1) and for 'sky' (line 2)"),
        ("lane 1\nsky", "the label value 1 stands for 'lane' (line 1) and for 'sky' (line 2); name the value on every"),
        ("road 70000\nsky", "classes.txt:1: a label value is at most 65535, got 70000"),
        ("road 1 2\nsky", "classes.txt:1: 2 numbers; expected one (the label value) or three"),
        ("road 300 0 0\nsky", "classes.txt:1: a colour is three numbers up to 255, got (300, 0, 0)"),
        ("road\n\nsky", "classes.txt:2: expected a class name"),
        ("name,r,g,b\nroad,1,2,3", "classes.txt:1: expected a class name"),
        ("# my classes\nroad\nsky", "classes.txt:1: comments are not known here"),
        ("road 5\nroad 5", "the class 'road 5' is named twice"),
    ],
)
def test_lines_that_cannot_be_understood(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert problem in str(caught.value)


def test_all_bad_lines_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, "a 300 0 0\nb 0 0 999\nc 1 2\n")
    assert [line.rpartition("classes.txt:")[2][0] for line in str(caught.value).splitlines()] == ["1", "2", "3"]
