"""The drawings of docs/architecture.md: `python -m tests.documents.pictures` writes docs/images/{way,house}.svg."""

from __future__ import annotations

from collections.abc import Sequence

from tests.documents.markdown import ROOT

IMAGES = ROOT / "docs" / "images"

# Package -> (colour, what it does in a line or two, its rooms from top to bottom): a room imports lower rooms only.
HOUSE: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "export": (
        "#fbeee0",
        ("from a stripped segmentor to engines", "whose every claim is verified"),
        (
            ("stages", "commands", "check", "compare"),
            ("report",),
            ("certificate",),
            ("latency", "checks", "plans"),
            ("records",),
            ("targets",),
            ("golden",),
            ("artifacts", "machine", "pages"),
            ("graph",),
        ),
    ),
    "pipeline": (
        "#e8f1ea",
        ("from images and labels to a stripped segmentor",),
        (
            ("stages", "commands"),
            ("training",),
            ("losses", "evaluation"),
            ("data/preparing", "data/reading"),
            ("models",),
            ("data/datasets",),
            ("compute", "layout"),
        ),
    ),
    "serving": (
        "#e5edf8",
        ("ships alone: numpy, Pillow", "and one engine library"),
        (
            ("infer", "inspect", "selftest"),
            ("verify_card", "server", "bulk"),
            ("inference", "golden", "card"),
            ("engines", "render"),
            ("images",),
            ("contract",),
        ),
    ),
}

# Stage -> left, top, what stands below its box.
WAY: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "prepare": (20, 80, ("data/prepared",)),
    "train": (225, 80, ("trained/, its curves",)),
    "strip": (415, 80, ("stripped/, without what", "only training needs")),
    "export": (605, 80, ("ARTIFACT/model.onnx,", "manifest, golden/")),
    "verify": (820, 80, ("reports/verify/",)),
    "watch": (20, 190, ("did the data change?", "always runs")),
    "device": (20, 345, ("what machine this is;", "always runs")),
    "compile": (605, 190, ("TARGET/model.plan",)),
    "benchmark": (225, 345, ("latencies of fresh sessions",)),
    "certify": (415, 345, ("certificate.{json,md}",)),
    "report": (605, 345, ("report.{json,md,html}",)),
    "gate": (795, 345, ("lists what failed: exit 1",)),
}
STAGE_WIDTH, STAGE_HEIGHT = 140, 40
ARROWS = (
    "M160 100H223",
    "M34 190V122",  # from watch to prepare
    "M365 100H413",
    "M555 100H603",
    "M745 100H818",
    "M745 110H775V210H747",  # from export to compile
    "M745 218H790V112H818",  # from compile to verify
    "M890 142V300H295V343",  # from verify to benchmark
    "M365 365H413",
    "M555 365H603",
    "M745 365H793",
)

_STYLE = """<style>
  .box { fill: #ffffff; stroke: #44546a; stroke-width: 1.4 }
  .name { font-weight: bold; fill: #1c2733; text-anchor: middle }
  .note { font-size: 11px; fill: #4d5b6a; text-anchor: middle }
  .arrow { fill: none; stroke: #44546a; stroke-width: 1.6; marker-end: url(#tip) }
</style>
<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0L10 5L0 10z" fill="#44546a"/></marker></defs>"""


def _picture(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="\'DejaVu Sans\', Verdana, Helvetica, Arial, sans-serif" font-size="13" role="img">',
            f"<title>{title}</title>",
            _STYLE,
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _text(kind: str, centre: float, baseline: float, words: str, size: int | None = None) -> str:
    larger = f' font-size="{size}"' if size else ""
    return f'<text class="{kind}" x="{centre:g}" y="{baseline:g}"{larger}>{words}</text>'


def _box(mark: str, left: float, top: float, width: float, height: float, inside: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<g {mark}><rect class="box" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6"{dash}/>'
        f"{inside}</g>"
    )


def way() -> str:
    """The stages of dvc.yaml and what each leaves behind."""
    parts = [
        '<rect x="205" y="24" width="775" height="252" rx="10" fill="#e8f1ea"/>',
        _text("note", 365, 46, "once for every branch: a method with a seed", 12),
    ]
    for stage, (left, top, notes) in WAY.items():
        centre = left + STAGE_WIDTH // 2
        inside = _text("name", centre, top + 25, stage)
        below = [_text("note", centre, top + STAGE_HEIGHT + 16 + 14 * line, note) for line, note in enumerate(notes)]
        mark = f'data-stage="{stage}"'
        parts += [_box(mark, left, top, STAGE_WIDTH, STAGE_HEIGHT, inside, dashed=stage in ("device", "watch")), *below]
    parts += [f'<path class="arrow" d="{path}"/>' for path in ARROWS]
    return _picture(1000, 440, "The stages of dvc.yaml and what each leaves behind", parts)


def house() -> str:
    """The rooms of the three packages: imports go right and down."""
    column, gap, top, row_height, box_height, margin = 340, 20, 78, 46, 32, 14
    rows_most = max(len(rows) for _, _, rows in HOUSE.values())
    bottom = top + rows_most * row_height - 4
    parts = []
    for number, (package, (colour, notes, rows)) in enumerate(HOUSE.items()):
        left = 10 + number * (column + gap)
        centre = left + column / 2
        parts.append(f'<rect x="{left}" y="10" width="{column}" height="{bottom - 10}" rx="10" fill="{colour}"/>')
        parts.append(_text("name", centre, 35, package, 16))
        parts += [_text("note", centre, 53 + 14 * line, note) for line, note in enumerate(notes)]
        for row, names in enumerate(rows):
            # What is left beside the words is shared out, so that long names fit beside short ones.
            free = column - 2 * margin - 10 * (len(names) - 1) - 8.6 * sum(map(len, names))
            x, y = float(left + margin), top + row * row_height
            for name in names:
                width = round(8.6 * len(name) + free / len(names), 1)
                mark = f'data-room="{package}.{name.replace("/", ".")}"'
                parts.append(_box(mark, x, y, width, box_height, _text("name", x + width / 2, y + 21, name, 12)))
                x += width + 10
    parts.append(f'<path class="arrow" d="M180 {bottom + 24}H895"/>')
    parts.append(_text("note", 540, bottom + 44, "imports go to the right and down, never to the left or up", 12))
    return _picture(1080, bottom + 60, "The rooms of the three packages; imports go right and down", parts)


PICTURES = {"way.svg": way, "house.svg": house}


def main() -> None:
    """Write both."""
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
