"""classes.txt: the names of the classes, with the label values and colours that stand for them."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.datasets.shared.labels import MAX_CLASSES, Colour
from serving.contract.errors import UserError

MAX_VALUE = 65535

_SEPARATOR = r"[\s,;:=]+"
_LINE = re.compile(
    rf"^(?:(?P<before>[0-9]+(?:{_SEPARATOR}[0-9]+)*)(?:[).]\s*|{_SEPARATOR}))?"
    rf'(?P<name>"[^"]+"|[^,;\t"]+?)'
    rf"(?:{_SEPARATOR}(?P<after>[0-9]+(?:{_SEPARATOR}[0-9]+)*))?$"
)


@dataclass(frozen=True)
class ClassLine:
    """One class.

    Attributes:
        name: as it stands in the file.
        value: the label value that stands for it: the one that its line names, else the number of the line less one.
        colour: the colour that stands for it, or None.
        names_value: whether the line itself names the value.
    """

    name: str
    value: int
    colour: Colour | None = None
    names_value: bool = False


@dataclass(frozen=True)
class _Parts:
    """A line taken apart: numbers before and after the name."""

    text: str
    before: tuple[int, ...]
    name: str
    quoted: bool
    after: tuple[int, ...]


def read_classes(path: Path) -> tuple[ClassLine, ...]:
    """Read classes.txt; see `parse_classes`.

    Raises:
        UserError: no such file, no text, or lines that cannot be understood; all of them at once.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(f"{path}: {reason}; expected a text file with one class name a line") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return parse_classes(lines, str(path))


def parse_classes(lines: Sequence[str], source: str) -> tuple[ClassLine, ...]:
    """The classes that lines name, one a line, in the order of the train ids.

    A line is a name, alone or with numbers: one is the label value that stands for the class (`nucleus 255`, or
    `255 nucleus` where every line begins so), three are its colour (`road 128 64 128`), `7 road 128 64 128` and
    `road = 7 128 64 128` are both. A name in quotes is taken as it is: `"lane 2"`.

    Args:
        lines: without line breaks.
        source: what to call the place that they are from; messages add the number of the line.

    Raises:
        UserError: lines that cannot be understood; all of them at once.

    Example:
        >>> [(line.name, line.value) for line in parse_classes(["background", "nucleus 255"], "here")]
        [('background', 0), ('nucleus', 255)]
    """
    problems: list[str] = []
    parts = [_take_apart(line, f"{source}:{number}", problems) for number, line in enumerate(lines, start=1)]
    if problems:
        raise UserError("\n".join(problems))
    classes = _classes([part for part in parts if part is not None], source, problems)
    if not problems and not 2 <= len(classes) <= MAX_CLASSES:
        problems.append(f"{source}: expected 2 to {MAX_CLASSES} classes, got {len(classes)}")
    if problems:
        raise UserError("\n".join(problems))
    return classes


def distinct_colour(index: int) -> Colour:
    """A colour for class `index` that differs from its neighbours': hues a golden angle apart, three brightnesses."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.6180339887 % 1.0, 0.75, (0.95, 0.7, 0.5)[index % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def _take_apart(line: str, where: str, problems: list[str]) -> _Parts | None:
    match = _LINE.match(line.strip())
    if line.lstrip().startswith("#"):
        problems.append(
            f"{where}: comments are not known here; remove the line, or put a name with # into quotes: {line!r}"
        )
        return None
    if match is None:
        problems.append(
            f"{where}: expected a class name, optionally with its label value or its colour R G B, got {line!r}"
        )
        return None
    before, after = (
        tuple(int(number) for number in re.findall(r"[0-9]+", match[group] or "")) for group in ("before", "after")
    )
    quoted = match["name"].startswith('"')
    return _Parts(line.strip(), before, match["name"].strip('"').strip(), quoted, after)


def _classes(parts: list[_Parts], path: str, problems: list[str]) -> tuple[ClassLine, ...]:
    """The classes that the lines mean, taken together: what one number is follows from all of them."""
    # Numbers before the names are values or colours only where every line begins with as many.
    leading = {len(part.before) for part in parts}
    begin = leading.pop() if len(leading) == 1 else 0
    begin = begin if begin in (1, 3) else 0
    trailing = begin != 1 and not _are_names(parts)
    classes: list[ClassLine] = []
    for index, part in enumerate(parts):
        where = f"{path}:{index + 1}"
        value, colour, name = None, None, part.name
        after = part.after
        if not begin and part.before:
            name = part.text[: len(part.text) - len(_tail(part.text, len(after)))].rstrip(" ,;:=")
        if begin == 1:
            value = part.before[0]
        elif begin == 3:
            colour = part.before
        if len(after) == 1 and (part.quoted or trailing) and value is None:
            value = after[0]
        elif len(after) == 3 and colour is None:
            colour = after
        elif len(after) == 4 and colour is None and (part.quoted or _is_value_first(part)):
            value, colour = after[0], after[1:]
        elif len(after) == 4 and colour is None:  # a name that ends in a number, then the colour
            name, colour = f"{name} {after[0]}", after[1:]
        elif len(after) == 1 and not part.quoted:
            name = f"{name} {after[0]}"
        elif after:
            problems.append(
                f"{where}: {len(after)} numbers; expected one (the label value) or three (the colour R G B), got "
                f"{part.text!r}"
            )
        if colour is not None and max(colour) > 255:
            problems.append(f"{where}: a colour is three numbers up to 255, got {colour}")
        if value is not None and value > MAX_VALUE:
            problems.append(f"{where}: a label value is at most {MAX_VALUE}, got {value}")
        if name in (known.name for known in classes):
            problems.append(f"{where}: the class {name!r} is named twice")
        classes.append(ClassLine(name, index if value is None else value, _colour(colour), value is not None))
    _find_equal_values(classes, path, problems)
    return tuple(classes)


def _are_names(parts: list[_Parts]) -> bool:
    """Whether single numbers behind names are part of them (`lane 1`, `lane 2`): without them, names would repeat."""
    names = [part.name for part in parts if len(part.after) <= 1 and not part.quoted]
    return len(set(names)) < len(names) and any(len(part.after) == 1 for part in parts)


def _is_value_first(part: _Parts) -> bool:
    """Whether a line says `NAME = VALUE R G B`."""
    return re.search(r"=\s*" + r"[\s,;:]+".join(map(str, part.after)) + r"\s*$", part.text) is not None


def _tail(text: str, count: int) -> str:
    """The last `count` numbers of a line, with what stands between them."""
    match = re.search(rf"(?:{_SEPARATOR}[0-9]+){{{count}}}$", text) if count else None
    return match.group(0) if match else ""


def _colour(numbers: tuple[int, ...] | None) -> Colour | None:
    return None if numbers is None else (numbers[0], numbers[1], numbers[2])


def _find_equal_values(classes: list[ClassLine], path: str, problems: list[str]) -> None:
    first: dict[int, int] = {}
    for index, line in enumerate(classes):
        known = first.setdefault(line.value, index)
        if known != index and not problems:
            problems.append(
                f"{path}: the label value {line.value} stands for {classes[known].name!r} (line {known + 1}) and for "
                f"{line.name!r} (line {index + 1}); name the value on every line, or put names that end in a number "
                'into quotes: "lane 2"'
            )
