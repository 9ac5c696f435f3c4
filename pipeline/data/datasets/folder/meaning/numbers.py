"""Labels of numbers: which class or void each stands for, and the ways of counting that only look alike."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.data.datasets.folder.classes import ClassLine
from pipeline.data.datasets.folder.meaning.encoding import Encoding
from pipeline.data.datasets.folder.meaning.masks import BACKGROUNDS
from pipeline.data.datasets.folder.meaning.views import Occurrences, as_numbers, occurrences, tell
from pipeline.data.datasets.folder.options import FolderOptions
from pipeline.data.datasets.shared.facts import Counts, Findings, LabelFacts, listed
from pipeline.data.datasets.shared.labels import IGNORE_INDEX

_MANY_VALUES = 40
_CONFIRM = "If the numbers are those of the lines, and 255 is void, write prepare.options.labels: numbers"


def settle_numbers(
    classes: Sequence[ClassLine],
    by_number: Encoding,
    options: FolderOptions,
    all_facts: Sequence[LabelFacts],
    findings: Findings,
) -> Encoding | None:
    """What the numbers in labels mean.

    Args:
        classes: of classes.txt.
        by_number: what its lines say.
        options: what the user says.
        all_facts: of every label; all of them hold numbers.
        findings: gets a problem where it cannot be told, and a note where it is not what the lines say.

    Returns:
        None where it cannot be told.
    """
    before = findings.count
    opaque = options.transparent == "void"
    counts = [(facts, as_numbers(facts, opaque=opaque) or {}) for facts in all_facts]
    found = occurrences(counts)
    if any(line.names_value for line in classes):
        values = ", ".join(f"{line.name} {line.value}" for line in classes)
        findings.note("label values", f"as classes.txt names them: {values}")
    elif options.labels == "auto":
        if IGNORE_INDEX not in options.void_values:
            binary = _binary(classes, counts, findings)
            if binary is not None:
                return binary
        if findings.count == before:
            _doubt(classes, found, findings)
    unknown = {value: where for value, where in found.items() if value not in by_number.meaning}
    if unknown:
        findings.problem("bad label", _unknown(classes, by_number, found, unknown))
    return by_number if findings.count == before else None


def _binary(
    classes: Sequence[ClassLine], counts: Sequence[tuple[LabelFacts, Counts]], findings: Findings
) -> Encoding | None:
    """Masks of 0 and 255 with two classes: the second class, since as void it would leave nothing to tell apart."""
    if len(classes) != 2:
        return None
    bits = [set(values) for facts, values in counts if facts.mode == "1"]
    bytes_ = [set(values) for facts, values in counts if facts.mode != "1"]
    seen = set().union(*bytes_) if bytes_ else set()
    if IGNORE_INDEX not in seen or seen - {0, 1, IGNORE_INDEX}:
        return None
    if 1 not in seen:
        if 0 not in seen and not any(bits):
            return None
        first, second = classes[0].name, classes[1].name
        if second.casefold() in BACKGROUNDS:
            findings.problem(
                "labels",
                f"the labels hold 0 and 255: by the order of classes.txt 255 is {second!r} and 0 is {first!r}, by "
                f"their names it may be the reverse; write the values behind them: {first} 255 and {second} 0, or "
                f"{first} 0 and {second} 255",
            )
            return None
        findings.note("label values", f"0 is {classes[0].name!r} and 255 is {classes[1].name!r}: two classes, and no 1")
        meaning = {0: 0, IGNORE_INDEX: 1} | ({1: 1} if bits else {})
        return Encoding("numbers", meaning)
    if not any({1, IGNORE_INDEX} <= values for values in bytes_):
        whole = next(facts.name for facts, values in counts if IGNORE_INDEX in values)
        part = next(facts.name for facts, values in counts if 1 in values and facts.mode != "1")
        findings.problem(
            "labels",
            f"some labels hold 255 (such as {whole}) and others 1 ({part}), none both: is 255 void, or "
            f"{classes[1].name!r} in masks of 0 and 255? Where it is void, write prepare.options.labels: numbers; else "
            "save all masks alike",
        )
    return None


def _doubt(classes: Sequence[ClassLine], found: Occurrences, findings: Findings) -> None:
    """Labels whose every value is known and yet seems to be meant otherwise."""
    values = set(found) - {IGNORE_INDEX}
    last = len(classes) - 1
    if IGNORE_INDEX in found and values == {0} and last > 0:
        findings.problem(
            "labels",
            f"the labels hold 0 and 255 and nothing else, and classes.txt names {len(classes)} classes, so that all "
            f"but {classes[0].name!r} would be void; write the value that stands for each class behind its name: "
            f"{classes[0].name} 0, {classes[1].name} 255",
        )
    elif values and 0 not in values and max(values) <= last:
        findings.problem(
            "labels",
            f"no label holds a 0, and none a number above {max(values)}: do they count from 1? Then write the value "
            f"that stands for each class behind its name in classes.txt ({_from_one(classes)}). {_CONFIRM}",
        )
    elif IGNORE_INDEX in found and values == set(range(last)):
        findings.problem(
            "labels",
            f"the labels hold {listed(sorted(values))} and 255, and no {last}: is 255 void, or the class "
            f"{classes[last].name!r}? Then write so in classes.txt: {classes[last].name} 255. {_CONFIRM}",
        )


def _unknown(classes: Sequence[ClassLine], by_number: Encoding, found: Occurrences, unknown: Occurrences) -> str:
    known = sorted(by_number.meaning)
    text = f"unknown label {tell(unknown)}; expected {_ranges(known)}. "
    values = sorted(set(found) - {IGNORE_INDEX})
    count = len(classes)
    if len(unknown) > _MANY_VALUES:
        return text + (
            f"{len(found)} different numbers are more than labels have: these may be pictures, or labels that were "
            "resized or compressed with loss"
        )
    if any(line.names_value for line in classes):
        return text + f"classes.txt names the values, and the labels hold {listed(sorted(found))}"
    if values == list(range(1, count + 1)):
        return text + f"Do the labels count from 1? Then write so in classes.txt: {_from_one(classes)}"
    if values == list(range(count + 1)):
        return text + (
            f"{count + 1} numbers for {count} classes: where 0 is void, write prepare.options.void_values: [0] and in "
            f"classes.txt {_from_one(classes)}; else a class is missing there"
        )
    if len(found) == count:
        lines = ", ".join(f"{line.name} {value}" for line, value in zip(classes, sorted(found), strict=True))
        return text + f"Write the value that stands for each class behind its name in classes.txt, such as {lines}"
    return text + (
        "Write the value that stands for a class behind its name in classes.txt (nucleus 128), and those that are "
        f"void as prepare.options.void_values: [{', '.join(map(str, sorted(unknown)[:3]))}]"
    )


def _from_one(classes: Sequence[ClassLine]) -> str:
    shown = [f"{line.name} {index + 1}" for index, line in enumerate(classes[:3])]
    return ", ".join(shown) + (", ..." if len(classes) > 3 else "")


def _ranges(values: Sequence[int]) -> str:
    """`0 to 10, 255`."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
