"""Everything that a report shows beside report.json, gathered; what is missing is said, never guessed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.certificate.inputs import paired_accuracy
from export.checks import CHECKS
from export.report.evidence.embeddings import Projection, project_embeddings
from export.report.evidence.pictures import Pictures, Segment, draw_pictures
from export.report.evidence.reliability import Reliability, reliability
from export.report.evidence.samples import LatencySamples, load_samples
from export.targets.config import TargetConfig
from pipeline.data.datasets.shared.prepared import Prepared, PreparedSplit
from pipeline.evaluation.accuracy import PairedAccuracy
from pipeline.evaluation.evaluation import Evaluation
from pipeline.layout.branches import BranchConfig, methods_of, seeds_of
from pipeline.layout.paths import SAMPLES_PATH, evaluation_path, stripped_dir, trained_dir
from serving.contract.errors import UserError
from serving.contract.manifest import read_sidecar
from serving.engines.predictor import Predictor

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What lies behind report.json.

    Attributes:
        class_names: C names.
        palette: C RGB colours.
        samples: raw latencies.
        accuracies: method -> its evaluations beside the baseline's on the certified target.
        pictures: drawn images of baseline and shown method.
        embeddings: method -> its pixels on two principal components.
        reliability: of the shown method's engine on the drawn images, where it gives confidence.
        asked: check -> the question that it answers.
        missing: part -> why it is not there.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    samples: LatencySamples | None = None
    accuracies: Mapping[str, PairedAccuracy] = field(default_factory=dict)
    pictures: Pictures | None = None
    embeddings: Mapping[str, Projection] = field(default_factory=dict)
    reliability: Reliability | None = None
    asked: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


def gather_evidence(
    report: Report,
    prepared: Prepared,
    *,
    split: str,
    branches: Mapping[str, BranchConfig],
    targets: Mapping[str, TargetConfig],
    target: str,
    checkpoint: str,
) -> Evidence:
    """Read and run what the page needs.

    Args:
        report: report.json.
        prepared: the dataset.
        split: that was evaluated.
        branches: section of params.yaml.
        targets: section of params.yaml.
        target: the certified one, whose engines draw the pictures.
        checkpoint: the one that ships, `best` or `last`.
    """
    found: dict[str, Any] = {"accuracies": {}, "embeddings": {}}
    missing: dict[str, str] = {}
    try:
        found["samples"] = load_samples(SAMPLES_PATH)
    except UserError as error:
        missing["samples"] = str(error)
    baseline, shown = report["baseline"], shown_method(report)
    for method in methods_of(branches):
        seeds = seeds_of(branches, method)
        try:
            if method != baseline:
                accuracy = paired_accuracy(baseline, method, seeds, target, prepared.class_names)
                found["accuracies"][method] = accuracy
            folders = trained_dir(method, seeds[0]), stripped_dir(method, seeds[0])
            found["embeddings"][method] = project_embeddings(*folders, checkpoint, prepared.split(split))
        except UserError as error:
            part = "embeddings" if method == baseline or method in found["accuracies"] else "accuracies"
            missing[f"{part} of {method}"] = str(error)
    try:
        pictures = _pictures(report, prepared, prepared.split(split), (baseline, shown), target, targets[target])
        found["pictures"] = pictures
        if pictures.confidences:
            found["reliability"] = reliability(pictures.confidences, prepared.ignore_index)
    except UserError as error:
        missing["pictures"] = str(error)
    names = dict.fromkeys(check["name"] for check in report["checks"])
    asked = {name: _question(name) for name in names if name in CHECKS}
    return Evidence(prepared.class_names, prepared.palette, asked=asked, missing=missing, **found)


def shown_method(report: Report) -> str:
    """The method that stands beside the baseline: the deployed one, or the first other where that is the baseline."""
    others = [row["method"] for row in report["targets"] if row["method"] != report["baseline"]]
    return str(report["deployed"] if report["deployed"] in others or not others else others[0])


def _pictures(
    report: Report,
    prepared: Prepared,
    split: PreparedSplit,
    methods: tuple[str, str],
    target: str,
    config: TargetConfig,
) -> Pictures:
    """What the certified engines of both methods, of their first seeds, say of chosen images."""
    rows = [_row(report, method, target) for method in methods]
    evaluations = [Evaluation.load(evaluation_path(row["method"], row["seed"], target)) for row in rows]
    with ExitStack() as stack:
        engines: list[Segment] = []
        for row in rows:
            predictor = stack.enter_context(
                Predictor(Path(row["path"]), runtime=row["runtime"], options=config.options)
            )
            engines.append(lambda image, predictor=predictor: predictor.segment([image])[0])  # type: ignore[misc]
        return draw_pictures(prepared, split, (evaluations[0], evaluations[1]), (engines[0], engines[1]))


def _row(report: Report, method: str, target: str) -> Mapping[str, Any]:
    """The row of a method's first seed. Raises UserError when its engine cannot be run, or is another by now."""
    for row in report["targets"]:
        if row["method"] == method and row["target"] == target:
            found: Mapping[str, Any] = row
            break
    else:
        raise UserError(f"{method} has no engine for {target}")
    if found["status"] == "skipped" or not found["path"] or found["miou"] is None:
        raise UserError(f"{method}, {target}: {found['reason'] or 'was not evaluated'}")
    if read_sidecar(Path(found["path"])).sha256 != found["sha256"]:
        raise UserError(f"{found['path']}: not the file that was verified; run verify again")
    return found


def _question(name: str) -> str:
    """What a check asks: the first line of its module."""
    return (sys.modules[CHECKS.resolve(name).__module__].__doc__ or "").partition("\n")[0]
