"""What `contrail import` runs in the environment of `make formats`; nothing of Contrail that needs torch is loaded."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.data.datasets.folder.classes import distinct_colour
from pipeline.data.datasets.shared.facts import listed
from pipeline.data.datasets.shared.labels import IGNORE_INDEX
from pipeline.data.importing.detection import Detected, detect
from pipeline.data.importing.export import Export, Overlap, Problems, Shape, plain_name
from pipeline.data.importing.items import add_coco, add_shapes, read_items, read_labelme_xml, read_voc
from pipeline.data.importing.options import add_options
from pipeline.data.importing.painting import Rules, Tally
from pipeline.data.importing.tools.coco import read_coco
from pipeline.data.importing.tools.cvat import read_cvat
from pipeline.data.importing.tools.labelme import read_labelme
from pipeline.data.importing.tools.yolo import read_yolo
from pipeline.data.importing.writing import write_folder
from serving.contract.errors import UserError, shown

_WHERE_DRAWN = {"yolo": "expected labels/NAME.txt for images/NAME"}
_BACKGROUND = ("background", "_background_", "bg", "__background__")


def main() -> int:
    """Import, and say what was done. Raises UserError for whatever is wrong with the export."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    arguments = parser.parse_args()
    source, output = arguments.source.resolve(), arguments.output.absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{shown(output)}: exists already; choose another folder, or remove it")
    if source == output or source in output.parents:
        raise UserError(f"{shown(output)}: lies in the export; choose a folder outside it")
    problems = Problems(source)
    detected = detect(source, arguments.format)
    with tempfile.TemporaryDirectory(prefix="contrail-import-") as scratch:
        export = _read(source, detected, Path(scratch), problems)
        problems.raise_any()
        if not export.pictures:
            raise UserError(f"{shown(source)}: the export lists no image")
        if not any(picture.shapes for picture in export.pictures):
            raise UserError(
                f"{shown(source)}: nothing is drawn on any of the {len(export.pictures)} images that the export lists; "
                f"{_WHERE_DRAWN.get(export.format, 'are these the annotations?')}"
            )
        export, names, elsewhere = _with_background(export, arguments.background)
        overlap: Overlap = arguments.overlap or ("last" if export.ordered else "void")
        rules = Rules(overlap, arguments.boxes, arguments.crowd, elsewhere, export.void)
        export, names, rules = _without_void(export, names, rules)
        tally, notes = write_folder(export, rules, names, output, problems, arguments.drawn_on)
    for line in _told(source, output, export, rules, names, tally, notes):
        sys.stdout.write(f"{shown(line)}\n")
    return 0


def _read(source: Path, detected: Detected, scratch: Path, problems: Problems) -> Export:
    if detected.format == "voc":
        return replace(read_voc(detected.files[0], problems), format="voc")
    if detected.format == "labelme-xml":
        return read_labelme_xml(source, problems)
    if detected.format == "cvat":
        export = read_cvat(source, detected.files, scratch / "cvat", problems)
        problems.raise_any()
        add_shapes(read_items(scratch / "cvat", "cvat"), export.pictures, len(export.labels), export.left_out)
        return export
    if detected.format == "yolo":
        subsets, export = read_yolo(source, detected.files[0], problems)
    elif detected.format == "labelme":
        subsets, export = read_labelme(source, detected.files, problems)
    else:
        subsets, export = read_coco(source, detected.files, problems)
    problems.raise_any()
    for number, subset in enumerate(subsets):
        if subset.pictures:
            add_coco(subset, scratch / str(number), export.left_out)
    return replace(export, format=detected.format, pictures=[one for subset in subsets for one in subset.pictures])


def _with_background(export: Export, wanted: str | None) -> tuple[Export, list[str], int]:
    """The class of pixels in no shape: the one that is wanted or called background, else a new first one."""
    names = [plain_name(name) for name in export.labels]
    if "" in names or len(set(names)) < len(names):
        raise UserError(
            f"the export has two classes of one name, or one without a name: {listed(map(repr, names), 30)}"
        )
    if wanted == "void":
        return export, names, IGNORE_INDEX
    if wanted is not None and wanted not in names:
        raise UserError(f"--background: {wanted!r} is no class; the export has {listed(names, 30)}, or write void")
    for index, name in enumerate(names):
        if name == wanted or (wanted is None and name.casefold() in _BACKGROUND):
            return export, names, index
    for picture in export.pictures:
        picture.shapes = [replace(shape, label=shape.label + 1) for shape in picture.shapes]
    colours = export.colours
    if colours is not None:
        first = next(
            colour for colour in ((0, 0, 0), *map(distinct_colour, range(300))) if colour not in set(colours or ())
        )
        colours = [first, *colours]
    void = None if export.void is None else export.void + 1
    return replace(export, colours=colours, void=void), ["background", *names], 0


def _without_void(export: Export, names: list[str], rules: Rules) -> tuple[Export, list[str], Rules]:
    """A class that means void is none: it goes to the end, where no class of a label has its number."""
    void = rules.void
    if void is None:
        return export, names, rules
    order = [index for index in range(len(names)) if index != void] + [void]
    moved = {old: new for new, old in enumerate(order)}

    def renumbered(shape: Shape) -> Shape:
        return replace(shape, label=moved[shape.label])

    for picture in export.pictures:
        picture.shapes = list(map(renumbered, picture.shapes))
    colours = None if export.colours is None else [export.colours[index] for index in order[:-1]]
    export.notes.append(f"{names[void]!r} is void: its pixels are ignored in training and in scores")
    elsewhere = IGNORE_INDEX if rules.elsewhere in (void, IGNORE_INDEX) else moved[rules.elsewhere]
    rules = replace(rules, void=len(names) - 1, elsewhere=elsewhere)
    return replace(export, colours=colours), [names[index] for index in order[:-1]], rules


def _told(
    source: Path,
    output: Path,
    export: Export,
    rules: Rules,
    names: list[str],
    tally: Tally,
    notes: list[str],
) -> Iterator[str]:
    """What was done, a line each."""
    total = sum(tally.pixels.values())
    yield f"{source}: {export.format}, {len(export.pictures)} images"
    yield f"{output}: written, images linked; {len(names)} classes: {listed(names, 30)}"
    kinds = ", ".join(f"{count} {_plural(kind, count)}" for kind, count in sorted(tally.shapes.items()))
    yield f"drawn: {kinds or 'nothing'}"
    where = "void" if rules.elsewhere == IGNORE_INDEX else repr(names[rules.elsewhere])
    yield f"pixels in no annotation are {where}; {tally.blank} images have none at all"
    if tally.twice:
        meant = {"last": "the one drawn last counts", "smallest": "the smallest counts", "void": "they are void"}
        yield (
            f"overlap: {tally.twice} pixels ({100 * tally.twice / total:.2f} %) of {tally.pictures_twice} images lie "
            f"in annotations of several classes: {meant[rules.overlap]} (--overlap)"
        )
        if rules.overlap == "void":
            yield "  where small things lie on large ones, such as windows on a house: --overlap smallest"
    if tally.boxes:
        meant = {
            "void": "their pixels are void where neither a mask of their class nor one above them covers them",
            "fill": "they were filled",
            "leave-out": "they were left out",
        }
        yield f"boxes: {tally.boxes} have no mask: {meant[rules.boxes]} (--boxes)"
    if tally.crowds:
        meant = {"class": "are of their class", "void": "are void"}
        yield f"crowds: the pixels of {tally.crowds} regions of many objects (iscrowd) {meant[rules.crowd]} (--crowd)"
    for kind, count in sorted(export.left_out.items()):
        yield f"left out: {count} {_plural(kind, count)}, which {'cover' if count != 1 else 'covers'} no pixels"
    if tally.nothing:
        yield f"{tally.nothing} annotations are so small or so far outside that they cover no pixel"
    absent = [name for index, name in enumerate(names) if not Counter(tally.pixels)[index]]
    if absent:
        yield f"classes without a pixel: {listed(absent, 30)}"
    yield from export.notes
    yield from notes
    yield ""
    yield "paste this over the section `prepare` of params.yaml, then: make repro"
    yield ""
    yield "prepare:"
    yield "  dataset: folder"
    yield f"  root: {output}"
    yield "  options: {}"


def _plural(kind: str, count: int) -> str:
    kind = kind.replace("_", " ")
    plain = kind if not kind.endswith("s") or count == 1 else kind[:-1]
    if count == 1:
        return plain
    return f"{plain}es" if plain.endswith(("s", "x")) else f"{plain}s"
