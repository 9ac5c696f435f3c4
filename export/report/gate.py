"""Judging a report: every rule looks at everything, and every breach is listed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from export.pages.formatting import shortened, signed
from export.report.config import GateConfig
from export.report.evidence.quantisation import shortfalls
from pipeline.layout.paths import ARTIFACTS_DIR

Report = Mapping[str, Any]
Severity = Literal["FAIL", "WARNING", "SKIPPED", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be, or is noted.

    Attributes:
        severity: FAIL, WARNING (of prepare, on the data; of an engine that was given less than was asked for), SKIPPED
            or INCONCLUSIVE.
        subject: what it is about, such as `pixel_contrast-s0/ort_fp32`.
        rule: what must hold.
        found: what was found instead.
        fatal: whether it fails the run.
    """

    severity: Severity
    subject: str
    rule: str
    found: str
    fatal: bool = True


def judge(report: Report, config: GateConfig) -> list[Finding]:
    """Everything in the report that breaks a rule, the fatal first, then what is merely noted."""
    findings = [
        *_judge_profile(report),
        *_judge_data(report, config),
        *_judge_stopwatch(report),
        *_judge_gpus(report),
        *_judge_targets(report, config),
        *_judge_quantisation(report),
        *_judge_unexamined(report),
        *_judge_changed(report),
        *_judge_pictures(report),
        *_judge_checks(report, config),
        *_judge_certificate(report, config),
        *_judge_training(report),
    ]
    return sorted(findings, key=lambda finding: not finding.fatal)


def _judge_profile(report: Report) -> Iterator[Finding]:
    for part in ("benchmark", "certificate"):
        if report[part]["profile"] != report["profile"]:
            rule = f"went by the report's profile, {report['profile']}"
            yield Finding("FAIL", part, rule, f"{report[part]['profile']}: run benchmark and certify again")


def passed(findings: Sequence[Finding]) -> bool:
    """Whether the run succeeds."""
    return not any(finding.fatal for finding in findings)


def findings_table(findings: Sequence[Finding]) -> Table:
    """The findings as a table for the terminal."""
    table = Table(show_lines=True)
    for name in ("", "what", "must hold", "found"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        style = "red" if finding.fatal else "yellow"
        label = finding.severity if finding.fatal else f"{finding.severity.lower()} (allowed)"
        cells = (Text(label, style), Text(finding.subject), Text(finding.rule), Text(shortened(finding.found)))
        table.add_row(*cells)
    return table


def rules_judged(report: Report) -> int:
    """How many things `judge` looked at, for the message of a gate that opens."""
    return (
        len(report["targets"])
        + len(report["checks"])
        + len(report["certificate"].get("methods") or {})
        + len(report["training"])
        + len(report["benchmark"].get("self_test") or [])
        + len(report["dataset"].get("warnings") or [])
    )


def _judge_data(report: Report, config: GateConfig) -> Iterator[Finding]:
    """What prepare only warned of may make every number of the report mean something else."""
    for warning in report["dataset"].get("warnings") or []:
        kind, _, found = warning.partition(": ")
        accepted = kind in config.accepted_warnings
        listed = ", ".join((*config.accepted_warnings, kind))
        rule = f"the data has no {kind!r}" + ("" if accepted else f", or gate.accepted_warnings: [{listed}] accepts it")
        yield Finding("WARNING", f"data/{report['dataset'].get('name')}", rule, found, fatal=not accepted)


def _judge_stopwatch(report: Report) -> Iterator[Finding]:
    tests = report["benchmark"].get("self_test") or []
    if not tests:
        yield Finding("FAIL", "benchmark", "the stopwatch is tested", "the benchmark has no self-test")
    for test in tests:
        if not test["passed"]:
            yield Finding(
                "FAIL",
                "benchmark",
                f"the stopwatch is right within {100 * test['tolerance']:g} %",
                f"{test['expected_ms']:g} ms measured as {test['measured_ms']:.3f} ms",
            )


def _judge_gpus(report: Report) -> Iterator[Finding]:
    """Notes; many GPUs run at their power cap, and a comparison made in turns still holds."""
    state = report["benchmark"].get("machine") or {}
    for found in state.get("throttled") or []:
        yield Finding("INCONCLUSIVE", "benchmark", "no GPU is slowed down while it measures", found, fatal=False)
    if state.get("gpu_processes"):
        others = ", ".join(f"{each['name']} ({each['pid']})" for each in state["gpu_processes"])
        yield Finding("INCONCLUSIVE", "benchmark", "nothing else runs on a GPU that measures", others, fatal=False)


def _judge_targets(report: Report, config: GateConfig) -> Iterator[Finding]:
    rows = report["targets"]
    if not rows:
        yield Finding("FAIL", "targets", "something was built", "the report has no target")
    for name in config.required:
        if not any(row["target"] == name and row["method"] == report["deployed"] for row in rows):
            yield Finding(
                "FAIL", f"{report['deployed']}/{name}", "a required target is built", "the report has no such row"
            )
    checked = {_subject(check) for check in report["checks"] if check["status"] == "fail"}
    for row in rows:
        subject = _subject(row)
        if row["status"] == "skipped":
            required = row["target"] in config.required
            rule = "a required target is not skipped" if required else "nothing is skipped"
            yield Finding("SKIPPED", subject, rule, str(row["reason"]), fatal=required)
        elif row["status"] != "ok":
            if subject not in checked:  # a failed check is listed by itself
                yield Finding("FAIL", subject, "the target works", str(row["reason"]))
        else:
            yield from _judge_numbers(row, subject, config)
            yield from _judge_measurement(report, row, subject)


def _judge_quantisation(report: Report) -> Iterator[Finding]:
    """Notes; what the engines lose on the reported images is judged by itself."""
    for row in report["targets"]:
        for rule, found in shortfalls(row["quantisation"]) if row.get("quantisation") else ():
            yield Finding("WARNING", _subject(row), rule, found, fatal=False)


def _judge_unexamined(report: Report) -> Iterator[Finding]:
    """Card and statement would speak for them too."""
    for path in report.get("unexamined") or []:
        found = "no target of params.yaml runs it: delete it, or give it a target and run `dvc repro` again"
        yield Finding("FAIL", path.removeprefix(f"{ARTIFACTS_DIR}/"), "every engine of a branch was examined", found)


def _judge_changed(report: Report) -> Iterator[Finding]:
    """Neither was this seen by anybody, and card and statement name it."""
    for path, found in (report.get("changed") or {}).items():
        rule = "what ships is what verify saw"
        yield Finding("FAIL", path.removeprefix(f"{ARTIFACTS_DIR}/"), rule, f"{found}: run verify again")


def _judge_pictures(report: Report) -> Iterator[Finding]:
    """Engines that the report ran again, on images or by libraries that are others by now."""
    if differing := (report.get("pictures") or {}).get("differing"):
        found = f"other masks of {len(differing)} of the drawn images: {', '.join(differing)}"
        rule = "the engines give the masks that verify counted, or verify is run again"
        yield Finding("FAIL", "pictures", rule, found)


def _judge_numbers(row: Mapping[str, Any], subject: str, config: GateConfig) -> Iterator[Finding]:
    for key in ("sha256", "miou", "miou_drop_points"):
        if row[key] is None:
            yield Finding("FAIL", subject, f"{key} is known of a target that works", "it is missing")
    drop, precision = row["miou_drop_points"], row["precision"]
    if drop is None:
        return
    limit = config.max_miou_drop_points.get(precision)
    if limit is None:
        known = ", ".join(sorted(config.max_miou_drop_points)) or "none"
        yield Finding(
            "FAIL",
            subject,
            "gate.max_miou_drop_points has a limit for the precision",
            f"precision {precision!r}; limits are there for: {known}",
        )
    elif drop > limit:
        yield Finding(
            "FAIL", subject, f"mIoU drops by at most {limit:g} points ({precision})", f"{drop:.3f} points lost"
        )


def _judge_measurement(report: Report, row: Mapping[str, Any], subject: str) -> Iterator[Finding]:
    if row["latency_ms"]["p50"] is None:
        yield Finding("FAIL", subject, "a target that works has a latency", "it is missing")
        return
    key = (row["method"], row["seed"], row["target"])
    for measured in report["benchmark"].get("targets", []):
        if (measured["method"], measured["seed"], measured["target"]) != key:
            continue
        release = report["profile"] == "release"
        if not measured["complete"]:
            rule = "the minima of time and queries are reached"
            found = f"{measured['queries']} queries in {measured['seconds']:.1f} s"
            yield Finding("INCONCLUSIVE", subject, rule, found, fatal=release)
        if not measured["stable"]:
            yield Finding(
                "INCONCLUSIVE",
                subject,
                "warm-up ends stable",
                "the machine did not settle; the latencies are labelled so",
                fatal=False,
            )


def _judge_checks(report: Report, config: GateConfig) -> Iterator[Finding]:
    located = {_subject(row): words for row in report["targets"] if (words := _located(row))}
    for check in report["checks"]:
        subject = _subject(check)
        found = str(check.get("detail") or check.get("measured"))
        if check["status"] == "fail":
            if check["name"] in ("logits", "masks") and subject in located:
                found = f"{located[subject]}; {found}"
            yield Finding("FAIL", subject, f"check {check['name']}", found)
        elif check["status"] == "inconclusive":
            yield Finding("INCONCLUSIVE", subject, f"check {check['name']}", found, fatal=not _lenient(report, config))


def _located(row: Mapping[str, Any]) -> str | None:
    """Where an engine goes wrong first, in words; None where nobody looked."""
    if (place := row.get("located")) is not None:
        error = "not finite" if place["error"] is None else f"off by {place['error']:.2e}"
        return f"first wrong at {place['layer']} (tensor {place['tensor']!r}, {error})"
    return f"not located: {row['located_reason']}" if row.get("located_reason") else None


def _judge_certificate(report: Report, config: GateConfig) -> Iterator[Finding]:
    methods: Mapping[str, Any] = report["certificate"].get("methods") or {}
    for name in dict.fromkeys(row["method"] for row in report["targets"]):
        if name != report["baseline"] and name not in methods:
            yield Finding("FAIL", name, "every method has a certificate", "the certificate has no entry of it")
    for name, entry in methods.items():
        found = "; ".join(entry["reasons"]) or "no reason given"
        if entry["verdict"] == "fail":
            yield Finding("FAIL", name, "the method costs nothing at inference", found)
        elif entry["verdict"] != "pass":
            fatal = not _lenient(report, config)
            yield Finding("INCONCLUSIVE", name, "the certificate is decided", found, fatal=fatal)
        yield from _judge_accuracy(name, entry["accuracy"], config)


def _judge_accuracy(name: str, accuracy: Mapping[str, Any], config: GateConfig) -> Iterator[Finding]:
    limit = config.max_method_drop_points
    if limit is None:
        return
    difference = accuracy.get("difference")
    rule = f"mIoU is at most {limit:g} points below the baseline's"
    if difference is None:
        yield Finding("FAIL", name, rule, f"no accuracy: {accuracy.get('reason', 'unknown')}")
    elif -100 * difference > limit:
        yield Finding("FAIL", name, rule, f"{signed(100 * difference, 2)} points")


def _judge_training(report: Report) -> Iterator[Finding]:
    """A contrastive method whose contrast never ran would be compared with itself."""
    for row in report["training"]:
        subject = f"{row['method']}-s{row['seed']}"
        if names := row.get("left_out"):
            found = f"{len(names)} could not be read: {', '.join(names)}"
            # train.skip_budget, which allowed it, is 0 unless someone set it.
            yield Finding("WARNING", subject, "it trained on every pair", found, fatal=False)
        if report["losses"].get(row["method"]) in (None, "cross_entropy"):
            continue
        if not row["contrast_steps"]:
            yield Finding("FAIL", subject, "the contrast ran", "no training step had it: see train and the warm-up")
        elif row["mean_anchors"] == 0:  # None: the loss term has no anchors
            yield Finding(
                "FAIL", subject, "the contrast had anchors", "none in any step: lower max_views for small inputs"
            )


def _lenient(report: Report, config: GateConfig) -> bool:
    return report["profile"] == "quick" and config.allow_inconclusive


def _subject(row: Mapping[str, Any]) -> str:
    return f"{row['method']}-s{row['seed']}/{row['target']}"
