"""What the engines in INT8 were quantised with, and where it was less than was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from export.pages.document import Block, Bullets

Report = Mapping[str, Any]


def quantisation_blocks(report: Report) -> list[Block]:
    """A line for each engine in INT8 whose manifest says what it was calibrated on."""
    rows = [(row, row["quantisation"]) for row in report["targets"] if row.get("quantisation")]
    lines = [
        f"`{row['method']}` seed {row['seed']}, `{row['target']}`: ranges from {_images(found, 'calibration')}, layers "
        f"chosen by {_images(found, 'held_out')}, where INT8 loses {_loss(found)}."
        for row, found in rows
    ]
    return [Bullets(lines)] if lines else []


def shortfalls(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What must hold of a row's `quantisation`, and what was found instead, where it was less than was asked for."""
    for part, rule in (
        ("calibration", "ranges are measured on as many images as were asked for"),
        ("held_out", "layers are chosen by as many images as were asked for"),
    ):
        if _is_short(found, part):
            yield rule, f"{_images(found, part)}: the split has no more that no reported one holds"
    if not found["within_limit"]:
        rule = f"INT8 loses at most {found['limit_points']:g} points of mIoU where its layers are chosen"
        yield rule, f"{found['miou_drop_points']:.3f} points lost"


def _is_short(found: Mapping[str, Any], part: str) -> bool:
    asked = found[part]["asked"]
    return asked is not None and found[part]["images"] < asked


def _images(found: Mapping[str, Any], part: str) -> str:
    other = "other " if part == "held_out" else ""
    asked = f" ({found[part]['asked']} were asked for)" if _is_short(found, part) else ""
    return f"{found[part]['images']} {other}training images{asked}"


def _loss(found: Mapping[str, Any]) -> str:
    limit = "the limit is" if found["within_limit"] else "**more** than the limit of"
    return f"{found['miou_drop_points']:.3f} points ({limit} {found['limit_points']:g})"
