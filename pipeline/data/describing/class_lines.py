"""Lines for classes.txt where there is none: from the lists that other tools leave, or from what labels hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.data.datasets.folder.meaning.views import as_colours, as_numbers, is_grey
from pipeline.data.datasets.shared.facts import LabelFacts, colour_of
from pipeline.data.datasets.shared.labels import IGNORE_INDEX

_LABELMAP = re.compile(r"^(?P<name>[^#:][^:]*):(?P<red>\d+),(?P<green>\d+),(?P<blue>\d+):")
_BEFORE = re.compile(r"^(?P<red>\d+)[\s,;]+(?P<green>\d+)[\s,;]+(?P<blue>\d+)[\s,;]+(?P<name>\S.*)$")
_BEHIND = re.compile(r"^(?P<name>[^,;\t]+)[\s,;]+(?P<red>\d+)[\s,;]+(?P<green>\d+)[\s,;]+(?P<blue>\d+)$")
_LISTS = (
    *("labelmap.txt", "label_colors.txt", "class_dict.csv", "classes.csv", "colors.txt", "labels.txt", "codes.txt"),
    *("class_names.txt", "obj.names"),  # of labelme and YOLO
)
_VOID = "__ignore__"  # what lists of labelme begin with
_PLACES = ("", "labels", "masks", "annotations")
_MANY = 64


def listed_classes(root: Path) -> tuple[list[str], Path] | None:
    """Lines for classes.txt from a list that a labelling tool left (CVAT, CamVid and others), and that list."""
    for place in _PLACES:
        for name in _LISTS:
            path = root / place / name
            try:
                text = path.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError):
                continue
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            found = [match for line in lines for match in [_match(line)] if match is not None]
            if len(found) >= 2 and len(found) >= len(lines) - 1:  # a line of headings is none
                return [_line(match["name"], match) for match in found], path
            if lines[:1] == [_VOID]:  # its number is -1, and the first class is the next line
                lines = lines[1:]
            plain = re.compile(r"^[^\d:,;#]+$")
            if 2 <= len(lines) <= _MANY and all(plain.match(line) for line in lines):
                return lines, path
    return None


def lines_of_values(all_facts: Sequence[LabelFacts]) -> list[str]:
    """Lines with invented names for what labels hold: one for each number or colour. Empty where there are too many."""
    if any(facts.coloured and not is_grey(facts) for facts in all_facts):
        colours: Counter[int] = Counter()
        for facts in all_facts:
            colours.update(as_colours(facts) or {})
        if len(colours) > _MANY:
            return []
        return [
            f"class{index} {' '.join(map(str, colour_of(code)))}"
            for index, (code, _) in enumerate(colours.most_common())
        ]
    numbers = {number for facts in all_facts for number in as_numbers(facts) or {}}
    if len(numbers) > _MANY:
        return []
    if numbers == {0, 255}:
        return ["background 0", "object 255"]
    values = sorted(number for number in numbers if number >= 0)
    if IGNORE_INDEX in values and len(values) > 2:
        values.remove(IGNORE_INDEX)  # void, unless its owner says otherwise
    return [f"class{value} {value}" for value in values]


def _match(line: str) -> re.Match[str] | None:
    return _LABELMAP.match(line) or _BEFORE.match(line) or _BEHIND.match(line)


def _line(name: str, match: re.Match[str]) -> str:
    quoted = f'"{name.strip()}"' if re.search(r"\d$|[,;\t]", name.strip()) else name.strip()
    return f"{quoted} {match['red']} {match['green']} {match['blue']}"
