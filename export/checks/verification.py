"""Examining the engines of one branch: every check on every target, recorded and not yet judged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.checks import CHECKS
from export.checks.examination.config import VerifyConfig
from export.checks.examination.context import CheckContext, CheckResult, SkippedError
from export.checks.examination.deviation import worst_error
from export.checks.examination.reference import Reference
from export.checks.locating.location import locate
from export.checks.running.agreement import disagreement
from export.checks.static.precision import measured_precision
from export.targets.config import TargetConfig
from pipeline.data.datasets.shared.prepared import PreparedSplit
from pipeline.evaluation.evaluation import Evaluation, miou_difference
from pipeline.layout.paths import SKIPPED_NAME
from serving.contract.errors import UnavailableError, UserError
from serving.contract.files import file_sha256, read_json, write_json

SCHEMA = 1
REPORT_NAME = "report.json"

_ACCURACY = ("miou", "boundary_iou", "iou_per_class", "protocol", "miou_drop_points", "miou_drop_ci95")
METRICS_DIGITS = 4  # another CPU rounds otherwise: a pixel in a million changes its class


@dataclass(frozen=True)
class EngineTarget:
    """One row to verify.

    Attributes:
        name: of the target, as in params.yaml.
        path: the engine file.
        config: artefact, runtime and its options.
    """

    name: str
    path: Path
    config: TargetConfig


@dataclass(frozen=True)
class BranchVerification:
    """What the stage writes for one branch.

    Attributes:
        report: `targets` (one row each), the reference's accuracy and what it was measured on.
        evaluations: target -> per-image counts; the reference's under `pytorch`.
    """

    report: dict[str, Any]
    evaluations: dict[str, Evaluation]

    def save(self, folder: Path) -> None:
        """Write `report.json` and one `<target>.npz` of per-image counts for each evaluation."""
        for name, evaluation in self.evaluations.items():
            evaluation.save(folder / f"{name}.npz")
        write_json(folder / REPORT_NAME, self.report)

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """The numbers that a run elsewhere reproduces: from counted pixels, without the digits of a few of them."""
        keys = ("miou", "reference_miou", "miou_drop_points", "boundary_iou", "agreement")
        return {
            row["target"]: {key: None if row[key] is None else round(row[key], METRICS_DIGITS) for key in keys}
            for row in self.report["targets"]
        }


def run_checks(
    context: CheckContext, names: Iterable[str] | None = None, progress: Callable[[str], None] | None = None
) -> list[CheckResult]:
    """Run the checks in the order of the registry; whatever one finds or trips over, the others run.

    Args:
        context: the engine under examination.
        names: of the checks; None runs all.
        progress: called with the name of each check before it runs.
    """
    results = []
    for name in CHECKS if names is None else names:
        if progress is not None:
            progress(name)
        try:
            result = CHECKS.resolve(name)(context)
        except SkippedError as error:
            result = CheckResult("skipped", detail=str(error))
        except UserError as error:
            result = CheckResult("fail", detail=str(error))
        except Exception as error:  # noqa: BLE001 - a damaged file makes any library raise anything; that is a failure
            result = CheckResult("fail", detail=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        results.append(dataclasses.replace(result, name=name))
    return results


def verify_branch(
    targets: Sequence[EngineTarget],
    reference: Reference,
    split: PreparedSplit,
    *,
    method: str,
    seed: int,
    config: VerifyConfig,
    max_miou_drop_points: Mapping[str, float],
    boundary_ratio: float,
    progress: Callable[[str], None] | None = None,
) -> BranchVerification:
    """Run every check on every target of one branch.

    Never raises for a bad engine: its row has status `failed`, the reason, and what could be measured all the same.

    Args:
        targets: the rows.
        reference: the stripped segmentor that all of them were made from.
        split: labelled images.
        method: of the branch.
        seed: of the branch.
        config: what is compared, and how close is equal.
        max_miou_drop_points: precision -> largest allowed drop of mIoU.
        boundary_ratio: width of the boundary bands as a share of an image's diagonal.
        progress: called with what is being done.
    """
    if progress is not None:
        progress("PyTorch")
    expected = reference.evaluation(split, boundary_ratio)
    evaluations = {"pytorch": expected}
    rows = []
    for target in targets:
        head = {"method": method, "seed": seed, "target": target.name, "artifact": target.config.artifact}
        head |= {"path": target.path.as_posix(), "runtime": target.config.runtime}
        with CheckContext(
            target.path,
            runtime=target.config.runtime,
            options=target.config.options,
            reference=reference,
            split=split,
            config=config,
            max_miou_drop_points=max_miou_drop_points,
            boundary_ratio=boundary_ratio,
        ) as context:
            if (reason := unavailable(context)) is not None:
                rows.append(head | _skipped_row(expected, reason))
                continue
            checks = run_checks(context, progress=_prefixed(progress, target.name))
            row, evaluation = _row(context, checks, expected)
            row |= _located(context, checks)
        rows.append(head | row)
        if evaluation is not None:
            evaluations[target.name] = evaluation
    report = {
        "schema": SCHEMA,
        "method": method,
        "seed": seed,
        "class_names": list(reference.info.class_names),
        "reference": _accuracy(expected) | {"protocol": expected.protocol},
        "targets": rows,
    }
    return BranchVerification(report, evaluations)


def unavailable(context: CheckContext) -> str | None:
    """Why this machine cannot run an engine that may be sound; None where it can, or where the engine is at fault."""
    skipped = context.engine_path.with_name(SKIPPED_NAME)
    if not context.engine_path.exists() and skipped.exists():
        return str(read_json(skipped, made_by="compile")["reason"])
    try:
        _ = context.engine
    except UnavailableError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - the checks will meet it again and say so
        return None
    return None


def _skipped_row(expected: Evaluation, reason: str) -> dict[str, Any]:
    measured = ("precision", "precision_measured", "sha256", "agreement", "largest_logit_error")
    return {
        "status": "skipped",
        "reason": reason,
        "reference_miou": expected.miou,
        "reference_boundary_iou": expected.boundary_iou,
        "checks": [],
    } | dict.fromkeys((*measured, *_ACCURACY))


def _prefixed(progress: Callable[[str], None] | None, name: str) -> Callable[[str], None] | None:
    return None if progress is None else lambda check: progress(f"{name}: {check}")


def _row(
    context: CheckContext, checks: Sequence[CheckResult], expected: Evaluation
) -> tuple[dict[str, Any], Evaluation | None]:
    """What is known of one engine after its checks, and its evaluation where it could be run."""
    failed = [check for check in checks if check.status == "fail"]
    row: dict[str, Any] = {
        "precision": _known(lambda: context.precision),
        "precision_measured": _known(lambda: measured_precision(context)),
        "status": "failed" if failed else "ok",
        "reason": _reason(failed, len(checks)),
        "sha256": _known(lambda: file_sha256(context.engine_path)),
        "agreement": _known(lambda: 1 - disagreement(context)),
        "largest_logit_error": _known(lambda: _finite(worst_error(context.on_images)[0])),
        "reference_miou": expected.miou,
        "reference_boundary_iou": expected.boundary_iou,
        "checks": [dataclasses.asdict(check) for check in checks],
    }
    if (quantisation := _known(lambda: _quantisation(context.manifest.details["quantisation"]))) is not None:
        row["quantisation"] = quantisation
    evaluation = _known(lambda: context.evaluation)
    if evaluation is None:
        return row | dict.fromkeys(_ACCURACY), None
    drop = miou_difference(expected, evaluation, resamples=context.config.resamples, seed=context.config.seed)
    return row | _accuracy(evaluation) | {
        "protocol": evaluation.protocol,
        "miou_drop_points": 100 * drop.difference,
        "miou_drop_ci95": [100 * drop.low, 100 * drop.high],
    }, evaluation


def _located(context: CheckContext, checks: Sequence[CheckResult]) -> dict[str, Any]:
    """Where an engine whose logits or masks fail goes wrong first; nothing of others. Its reason then says so too."""
    if not any(check.status == "fail" and check.name in ("logits", "masks") for check in checks):
        return {}
    location = locate(context, checks)
    return {
        "located": None if location.located is None else dataclasses.asdict(location.located),
        "located_reason": location.reason,
    }


def _quantisation(said: Any) -> dict[str, Any]:
    """What a manifest says of how an engine was quantised. Raises KeyError or TypeError where it says it otherwise."""
    images, asked = said["images"], said["images"].get("asked", {})  # an older version did not note it
    parts = {
        name: {"images": int(images[name]["images"]), "asked": asked.get(name)} for name in ("calibration", "held_out")
    }
    numbers = {name: float(said[name]) for name in ("miou_drop_points", "limit_points")}
    return parts | numbers | {"within_limit": bool(said["within_limit"])}


def _accuracy(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "miou": evaluation.miou,
        "boundary_iou": evaluation.boundary_iou,
        "iou_per_class": [None if math.isnan(value) else float(value) for value in evaluation.iou_per_class],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _known(value: Callable[[], Any]) -> Any:
    """The value, or None where it cannot be had; why is in the failed checks, which asked for it before."""
    try:
        return value()
    except Exception:  # noqa: BLE001 - see `run_checks`
        return None


def _reason(failed: Sequence[CheckResult], count: int) -> str | None:
    if not failed:
        return None
    listed = "; ".join(f"{check.name}: {check.detail}" for check in failed)
    return f"{len(failed)} of {count} checks failed: {listed if len(listed) <= 600 else listed[:597] + '...'}"
