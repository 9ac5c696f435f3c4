"""What all stages found, put together: report.json. Pages and plots are made from it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.records.expected import ExpectedTarget
from serving.contract.errors import UserError
from serving.contract.files import read_json

SCHEMA = 1
TARGET_KEYS = (
    *("method", "seed", "target", "artifact", "path", "runtime", "precision", "status", "reason", "profile", "sha256"),
    *("miou", "miou_drop_points", "agreement", "latency_ms", "engine_bytes"),
)
# Present only where the stage `verify` gives them.
OPTIONAL_KEYS = ("precision_measured", "miou_drop_ci95", "located", "located_reason", "quantisation")
LATENCY_PERCENTILES = ("p50", "p90", "p99")
_NUMBERS = ("miou", "miou_drop_points", "agreement", "engine_bytes")
_LISTS, _MAPPINGS = ("targets", "checks", "training"), ("device", "certificate", "benchmark", "dataset", "losses")


@dataclass(frozen=True)
class ReportInputs:
    """Everything the report is made of.

    Attributes:
        profile: `quick` or `release`.
        baseline: name of the baseline method.
        deployed: name of the method that ships.
        losses: method -> loss.
        expected: the rows that params.yaml asks for, in order.
        verified: (method, seed, target) -> row of the stage `verify`.
        benchmark: benchmark.json.
        certificate: certificate.json.
        device: device.json.
        training: (method, seed) -> metrics of the training, its `seconds`, which may be unknown, and where known its
            `time` by part, or the `time_reason` why it is left out.
        engine_bytes: path of an engine -> its size.
        engine_sha256: path of an engine -> hash of the file that lies there now.
        unexamined: paths of engines in the folders of the branches that no target of params.yaml is about.
        changed: path of a file that ships -> what became of it since `verify` examined the branch.
        dataset: name, split and number of images that the accuracy was measured on, and what prepare found odd
            (`warnings`) or was certain of (`notes`).
        commit: of the code, where known.
        created: when, as ISO 8601 text, where known.
        curves: quantity -> branch -> points of [iteration, value].
    """

    profile: str
    baseline: str
    deployed: str
    losses: Mapping[str, str]
    expected: Sequence[ExpectedTarget]
    verified: Mapping[tuple[str, int, str], Mapping[str, Any]]
    benchmark: Mapping[str, Any]
    certificate: Mapping[str, Any]
    device: Mapping[str, Any]
    training: Mapping[tuple[str, int], Mapping[str, Any]]
    engine_bytes: Mapping[str, int] = field(default_factory=dict)
    engine_sha256: Mapping[str, str] = field(default_factory=dict)
    unexamined: Sequence[str] = ()
    changed: Mapping[str, str] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    commit: str | None = None
    created: str | None = None
    curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]] = field(default_factory=dict)


def build_report(inputs: ReportInputs) -> dict[str, Any]:
    """report.json.

    Returns:
        `targets` (rows of TARGET_KEYS), `training` (rows of method, seed, contrast_steps, mean_anchors, seconds, miou,
        the pairs `left_out` because they could not be read, and where the `time` went if it was trained here, or the
        `time_reason` why that is left out), `certificate`,
        `checks` (one row per check and target), `benchmark` (throughput, split, sessions, intervals), `device`,
        `unexamined` (engines that lie there and were not looked at), `changed` (what else ships and is not what
        `verify` saw), `profile` and where all of it comes from.
    """
    measured = {(row["method"], row["seed"], row["target"]): row for row in inputs.benchmark.get("targets", [])}
    targets = []
    for expected in inputs.expected:
        key = (expected.method, expected.seed, expected.target)
        targets.append(_target_row(expected, inputs, inputs.verified.get(key), measured.get(key)))
    engines = {row["path"] for row in targets if row["sha256"]} | set(inputs.unexamined)  # which are told of already
    checks = []
    for expected in inputs.expected:
        row = inputs.verified.get((expected.method, expected.seed, expected.target), {})
        if _replaced(row, inputs) is None:  # no file that lies here passed the checks of another
            head = {"method": expected.method, "seed": expected.seed, "target": expected.target}
            checks += [head | check for check in row.get("checks") or []]
    return {
        "schema": SCHEMA,
        "profile": inputs.profile,
        "commit": inputs.commit,
        "created": inputs.created,
        "dataset": dict(inputs.dataset),
        "baseline": inputs.baseline,
        "deployed": inputs.deployed,
        "losses": dict(inputs.losses),
        "device": dict(inputs.device),
        "targets": targets,
        "unexamined": list(inputs.unexamined),
        "changed": {path: found for path, found in inputs.changed.items() if path not in engines},
        "training": [
            {
                "method": method,
                "seed": seed,
                "contrast_steps": row.get("contrast_steps"),
                "mean_anchors": row.get("mean_anchors"),
                "seconds": row.get("seconds"),
                "miou": row.get("miou"),
            }
            | {key: row[key] for key in ("left_out", "time", "time_reason") if key in row}
            for (method, seed), row in inputs.training.items()
        ],
        "certificate": dict(inputs.certificate),
        "checks": checks,
        "benchmark": dict(inputs.benchmark),
    } | ({"curves": inputs.curves} if inputs.curves else {})


def load_report(path: Path) -> dict[str, Any]:
    """Read a report.json. Raises UserError when it is missing, or not a report of this schema."""
    report: dict[str, Any] = read_json(path, made_by="report")
    keys = ("schema", "targets", "device", "certificate", "benchmark", "profile")
    missing = [key for key in keys if not isinstance(report, Mapping) or key not in report]
    if missing:
        raise UserError(f"{path}: not a report.json: without {', '.join(missing)}")
    kinds = {name: list if name in _LISTS else Mapping for name in (*_LISTS, *_MAPPINGS) if name in report}
    if wrong := [name for name, kind in kinds.items() if not isinstance(report[name], kind)]:
        raise UserError(f"{path}: not a report.json: damaged {', '.join(wrong)}; run `dvc repro` again")
    if report["schema"] != SCHEMA:
        raise UserError(f"{path}: report schema {report['schema']!r}; expected {SCHEMA}: run `dvc repro` again")
    wrong = [str(i) for i, row in enumerate(report["targets"]) if not _is_row(row)]
    if wrong:
        raise UserError(f"{path}: targets {', '.join(wrong)} lack columns of a report; run `dvc repro` again")
    if lacking := [f"device.{key}" for key in ("hardware", "software") if key not in report["device"]]:
        raise UserError(f"{path}: not a report.json: without {', '.join(lacking)}; run `dvc repro` again")
    return report


def _is_row(row: Any) -> bool:
    """Whether this is a row of `targets`, with numbers where the others have some."""
    if not isinstance(row, Mapping) or not set(TARGET_KEYS) <= set(row) or not isinstance(row["latency_ms"], Mapping):
        return False
    numbers = [row[key] for key in _NUMBERS] + [row["latency_ms"].get(name) for name in LATENCY_PERCENTILES]
    return all(number is None or type(number) in (int, float) for number in numbers)


def _target_row(
    expected: ExpectedTarget,
    inputs: ReportInputs,
    verified: Mapping[str, Any] | None,
    measured: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One row of `targets`: accuracy and latency of one and the same file, or a status that says why not."""
    found: Mapping[str, Any] = verified or {}
    status, reason = _status(verified, measured, inputs)
    latency: dict[str, float | None] = dict.fromkeys(LATENCY_PERCENTILES)
    if measured is not None and measured["status"] == "ok" and measured["sha256"] == found.get("sha256"):
        shown = measured["latency_ms"]
        latency = {name: shown[name]["value"] if shown.get(name) else None for name in LATENCY_PERCENTILES}
    path = found.get("path")
    row = {
        "method": expected.method,
        "seed": expected.seed,
        "target": expected.target,
        "artifact": expected.artifact,
        "path": path,
        "runtime": expected.runtime,
        "precision": found.get("precision"),
        "status": status,
        "reason": reason,
        "profile": inputs.profile,
        "sha256": found.get("sha256"),
        "miou": found.get("miou"),
        "miou_drop_points": found.get("miou_drop_points"),
        "agreement": found.get("agreement"),
        "latency_ms": latency,
        "engine_bytes": inputs.engine_bytes.get(path) if path else None,
    }
    return row | {key: found[key] for key in OPTIONAL_KEYS if key in found}


def _status(
    verified: Mapping[str, Any] | None, measured: Mapping[str, Any] | None, inputs: ReportInputs
) -> tuple[str, str | None]:
    if verified is None:
        return "failed", "the stage verify has no row of it"
    if verified["status"] != "ok":
        return verified["status"], verified.get("reason")
    if (reason := _replaced(verified, inputs)) is not None:
        return "failed", reason
    if measured is None:
        return "failed", "the stage benchmark has no row of it"
    if measured["status"] != "ok":
        return "failed", f"benchmark: {measured['reason']}"
    if measured["sha256"] != verified["sha256"]:
        return "failed", (
            f"accuracy is of the file {str(verified['sha256'])[:12]}, latency of {str(measured['sha256'])[:12]}: "
            "run `dvc repro` again"
        )
    return "ok", None


def _replaced(verified: Mapping[str, Any], inputs: ReportInputs) -> str | None:
    """Why what `verify` found is of no files that lie here; None where it is, or where it opened none.

    The manifest says what the numbers of a mask mean, and the golden files what it should be elsewhere: an engine with
    others beside it is another one.
    """
    examined = verified.get("sha256")
    if examined is None:
        return None
    path = verified["path"]
    if (there := inputs.engine_sha256.get(path)) != examined:
        found = "is missing" if there is None else f"is {there[:12]}"
        return f"{path} {found}, verify examined {examined[:12]}: run verify again"
    beside = {name: found for name, found in inputs.changed.items() if Path(path).parent in Path(name).parents}
    if beside:
        return f"{'; '.join(f'{name} {found}' for name, found in beside.items())}: run verify again"
    return None
