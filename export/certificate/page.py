"""certificate.json as tables, for certificate.md, the report and the README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.pages.document import Block, Bullets, Heading, Paragraph, Table
from export.pages.formatting import DASH, interval, large, number, percent, prose, seeds_named, signed, signed_interval

ONE_SEED = (
    "**One training each**: the interval in brackets is over images. It says how far the difference would move on "
    "other images, for these very weights, and nothing about another training; several seeds tell what the method "
    "brings."
)


# Key of a counted cost in certificate.json -> what pages and reasons call it.
COUNTS = {
    "nodes": "nodes",
    "params": "parameters",
    "flops": "multiply-adds",
    "weight_bytes": "weight bytes",
    "peak_activation_bytes": "peak activation bytes",
}


def certificate_page(certificate: Mapping[str, Any]) -> list[Block]:
    """certificate.md."""
    return [
        Heading(1, "Zero-cost certificate"),
        Paragraph(f"Profile `{certificate['profile']}`, baseline `{certificate['baseline']}`."),
        *certificate_blocks(certificate),
    ]


def certificate_blocks(certificate: Mapping[str, Any], *, short: bool = False, accuracy: bool = True) -> list[Block]:
    """The certificate as tables, with the reasons of every verdict that is not `pass`.

    Args:
        certificate: certificate.json.
        short: without the rule of the verdict and the counted costs.
        accuracy: with the columns of accuracy, which untrained networks do not have.
    """
    methods: Mapping[str, Any] = certificate.get("methods") or {}
    if not methods:
        return [Paragraph("No method was compared with the baseline.")]
    header = ["method", "verdict", "structure", "latency ratio", "95 % interval"]
    header += ["mIoU, %", "against baseline, points"] if accuracy else []
    rows = []
    for name, entry in methods.items():
        measured, latency = entry["accuracy"], entry["latency"]
        structure = {"pass": "identical", "fail": "different"}.get(entry["structure"]["verdict"], "inconclusive")
        difference = measured.get("difference")
        change = DASH if difference is None else signed(100 * difference, 2)
        bounds = signed_interval(measured.get("ci95"), 2, 100)
        changed = change if bounds == DASH else f"{change} ({bounds})"
        rows.append(
            [
                f"`{name}`",
                entry["verdict"],
                structure,
                number(latency["ratio"], 4),
                interval(latency["ci95"], 4),
                *([percent(measured.get("miou"), 2), changed] if accuracy else []),
            ]
        )
    control = certificate["control"]
    rows.append(
        [
            f"`{certificate['baseline']}` against itself (control)",
            control["verdict"],
            "identical",
            number(control["ratio"], 4),
            interval(control["ci95"], 4),
            *(_baseline_accuracy(methods) if accuracy else []),
        ]
    )
    blocks: list[Block] = [Table(header, rows, left=3)]
    reasons = [f"`{name}`: {prose(reason)}" for name, entry in methods.items() for reason in entry["reasons"]]
    if reasons:
        blocks.append(Bullets(reasons))
    blocks += trained_once(certificate, ONE_SEED)
    if short:
        return blocks
    margin = certificate["margin"]
    blocks.append(
        Paragraph(
            "Verdict: structure and latency together. Structure: the canonical forms of both graphs are the same, with "
            f"equal counts. Latency on `{certificate['target']}`: the interval of the ratio lies within "
            f"{1 - margin:.3f} to {1 + margin:.3f}, and so does that of the control. {_looks(certificate)}"
        )
    )
    blocks.append(_structure_table(certificate))
    return blocks


def trained_once(certificate: Mapping[str, Any], said: str) -> list[Block]:
    """What is to be said of methods with one training; their names go before it where others have several.

    Args:
        certificate: certificate.json.
        said: begins with "One training each".

    Returns:
        One paragraph, or none where no method has a single training.
    """
    methods = certificate.get("methods") or {}
    trainings = {name: len(entry["accuracy"].get("seeds") or ()) for name, entry in methods.items()}
    once = [f"`{name}`" for name, count in trainings.items() if count == 1]
    if not once:
        return []
    others = any(count > 1 for count in trainings.values())
    return [Paragraph(f"Of {', '.join(once)}: {said}" if others else said)]


def _looks(certificate: Mapping[str, Any]) -> str:
    pairs = certificate["control"]["pairs"]
    text = f"Measured were {pairs} fresh session pairs per comparison."
    if certificate["looks"] > 1:
        text += (
            f" The measurement could stop at {certificate['looks']} points; each interval has "
            f"{100 * certificate['confidence_per_look']:.2f} % confidence, so that all of them together have 95 %."
        )
    return text


def _baseline_accuracy(methods: Mapping[str, Any]) -> list[str]:
    """The baseline's mIoU; with the seeds that it is of where methods have different ones."""
    known: dict[tuple[int, ...], float] = {}
    for entry in methods.values():
        seeds, value = entry["accuracy"].get("seeds"), entry["accuracy"].get("baseline_miou")
        if seeds and value is not None:
            known.setdefault(tuple(each["seed"] for each in seeds), value)
    if len(known) > 1:
        return [", ".join(f"{percent(value, 2)} ({seeds_named(seeds)})" for seeds, value in known.items()), DASH]
    return [percent(next(iter(known.values())), 2) if known else DASH, DASH]


def _structure_table(certificate: Mapping[str, Any]) -> Table:
    methods = certificate["methods"]
    columns = {certificate["baseline"]: next(iter(methods.values()))["structure"]["baseline"]}
    columns |= {name: entry["structure"] for name, entry in methods.items()}
    rows = [[label, *(large(column[key]) for column in columns.values())] for key, label in COUNTS.items()]
    return Table(["graph", *(f"`{name}`" for name in columns)], rows)
