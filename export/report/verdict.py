"""What a release manager reads: the run in five lines, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from export.machine.hardware import device_summary
from export.pages.formatting import interval, megabytes, milliseconds, number, percent, signed, signed_interval
from export.report.gate import Finding, passed

Report = Mapping[str, Any]
Tone = Literal["good", "open", "bad"]

_TONES: dict[str, Tone] = {"pass": "good", "fail": "bad"}
_ZERO_COST = {"pass": "Costs nothing", "inconclusive": "Undecided", "fail": "Costs something"}


@dataclass(frozen=True)
class Tile:
    """One thing that must be known.

    Attributes:
        name: what it is about.
        value: in a word or a number.
        detail: what the value rests on.
        tone: how it is coloured.
    """

    name: str
    value: str
    detail: str
    tone: Tone


@dataclass(frozen=True)
class Verdict:
    """The top of the page.

    Attributes:
        headline: in a sentence.
        tone: how it is coloured.
        tiles: zero cost, parity, accuracy, latency and machine.
        failed: what fails the run.
        noted: what is skipped, undecided or warned of, and does not.
    """

    headline: str
    tone: Tone
    tiles: Sequence[Tile]
    failed: Sequence[Finding]
    noted: Sequence[Finding]


def verdict(report: Report, findings: Sequence[Finding]) -> Verdict:
    """The verdict on a report.

    Args:
        report: report.json.
        findings: of the gate (`judge`).
    """
    failed = [finding for finding in findings if finding.fatal]
    noted = [finding for finding in findings if not finding.fatal]
    deployed = report["deployed"]
    certificate = (report["certificate"].get("methods") or {}).get(deployed)
    undecided = certificate is not None and certificate["verdict"] == "inconclusive"
    if not passed(findings):
        count = f"{len(failed)} things fail" if len(failed) > 1 else "one thing fails"
        headline, tone = f"Not to be released: {count}", "bad"
    elif undecided or report["profile"] == "quick":
        why = "the certificate is undecided" if undecided else "measured briefly"
        headline, tone = f"Nothing fails; {why} (profile {report['profile']})", "open"
    else:
        headline, tone = f"{deployed} may be released", "good"
    tiles = [
        _zero_cost(report, certificate),
        _parity(report),
        _accuracy(report, certificate),
        _latency(report),
        Tile("Machine", _machine_word(report), device_summary(report["device"]), "good"),
    ]
    return Verdict(headline, tone, tiles, failed, noted)  # type: ignore[arg-type]


def seeds_note(accuracy: Mapping[str, Any]) -> str:
    """What the interval of a difference in accuracy rests on, and what it does not say.

    Args:
        accuracy: section `accuracy` of a method in certificate.json.
    """
    seeds = accuracy.get("seeds") or []
    if not seeds:
        return ""
    if len(seeds) == 1:
        return (
            f"over {accuracy['rests_on']} of one training each (seed {seeds[0]['seed']}): "
            "it says nothing about another training"
        )
    return f"over {accuracy['rests_on']}"


def _zero_cost(report: Report, entry: Mapping[str, Any] | None) -> Tile:
    name = "Cost at inference"
    if entry is None:
        baseline = report["deployed"] == report["baseline"]
        why = "the baseline itself is deployed" if baseline else "the method was not compared with the baseline"
        return Tile(name, "Not compared", why, "open")
    latency, margin = entry["latency"], report["certificate"]["margin"]
    graph = {"pass": "same graph", "fail": "another graph"}.get(entry["structure"]["verdict"], "graph not compared")
    detail = (
        f"{graph} as {report['baseline']}; latency ratio {number(latency['ratio'], 4)}, 95 % interval "
        f"{interval(latency['ci95'], 4)}, margin ±{100 * margin:g} %"
    )
    return Tile(name, _ZERO_COST[entry["verdict"]], detail, _TONES.get(entry["verdict"], "open"))


def _parity(report: Report) -> Tile:
    built = [row for row in report["targets"] if row["status"] != "skipped"]
    good = [row for row in built if row["status"] == "ok"]
    skipped = len(report["targets"]) - len(built)
    checks = report["checks"]
    fine = sum(check["status"] == "pass" for check in checks)
    bad = ", ".join(row["target"] for row in built if row["status"] != "ok")
    detail = f"{fine} of {len(checks)} checks pass" + (f"; not: {bad}" if bad else "")
    detail += f"; {skipped} skipped here" if skipped else ""
    tone: Tone = "good" if built and len(good) == len(built) else "bad"
    return Tile("Parity with PyTorch", f"{len(good)} of {len(built)} engines", detail, tone)


def _accuracy(report: Report, entry: Mapping[str, Any] | None) -> Tile:
    name = "Accuracy (mIoU)"
    accuracy: Mapping[str, Any] = {} if entry is None else entry["accuracy"]
    if accuracy.get("difference") is None:
        values = [row["miou"] for row in report["targets"] if row["method"] == report["deployed"] and row["miou"]]
        detail = accuracy.get("reason", "not compared with a baseline")
        return Tile(name, f"{percent(max(values), 1)} %" if values else "unknown", detail, "open")
    low, high = accuracy["ci95"]
    detail = (
        f"{signed(100 * accuracy['difference'], 2)} points against {report['baseline']}, 95 % interval "
        f"{signed_interval([low, high], 2, 100)} {seeds_note(accuracy)}"
    )
    decided = len(accuracy.get("seeds") or ()) > 1  # images alone decide nothing about the method
    tone: Tone = "bad" if decided and high < 0 else "good" if decided and low > 0 else "open"
    return Tile(name, f"{percent(accuracy['miou'], 1)} %", detail, tone)


def _latency(report: Report) -> Tile:
    rows = [
        row
        for row in report["targets"]
        if row["method"] == report["deployed"] and row["status"] == "ok" and row["latency_ms"]["p50"] is not None
    ]
    if not rows:
        return Tile("Fastest sound engine", "none", "no engine of the deployed method passes and was measured", "bad")
    best = min(rows, key=lambda row: row["latency_ms"]["p50"])
    p99 = milliseconds(best["latency_ms"]["p99"])
    detail = f"{best['target']}, one image: p99 {p99} ms; {megabytes(best['engine_bytes'])} MB"
    return Tile("Fastest sound engine", f"{milliseconds(best['latency_ms']['p50'])} ms", detail, "good")


def _machine_word(report: Report) -> str:
    gpus = report["device"]["hardware"]["gpus"]
    return str(gpus[0]["name"]) if gpus else "CPU only"
