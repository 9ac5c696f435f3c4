"""The facts of labels seen as numbers and as colours."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.data.datasets.shared.facts import Counts, LabelFacts, colour_code, colour_of, listed

Occurrences = dict[int, tuple[int, int, str]]
"""Value -> pixels, files, and the name of the first file that it occurs in."""


def is_grey(facts: LabelFacts) -> bool:
    """Whether a label in colours holds three equal channels throughout, as a grey picture saved in colour does."""
    return facts.coloured and all(red == green == blue for red, green, blue in map(colour_of, facts.counts))


def as_numbers(facts: LabelFacts, *, opaque: bool = False) -> Counts | None:
    """Number -> pixels; None for a label of colours.

    Args:
        facts: of a label.
        opaque: leave out pixels that are not. An index of a palette has its number however transparent its colour is.
    """
    if facts.coloured and not is_grey(facts):
        return None
    counts = facts.counts
    if opaque and facts.mode not in ("P", "1", "L"):
        counts = _without(counts, facts.hidden)
    return {code & 255: count for code, count in counts.items()} if facts.coloured else counts


def as_colours(facts: LabelFacts, *, opaque: bool = False) -> Counts | None:
    """Colour as one number -> pixels; None for numbers that no picture shows.

    Args:
        facts: of a label.
        opaque: leave out pixels that are not.
    """
    counts = _without(facts.counts, facts.hidden) if opaque else facts.counts
    if facts.coloured:
        return counts
    if facts.palette_key is None and any(not 0 <= value <= 255 for value in counts):
        return None
    white = 255 if facts.mode == "1" else 1
    found: dict[int, int] = {}
    for value, count in counts.items():
        grey = value * white
        code = colour_code(facts.palette[value] if facts.palette_key is not None else (grey, grey, grey))
        found[code] = found.get(code, 0) + count
    return found


def occurrences(all_counts: Iterable[tuple[LabelFacts, Counts]]) -> Occurrences:
    """Where the values of labels occur."""
    found: Occurrences = {}
    for facts, counts in all_counts:
        for value, count in counts.items():
            pixels, files, first = found.get(value, (0, 0, facts.name))
            found[value] = (pixels + count, files + 1, first)
    return found


def tell(found: Occurrences, show: Callable[[int], str] = str, limit: int = 12) -> str:
    """`128: 512 pixels in 3 files, such as labels/a.png; ...`, the most frequent first."""
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    lines = [
        f"{show(value)}: {pixels} pixel{'s' * (pixels != 1)} in {files} file{'s' * (files != 1)}, such as {first}"
        for value, (pixels, files, first) in ordered
    ]
    return listed(lines, limit, separator="; ")


def show_colour(code: int) -> str:
    """`(128, 64, 128)`."""
    return str(colour_of(code))


def _without(counts: Counts, hidden: Counts) -> Counts:
    if not hidden:
        return counts
    rest = {value: count - hidden.get(value, 0) for value, count in counts.items()}
    return {value: count for value, count in rest.items() if count}
