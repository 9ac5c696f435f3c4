"""A description as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.data.datasets.shared.facts import listed
from pipeline.data.describing.description import Description

_MOST = 6


def to_text(description: Description) -> str:
    """The whole description; the section to paste comes last."""
    return "\n".join(_lines(description)) + "\n"


def _lines(description: Description) -> Iterator[str]:
    yield f"{description.root}"
    yield f"read as: {description.dataset}, since {description.why}"
    counts = ", ".join(f"{count} {split}" for split, count in description.images.items())
    yield f"images with labels: {counts or 'none'}; {description.looked_at} looked at"
    for what, found in (
        ("sizes", description.image_sizes),
        ("images", description.image_kinds),
        ("labels", description.label_kinds),
    ):
        yield f"{what}: {_counted(found)}"
    images, labels = description.turned
    yield f"EXIF orientation: {images} images, {labels} labels"
    yield from _classes(description)
    for kind, lines in description.problems.items():
        yield ""
        yield f"PROBLEM, {kind}: {lines[0]}"
        yield from (f"  {line}" for line in lines[1:_MOST])
        if len(lines) > _MOST:
            yield f"  and {len(lines) - _MOST} more"
    yield ""
    yield from (f"warning: {warning}" for warning in description.warnings)
    yield from (f"note: {note}" for note in description.notes)
    yield ""
    if description.problems:
        yield "`prepare` would refuse this; mend the problems first. As it is, the section of params.yaml is"
    else:
        yield "paste this over the section `prepare` of params.yaml, then: make repro"
    yield ""
    yield description.section_text().rstrip()


def _classes(description: Description) -> Iterator[str]:
    yield f"classes, from {description.classes_from}:"
    if not description.classes:
        yield "  it is not settled what the labels mean"
        return
    splits = list(description.classes[0].shares)
    width = max(len(one.name) for one in description.classes)
    yield f"  {'':{width}}" + "".join(f"{split:>10}" for split in splits) + "    images"
    for one in description.classes:
        shares = "".join(f"{100 * one.shares[split]:8.2f} %" for split in splits)
        yield f"  {one.name:{width}}{shares}{one.images:10}"


def _counted(found: Mapping[str, int]) -> str:
    return listed((f"{what} ({count})" for what, count in found.items()), _MOST) or "none"
