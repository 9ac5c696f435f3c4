"""What the values in a folder's labels mean, from all of its labels together: taken where it is certain, else asked.

One label alone tells little: a mask of 0 and 255 may show an object or a void region, and labels that count from 1 look
like labels that count from 0 until the last class occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipeline.data.datasets.folder.classes import ClassLine
from pipeline.data.datasets.folder.meaning.encoding import Encoding, Kind
from pipeline.data.datasets.folder.meaning.numbers import settle_numbers
from pipeline.data.datasets.folder.meaning.palettes import has_palette, settle_palettes
from pipeline.data.datasets.folder.meaning.views import (
    Occurrences,
    as_colours,
    as_numbers,
    is_grey,
    occurrences,
    show_colour,
    tell,
)
from pipeline.data.datasets.folder.options import FolderOptions
from pipeline.data.datasets.shared.facts import Findings, LabelFacts, colour_code, listed
from pipeline.data.datasets.shared.labels import IGNORE_INDEX

_MANY_COLOURS = 24


def settle(
    classes: Sequence[ClassLine], options: FolderOptions, all_facts: Sequence[LabelFacts], findings: Findings
) -> Encoding | None:
    """What the values mean.

    Args:
        classes: of classes.txt.
        options: what the user says.
        all_facts: of every label of every split.
        findings: gets problems, warnings and notes.

    Returns:
        None where it cannot be told; `findings` then has a problem.
    """
    settling = _Settling(tuple(classes), options, tuple(all_facts), findings)
    kind = settling.kind()
    encoding = None
    if kind == "colours":
        encoding = settling.colours()
    elif kind == "numbers":
        encoding = settling.numbers()
    return encoding


@dataclass(frozen=True)
class _Settling:
    classes: tuple[ClassLine, ...]
    options: FolderOptions
    all_facts: tuple[LabelFacts, ...]
    findings: Findings

    @cached_property
    def _by_number(self) -> Encoding:
        return Encoding.of_lines(self.classes, (IGNORE_INDEX, *self.options.void_values))

    @cached_property
    def _by_colour(self) -> Encoding | None:
        """What colours mean; None where not every class has one of its own."""
        colours = {line.colour for line in self.classes}
        if None in colours or len(colours) < len(self.classes):
            return None
        return Encoding.of_colours(self.classes, self.options.void_colours)

    def kind(self) -> Kind | None:
        """Whether labels are told by number or by colour."""
        if self.options.labels != "auto":
            return self.options.labels
        if any(facts.coloured and not is_grey(facts) for facts in self.all_facts):
            return "colours"
        if any(has_palette(facts) for facts in self.all_facts):
            return settle_palettes(self.classes, self._by_number, self._by_colour, self.all_facts, self.findings)
        return self._kind_of_grey()

    def _kind_of_grey(self) -> Kind | None:
        """One channel, or three equal ones: numbers, unless they are the grey colours of classes.txt."""
        if self._by_colour is None:
            return "numbers"
        colours = self._occurrences("colours")
        numbers = self._occurrences("numbers")
        known_colours = colours is not None and all(value in self._by_colour.meaning for value in colours)
        known_numbers = numbers is not None and all(value in self._by_number.meaning for value in numbers)
        if not known_colours:
            return "numbers" if known_numbers or not any(facts.coloured for facts in self.all_facts) else "colours"
        if not known_numbers:
            return "colours"
        assert numbers is not None
        shades = {  # number -> the grey that it is seen as: of one bit, 1 is white
            (value, value * (255 if facts.mode == "1" else 1))
            for facts in self.all_facts
            for value in as_numbers(facts) or ()
        }
        if all(
            self._by_number.meaning.get(value) == self._by_colour.meaning.get(colour_code((grey, grey, grey)))
            for value, grey in shades
        ):
            return "numbers"
        labelled = {self._by_number.meaning[value] for value in numbers} - {IGNORE_INDEX}
        if len(labelled) < 2:  # as numbers, nothing but void would be left beside one class
            return "colours"
        self.findings.problem(
            "labels",
            f"the values {listed(sorted(numbers))} are both numbers of classes and their colours in classes.txt, and "
            "mean different classes; write prepare.options.labels: numbers, or colours",
        )
        return None

    def colours(self) -> Encoding | None:
        """Every colour must be one of classes.txt, exactly."""
        if self._by_colour is None:
            self._ask_for_colours()
            return None
        numbers = [facts.name for facts in self.all_facts if as_colours(facts) is None]
        if numbers:
            self.findings.problem(
                "bad label",
                f"{len(numbers)} of {len(self.all_facts)} labels hold numbers beyond 255, the others colours: "
                f"{listed(numbers, 3)}; expected one kind throughout",
            )
            return None
        found = self._occurrences("colours") or {}
        unknown = {code: where for code, where in found.items() if code not in self._by_colour.meaning}
        if unknown:
            self.findings.problem("bad label", self._unknown_colours(unknown))
        if self.options.void_values:
            self.findings.problem(
                "options", "void_values: these labels are told by their colours; write void_colours instead"
            )
        clash = [line.name for line in self.classes if line.colour in self.options.void_colours]
        if clash:
            self.findings.problem(
                "options", f"void_colours holds the colour of {listed(clash)}, a class in classes.txt"
            )
        transparent = self._refuse_transparent([facts for facts in self.all_facts if facts.hidden])
        if transparent or unknown or clash or self.options.void_values:
            return None
        return replace(self._by_colour, transparent_void=self.options.transparent == "void")

    def numbers(self) -> Encoding | None:
        """Every number must be a class's or void."""
        drawn = [facts for facts in self.all_facts if as_numbers(facts) is None]
        if drawn:
            self.findings.problem(
                "bad label",
                f"{len(drawn)} of {len(self.all_facts)} labels hold colours, such as {drawn[0].name}; expected one "
                "channel of class numbers (mode L or P), or prepare.options.labels: colours",
            )
            return None
        if self._refuse_transparent(
            [facts for facts in self.all_facts if as_numbers(facts, opaque=True) != as_numbers(facts)]
        ):
            return None
        clash = [line for line in self.classes if line.value in self.options.void_values]
        if clash:
            told = listed(f"{line.value}, which is {line.name!r}" for line in clash)
            self.findings.problem(
                "options",
                f"void_values holds {told} by classes.txt; where it is void, write the values of the classes behind "
                "their names, without it",
            )
        if self.options.void_colours:
            self.findings.problem(
                "options", "void_colours: these labels are told by their numbers; write void_values instead"
            )
        if clash or self.options.void_colours:
            return None
        encoding = settle_numbers(self.classes, self._by_number, self.options, self.all_facts, self.findings)
        return encoding and replace(encoding, transparent_void=self.options.transparent == "void")

    def _occurrences(self, kind: Kind) -> Occurrences | None:
        """All values, or None where some label has none of the kind."""
        opaque = self.options.transparent == "void"
        view = as_numbers if kind == "numbers" else as_colours
        pairs = [(facts, view(facts, opaque=opaque)) for facts in self.all_facts]
        if any(counts is None for _, counts in pairs):
            return None
        return occurrences((facts, counts) for facts, counts in pairs if counts is not None)

    def _ask_for_colours(self) -> None:
        nameless = [line.name for line in self.classes if line.colour is None]
        drawn = [facts for facts in self.all_facts if facts.coloured]
        found = tell(self._occurrences("colours") or {}, show_colour)
        if not nameless:
            equal = [
                line.name for line in self.classes if [other.colour for other in self.classes].count(line.colour) > 1
            ]
            self.findings.problem("labels", f"classes.txt gives one colour to several classes: {listed(equal)}")
            return
        self.findings.problem(
            "labels",
            f"{len(drawn)} of {len(self.all_facts)} labels hold colours, not numbers, and classes.txt has none for "
            f"{listed(nameless)}; write it behind the name (road 128 64 128). The colours found are {found}",
        )

    def _unknown_colours(self, unknown: Occurrences) -> str:
        text = (
            f"unknown label colour {tell(unknown, show_colour)}; expected one of the {len(self.classes)} colours of "
            "classes.txt, exactly. "
        )
        if len(unknown) > _MANY_COLOURS:
            return text + (
                "So many colours come from soft edges, from resizing or from lossy compression: export the labels anew "
                "without"
            )
        example = list(max(unknown, key=lambda code: unknown[code][0]).to_bytes(3, "big"))
        return text + f"A colour that is void: prepare.options.void_colours: [{example}]"

    def _refuse_transparent(self, seen: Sequence[LabelFacts]) -> bool:
        """Whether some labels are not opaque and nothing says what that means."""
        if not seen or self.options.transparent == "void":
            return False
        pixels = sum(sum(facts.hidden.values()) for facts in seen)
        self.findings.problem(
            "transparency",
            f"{pixels} pixels of {len(seen)} labels are not opaque, such as in {seen[0].name}; if they are void, write "
            "prepare.options.transparent: void, else save the labels without transparency",
        )
        return True
