"""Tables of what lies behind report.json, as blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.certificate.page import trained_once
from export.machine.hardware import hardware_sha256
from export.pages.document import Block, Bullets, Heading, Paragraph, Table
from export.pages.formatting import DASH, escaped, percent, prose, signed, signed_interval
from export.report.evidence.classes import ClassDifference, class_differences
from export.report.evidence.gathering import Evidence
from pipeline.evaluation.accuracy import PairedAccuracy
from pipeline.evaluation.paired import t_interval

Report = Mapping[str, Any]

_ONE_SEED = (
    "**One training each.** The interval over images says how far the difference would move on other images of the "
    "same kind, for these very weights. It says nothing about another training: with another seed the difference may "
    "well have the other sign. Only several seeds tell what the *method* brings."
)


def seeds_blocks(report: Report) -> list[Block]:
    """Every method against the baseline: over several seeds with a t interval, over one with what that is worth."""
    sections = {name: entry["accuracy"] for name, entry in (report["certificate"].get("methods") or {}).items()}
    known = {name: accuracy for name, accuracy in sections.items() if accuracy.get("seeds")}
    unknown = [f"`{name}`: {prose(accuracy.get('reason', 'no accuracy'))}" for name, accuracy in sections.items()]
    unknown = [text for text, name in zip(unknown, sections, strict=True) if name not in known]
    blocks: list[Block] = []
    if known:
        rows = [_seeds_row(name, accuracy) for name, accuracy in known.items()]
        header = ["method", "trainings", "mIoU, %", f"`{report['baseline']}`, mIoU %", "difference, points"]
        header += ["95 % over seeds (paired t)", "95 % over images"]
        blocks.append(Table(header, rows))
        blocks += trained_once(report["certificate"], _ONE_SEED)
    return [*blocks, *([Bullets(unknown)] if unknown else [])]


def classes_table(report: Report, method: str, accuracy: PairedAccuracy) -> list[Block]:
    """IoU and boundary IoU of every class, with intervals of the difference."""
    plain = class_differences(accuracy, boundary=False)
    boundary = class_differences(accuracy, boundary=True)
    rows = [
        [escaped(one.name), *_class_cells(one), *_class_cells(other)]
        for one, other in zip(plain, boundary, strict=True)
    ]
    header = ["class", f"`{report['baseline']}`, IoU %", f"`{method}`, IoU %", "difference", "95 % over images"]
    header += [
        f"`{report['baseline']}`, boundary IoU %",
        f"`{method}`, boundary IoU %",
        "boundary difference",
        "boundary 95 % over images",
    ]
    return [Table(header, rows)]


def confusion_table(confusion: NDArray[np.int64], names: Sequence[str], largest: int = 12) -> list[Block]:
    """What is most often taken for what, as a share of the labelled pixels of the class."""
    totals = confusion.sum(axis=1)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None)[::-1][:largest]
    rows = []
    for label, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[label, predicted]:
            share = wrong[label, predicted] / totals[label]
            of_all = wrong[label, predicted] / confusion.sum()
            rows.append([escaped(names[label]), escaped(names[predicted]), percent(share), percent(of_all, 2)])
    header = ["label", "taken for", "of the label's pixels, %", "of all pixels, %"]
    return [Table(header, rows, left=2)] if rows else []


def reliability_blocks(evidence: Evidence) -> list[Block]:
    """Calibration of the shown method's engine, or why there is none."""
    found = evidence.reliability
    if found is None:
        return [
            Paragraph(
                "The engines of this run give no confidence. `options: {output: mask+confidence}` of an artefact in "
                "params.yaml adds it; the mask stays the same."
            )
        ]
    rows = [
        [
            f"{10 * index} to {10 * index + 10}",
            str(count),
            percent(found.confidence[index]),
            percent(found.accuracy[index]),
        ]
        for index, count in enumerate(found.counts.tolist())
        if count
    ]
    said = (
        f"Expected calibration error: {percent(found.expected_error, 2)} points, over the pixels of the worst and the "
        "typical images that are drawn: half of them are the worst of all, so that this is no estimate for all images. "
        "Below the diagonal the engine is surer than it should be."
    )
    return [Paragraph(said), Table(["confidence, %", "pixels", "mean confidence, %", "right, %"], rows)]


def provenance_blocks(report: Report) -> list[Block]:
    """Hashes of data, machine and engines, and the protocol of the measurements."""
    dataset, settings = report["dataset"], report["benchmark"].get("settings", {})
    items = [
        f"code: commit `{report['commit'] or 'unknown'}`",
        f"data: `{dataset.get('name')}`, sha256 `{dataset.get('sha256')}`",
        f"hardware: sha256 `{hardware_sha256(report['device']['hardware'])}`",
    ]
    rows = [
        [f"`{row['method']}` seed {row['seed']}", f"`{row['target']}`", f"`{row['path']}`", f"`{row['sha256']}`"]
        for row in report["targets"]
        if row["sha256"]
    ]
    blocks: list[Block] = [
        Bullets(items),
        Table(["method", "target", "file", "sha256"], rows, left=4),
    ]
    if settings:
        said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if key != "looks")
        blocks += [Heading(3, "Protocol of the measurements"), Paragraph(f"{said}.")]
    return blocks


def _seeds_row(name: str, accuracy: Mapping[str, Any]) -> list[str]:
    seeds = accuracy["seeds"]
    differences = [each["difference"] for each in seeds]
    over_images = signed_interval(accuracy["ci95"], 2, 100) if len(seeds) == 1 else DASH
    over_seeds = "one seed: unknown"
    if len(seeds) > 1:
        found = t_interval(differences)
        over_seeds = signed_interval([found.low, found.high], 2, 100)
        over_images = f"{signed_interval(accuracy['ci95'], 2, 100)} (and seeds)"
    return [
        f"`{name}`",
        str(len(seeds)),
        _mean_and_deviation([each["miou"] for each in seeds]),
        _mean_and_deviation([each["baseline_miou"] for each in seeds]),
        signed(100 * accuracy["difference"], 2),
        over_seeds,
        over_images,
    ]


def _mean_and_deviation(values: Sequence[float]) -> str:
    mean = percent(float(np.mean(values)), 2)
    return mean if len(values) < 2 else f"{mean} ± {100 * float(np.std(values, ddof=1)):.2f}"


def _class_cells(found: ClassDifference) -> list[str]:
    difference = found.method - found.baseline
    return [
        percent(found.baseline),
        percent(found.method),
        signed(100 * difference, 1),
        signed_interval([found.low, found.high], 1, 100),
    ]
