"""A report as one HTML file: what the template shows, and the template filled in."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from export.certificate.page import certificate_blocks
from export.pages.document import Block, Paragraph, to_markdown
from export.pages.formatting import percent, shortened
from export.report.blocks import (
    QUICK,
    benchmark_blocks,
    checks_blocks,
    data_blocks,
    machine_blocks,
    origin,
    targets_blocks,
    training_blocks,
    training_time_blocks,
)
from export.report.encoding import inline_svg, svg
from export.report.evidence.gathering import Evidence, shown_method
from export.report.evidence.pictures import OUTCOMES, Picture
from export.report.evidence.quantisation import quantisation_blocks
from export.report.gate import Finding
from export.report.page import FIGURES
from export.report.verdict import verdict
from export.report.web.markdown import to_html
from export.report.web.tables import (
    classes_table,
    confusion_table,
    provenance_blocks,
    reliability_blocks,
    seeds_blocks,
)

Report = Mapping[str, Any]

HERE = Path(__file__).parent
CHART_CAPTIONS = {
    "plots/latency_ecdf.png": "Latency of one image: share of the queries that took at most so long, all sessions "
    "together, nothing left out. A colour is a method, a line style is a target.",
    "plots/control_ecdf.png": "Latency over the baseline's in the same block. The thick grey line is the baseline "
    "against itself: where a method's line lies upon it, the two cannot be told apart.",
    "plots/embeddings.png": "A dot is a labelled pixel, its colour the class.",
    "plots/reliability.png": "Share of right pixels against the engine's confidence.",
}
_LARGEST_MATRIX = 32  # classes; above, only the largest confusions are listed


def html_page(report: Report, evidence: Evidence, findings: Sequence[Finding], figures: Mapping[str, Figure]) -> str:
    """report.html: style, script and images inside, nothing fetched.

    Args:
        report: report.json.
        evidence: what lies behind it.
        findings: of the gate.
        figures: name under `reports/` -> plot or chart.
    """
    shown = shown_method(report)
    captions = FIGURES | CHART_CAPTIONS
    drawn = {}
    for path, figure in figures.items():
        name = Path(path).stem
        drawn[name] = {"svg": Markup(inline_svg(svg(figure, name), name, captions[path])), "caption": captions[path]}
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja").render(
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "script.js").read_text(encoding="utf-8")),
        report=report,
        shown=shown,
        several=len({row["seed"] for row in report["targets"]}) > 1,
        verdict=verdict(report, findings),
        shortened=shortened,
        figures=drawn,
        pictures=_pictures(evidence),
        outcomes=OUTCOMES,
        palette=dict(zip(evidence.class_names, evidence.palette, strict=True)),
        confusions=_confusions(report, evidence, shown),
        asked=evidence.asked,
        missing=evidence.missing,
        sources={name: projection.source for name, projection in evidence.embeddings.items()},
        text={name: _html(name, blocks) for name, blocks in _texts(report, evidence).items()},
    )


def _texts(report: Report, evidence: Evidence) -> dict[str, list[Block]]:
    """The parts of the page that are Markdown."""
    texts: dict[str, list[Block]] = {
        "origin": [Paragraph(origin(report))],
        "quick": [Paragraph(QUICK)] if report["profile"] == "quick" else [],
        "data": data_blocks(report)[1:],
        "engines": [*targets_blocks(report), *quantisation_blocks(report)],
        "certificate": certificate_blocks(report["certificate"]),
        "benchmark": benchmark_blocks(report)[1:],
        "seeds": seeds_blocks(report),
        "checks": checks_blocks(report, evidence.asked)[1:],
        "calibration": reliability_blocks(evidence),
        "training": [*training_blocks(report), *training_time_blocks(report)],
        "machine": machine_blocks(report),
        "provenance": provenance_blocks(report),
    }
    for method, accuracy in evidence.accuracies.items():
        texts[f"classes of {method}"] = classes_table(report, method, accuracy)
    return texts


def _html(name: str, blocks: Sequence[Block]) -> Markup:
    return Markup(to_html(to_markdown(blocks), html.escape(name, quote=True)))


def _pictures(evidence: Evidence) -> dict[str, Any] | None:
    if evidence.pictures is None:
        return None
    return {
        "rows": [_picture(picture) for picture in evidence.pictures.pictures],
        "differing": evidence.pictures.differing,
        "class_images": json.dumps(evidence.pictures.class_images),
        "classes": [
            name
            for name in evidence.class_names
            if any(name in picture.class_iou for picture in evidence.pictures.pictures)
        ],
    }


def _picture(picture: Picture) -> dict[str, Any]:
    kinds = {name: "jpeg" if name == "input" else "png" for name in picture.files}
    return {
        "name": picture.name,
        "reason": picture.reason,
        "miou": percent(picture.miou),
        "baseline_miou": percent(picture.baseline_miou),
        "extra": picture.reason == "worst of a class",
        "classes": json.dumps(
            {name: [percent(value), picture.class_place[name]] for name, value in picture.class_iou.items()}
        ),
        "files": {
            name: f"data:image/{kinds[name]};base64,{base64.b64encode(content).decode('ascii')}"
            for name, content in picture.files.items()
        },
    }


def _confusions(report: Report, evidence: Evidence, shown: str) -> list[dict[str, Any]]:
    """The confusion matrix of the shown method and of the baseline, each with its largest confusions."""
    if shown not in evidence.accuracies:
        return []
    accuracy = evidence.accuracies[shown]
    result = []
    for name, counts in ((shown, accuracy.other), (report["baseline"], accuracy.baseline)):
        total = counts.sum(axis=(0, 1))
        rows = total.sum(axis=1, keepdims=True)
        shares = np.divide(total, rows, out=np.zeros(total.shape), where=rows > 0)
        result.append(
            {
                "method": name,
                "names": evidence.class_names if len(total) <= _LARGEST_MATRIX else (),
                "shares": shares.tolist(),
                "largest": _html(f"largest confusions of {name}", confusion_table(total, evidence.class_names)),
            }
        )
    return result
