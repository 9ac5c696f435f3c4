"""Labels with palettes: whether the index of a pixel or its colour is what the owner meant.

A palette may be for the eye alone (any colours, the same in all files), or it may be all that tells the classes apart:
a program that reduces a drawing to a palette numbers the colours anew in every file.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.data.datasets.folder.classes import ClassLine
from pipeline.data.datasets.folder.meaning.encoding import Encoding, Kind
from pipeline.data.datasets.folder.meaning.views import as_colours, occurrences, show_colour, tell
from pipeline.data.datasets.shared.facts import Findings, LabelFacts, colour_code
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, Colour

_SAY = (
    "write prepare.options.labels: colours where the colours are meant (classes.txt then names one for every class), "
    "or labels: numbers where the indices are"
)


def has_palette(facts: LabelFacts) -> bool:
    """Whether a label has a palette that is more than grey: index k shown as grey k says nothing."""
    return any(colour != (index, index, index) for index, colour in facts.palette.items())


def settle_palettes(
    classes: Sequence[ClassLine],
    by_number: Encoding,
    by_colour: Encoding | None,
    all_facts: Sequence[LabelFacts],
    findings: Findings,
) -> Kind | None:
    """Whether index or colour is meant, where no label has true colours and some have palettes.

    Args:
        classes: of classes.txt.
        by_number: what the indices would mean.
        by_colour: what the colours would mean; None unless every class has one.
        all_facts: of all labels.
        findings: gets a problem where it cannot be told, and a warning or note where it can.

    Returns:
        None where it cannot be told.
    """
    drawn = [facts for facts in all_facts if has_palette(facts)]
    contradiction = _contradiction(drawn)
    if by_colour is None:
        if contradiction is None:
            return "numbers"
        findings.problem("palettes", f"the palettes of the labels contradict each other: {contradiction}; {_SAY}")
        return None
    pairs = {(index, colour): facts for facts in drawn for index, colour in facts.palette.items()}
    if all(_agree(index, colour, by_number, by_colour) for index, colour in pairs):
        return "numbers"
    unknown = {
        (index, colour): facts
        for (index, colour), facts in pairs.items()
        if colour_code(colour) not in by_colour.meaning
    }
    index_unknown = any(index not in by_number.meaning for index, _ in pairs)
    if not unknown and (contradiction is not None or index_unknown):
        why = contradiction or "some indices are no class"
        findings.note(
            "palettes", f"labels are read by the colours of their palettes, which are those of classes.txt: {why}"
        )
        return "colours"
    other = [
        (index, colour, facts)
        for (index, colour), facts in pairs.items()
        if (index, colour) not in unknown and not _agree(index, colour, by_number, by_colour)
    ]
    if contradiction is not None:
        found = occurrences((facts, as_colours(facts) or {}) for facts in drawn)
        strange = {code: where for code, where in found.items() if code not in by_colour.meaning}
        findings.problem(
            "palettes",
            f"the palettes of the labels contradict each other: {contradiction}; and they hold colours that are not in "
            f"classes.txt: {tell(strange, show_colour)}; {_SAY}",
        )
        return None
    if other:
        index, colour, facts = other[0]
        meant = classes[by_colour.meaning[colour_code(colour)]].name
        train = by_number.meaning.get(index, IGNORE_INDEX)
        as_index = classes[train].name if train != IGNORE_INDEX else "no class"
        findings.problem(
            "palettes",
            f"index {index} is drawn in {colour}, in {facts.name} and others: by its number it is {as_index!r}, by its "
            f"colour in classes.txt {meant!r}; {_SAY}",
        )
        return None
    findings.warn(
        "palette",
        f"labels are read by their indices; their palettes, the same in all files, hold colours that are not those of "
        f"classes.txt (such as {next(iter(unknown))[1]} for index {next(iter(unknown))[0]}); to confirm, write "
        "prepare.options.labels: numbers",
    )
    return "numbers"


def _agree(index: int, colour: Colour, by_number: Encoding, by_colour: Encoding) -> bool:
    """Whether number and colour mean the same; void may be drawn in any colour that is no class's."""
    train = by_number.meaning.get(index)
    return train is not None and by_colour.meaning.get(colour_code(colour), IGNORE_INDEX) == train


def _contradiction(drawn: Sequence[LabelFacts]) -> str | None:
    """How two palettes contradict each other in what is used of them, or None."""
    colour_of_index: dict[int, tuple[Colour, str]] = {}
    index_of_colour: dict[Colour, tuple[int, bytes | None, str]] = {}
    for facts in drawn:
        for index, colour in facts.palette.items():
            first, where = colour_of_index.setdefault(index, (colour, facts.name))
            if first != colour:
                return f"index {index} is {first} in {where} and {colour} in {facts.name}"
            known, key, place = index_of_colour.setdefault(colour, (index, facts.palette_key, facts.name))
            if known != index and key != facts.palette_key:
                return f"{colour} is index {known} in {place} and index {index} in {facts.name}"
    return None
