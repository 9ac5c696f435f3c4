"""report.json as a page, and its short form for the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.certificate.page import certificate_blocks
from export.machine.hardware import device_summary
from export.pages.document import Block, Figure, Heading, Paragraph
from export.pages.formatting import prose
from export.report.blocks import (
    QUICK,
    benchmark_blocks,
    checks_blocks,
    classes_blocks,
    data_blocks,
    machine_blocks,
    origin,
    targets_blocks,
    training_blocks,
    training_time_blocks,
)
from export.report.evidence.quantisation import quantisation_blocks

Report = Mapping[str, Any]

FIGURES = {
    "plots/certificate.png": "Latency relative to the baseline: every dot is a fresh pair of sessions, the bar is the "
    "interval of the median, the band is the margin. The control is the baseline against itself.",
    "plots/latency.png": "Latency of one image, by target: median with its 95 % interval over sessions, p90 and p99.",
    "plots/tradeoff.png": "Accuracy against median latency.",
    "plots/size.png": "Accuracy against the size of the engine's file.",
    "plots/classes.png": "IoU per class on the certified target.",
    "plots/training.png": "Cross entropy, averaged over the iterations since the point before, and mIoU on the "
    "validation images. A line is a branch; branches of one method share a colour.",
    "plots/training_time.png": "Where the time went while it was trained: a step is an epoch or what lies between two "
    "reports of metrics.",
}
_OF_TRAININGS = ("plots/training.png", "plots/training_time.png")  # where the trainings ran on this machine


def report_page(report: Report, figures: Sequence[str] | None = None) -> list[Block]:
    """The whole report.

    Args:
        report: report.json.
        figures: names of the plots that there are; None for all that a report with this content can have.
    """
    if figures is None:
        timed = any((row.get("time") or {}).get("epochs") for row in report.get("training", ()))
        there = dict(zip(_OF_TRAININGS, (report.get("curves"), timed), strict=True))
        figures = [name for name in FIGURES if there.get(name, True)]
    shown = [Figure(path, FIGURES[path]) for path in figures]
    by_name = {figure.path: figure for figure in shown}

    def plot(name: str) -> list[Block]:
        return [by_name[f"plots/{name}.png"]] if f"plots/{name}.png" in by_name else []

    return [
        Heading(1, "Contrail report"),
        Paragraph(origin(report)),
        *([Paragraph(QUICK)] if report["profile"] == "quick" else []),
        *data_blocks(report),
        Heading(2, "Does the contrast cost anything at inference?"),
        *certificate_blocks(report["certificate"]),
        *plot("certificate"),
        Heading(2, "Engines"),
        *targets_blocks(report),
        *quantisation_blocks(report),
        *plot("latency"),
        *plot("tradeoff"),
        *plot("size"),
        Heading(2, "Training"),
        *training_blocks(report),
        *training_time_blocks(report),
        *plot("training_time"),
        *plot("training"),
        *classes_blocks(report),
        *plot("classes"),
        *checks_blocks(report),
        *benchmark_blocks(report),
        Heading(2, "Machine"),
        *machine_blocks(report),
    ]


def readme_page(report: Report) -> list[Block]:
    """The results block of the README."""
    return [
        Paragraph(origin(report)),
        *targets_blocks(report),
        *certificate_blocks(report["certificate"], short=True),
        Paragraph(
            f"Latency: median of one image on {prose(device_summary(report['device']))}"
            + (" (profile `quick`: brief measurements)." if report["profile"] == "quick" else ".")
        ),
    ]
