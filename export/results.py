"""Reading back what the stages before wrote, in the shape that the pure functions take."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.accuracy import PairedAccuracy
from export.artifacts.interface import MODEL_NAME
from export.certificate import GraphPair, MethodEvidence
from export.engine_latency import Engine
from export.paired_latency import PairSamples
from export.report import ExpectedTarget, ReportInputs
from pipeline.artifacts import (
    REPORTS_DIR,
    artifact_dir,
    read_json,
    train_metrics_path,
    train_timing_path,
    verify_dir,
)
from pipeline.config.artifacts import DeployConfig, TargetConfig
from pipeline.config.certify import CertifyConfig
from pipeline.config.methods import MatrixConfig
from pipeline.evaluation import Evaluation
from serving.errors import UserError
from serving.manifest import read_sidecar

Key = tuple[str, int, str]

DEVICE_PATH = REPORTS_DIR / "device.json"
BENCHMARK_PATH = REPORTS_DIR / "benchmark.json"
SAMPLES_PATH = REPORTS_DIR / "benchmark_samples.npz"
CERTIFICATE_PATH = REPORTS_DIR / "certificate.json"
REPORT_PATH = REPORTS_DIR / "report.json"


def verify_path(method: str, seed: int) -> Path:
    """Rows of one branch, one per target."""
    return verify_dir(method, seed) / "report.json"


def evaluation_path(method: str, seed: int, target: str) -> Path:
    """Confusion matrices of one target on the evaluated split."""
    return verify_dir(method, seed) / f"{target}.npz"


def expected_targets(
    matrix: MatrixConfig, targets: Mapping[str, TargetConfig], deploy: DeployConfig
) -> list[ExpectedTarget]:
    """The rows that params.yaml asks for, in its order."""
    return [
        ExpectedTarget(method, seed, name, target.artifact, target.runtime)
        for method in matrix.methods
        for seed in matrix.seeds
        for name, target in deploy.targets_of(method, targets).items()
    ]


def load_verified(matrix: MatrixConfig) -> dict[Key, dict[str, Any]]:
    """Every row of the stage `verify`. Raises UserError when a branch of the matrix has not been verified."""
    rows = {}
    for method in matrix.methods:
        for seed in matrix.seeds:
            path = verify_path(method, seed)
            for row in read_json(path, made_by="verify")["targets"]:
                rows[method, seed, row["target"]] = row
    return rows


def working_engines(
    expected: Iterable[ExpectedTarget], verified: Mapping[Key, Mapping[str, Any]], targets: Mapping[str, TargetConfig]
) -> list[Engine]:
    """What can be measured: every engine that gave masks, also one that failed a check (the gate judges that)."""
    engines = []
    for item in expected:
        row = verified.get((item.method, item.seed, item.target))
        if row is not None and row["status"] != "skipped" and row["sha256"] is not None and row["miou"] is not None:
            options = targets[item.target].options
            path = Path(row["path"])
            engines.append(Engine(item.method, item.seed, item.target, path, row["sha256"], item.runtime, options))
    return engines


def load_training(matrix: MatrixConfig) -> dict[tuple[str, int], dict[str, Any]]:
    """Metrics and, where it was trained here, duration of every training."""
    rows = {}
    for method in matrix.methods:
        for seed in matrix.seeds:
            row = dict(read_json(train_metrics_path(method, seed), made_by="train"))
            timing = train_timing_path(method, seed)
            seconds = read_json(timing, made_by="train").get("seconds") if timing.exists() else None
            rows[method, seed] = row | {"seconds": seconds}
    return rows


def load_report_inputs(
    *,
    profile: str,
    dataset: Mapping[str, Any],
    losses: Mapping[str, str],
    matrix: MatrixConfig,
    targets: Mapping[str, TargetConfig],
    deploy: DeployConfig,
    baseline: str,
) -> ReportInputs:
    """Everything that the report is made of.

    Args:
        profile: of the run.
        dataset: what the accuracy was measured on; the number of `images` is added where it is known.
        losses: method -> loss.
        matrix, targets, deploy: sections of params.yaml.
        baseline: name of the baseline method.
    """
    verified = load_verified(matrix)
    certificate = read_json(CERTIFICATE_PATH, made_by="certify")
    images = [entry["accuracy"].get("images") for entry in certificate["methods"].values()]
    paths = {row["path"] for row in verified.values() if row.get("path")}
    return ReportInputs(
        profile=profile,
        baseline=baseline,
        deployed=deploy.method,
        losses=losses,
        expected=expected_targets(matrix, targets, deploy),
        verified=verified,
        benchmark=read_json(BENCHMARK_PATH, made_by="benchmark"),
        certificate=certificate,
        device=read_json(DEVICE_PATH, made_by="device"),
        training=load_training(matrix),
        engine_bytes={path: Path(path).stat().st_size for path in paths if Path(path).exists()},
        dataset=dict(dataset) | {"images": images[0] if images else None},
        commit=commit(),
        created=now(),
    )


def collect_evidence(
    matrix: MatrixConfig,
    targets: Mapping[str, TargetConfig],
    config: CertifyConfig,
    benchmark: Mapping[str, Any],
    pairs: Mapping[str, Sequence[PairSamples]],
) -> dict[str, MethodEvidence]:
    """What is known of every method but the baseline; what is missing is said, never guessed.

    Raises:
        UserError: the baseline is not in the matrix, or the certified target is not in params.yaml.
    """
    if config.baseline not in matrix.methods:
        raise UserError(
            f"certify.baseline: {config.baseline!r} is not in matrix.methods ({', '.join(matrix.methods)}); "
            "add it there, or name one of them"
        )
    if config.target not in targets:
        raise UserError(f"certify.target: no target {config.target!r}; expected one of {', '.join(targets)}")
    artifact = targets[config.target].artifact
    return {
        method: _method_evidence(method, matrix.seeds, artifact, config, benchmark, pairs.get(method, ()))
        for method in matrix.methods
        if method != config.baseline
    }


def commit() -> str | None:
    """The checked-out commit, with `-dirty` when tracked files differ from it; None outside a repository."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _method_evidence(
    method: str,
    seeds: Sequence[int],
    artifact: str,
    config: CertifyConfig,
    benchmark: Mapping[str, Any],
    pairs: Sequence[PairSamples],
) -> MethodEvidence:
    missing: dict[str, str] = {}
    graphs: list[GraphPair] = []
    try:
        for seed in seeds:
            paths = [artifact_dir(name, seed, artifact) / MODEL_NAME for name in (config.baseline, method)]
            shape = _input_shape(benchmark, config, seed, paths[0])
            graphs.append(GraphPair(seed, _load_graph(paths[0]), _load_graph(paths[1]), shape))
    except UserError as error:
        graphs, missing["structure"] = [], str(error)
    accuracy: PairedAccuracy | None = None
    try:
        class_names = read_sidecar(artifact_dir(method, seeds[0], artifact) / MODEL_NAME).class_names
        accuracy = paired_accuracy(config.baseline, method, seeds, config.target, class_names)
    except UserError as error:
        missing["accuracy"] = str(error)
    if not pairs:
        entry = benchmark.get("comparisons", {}).get(method, {})
        missing["latency"] = entry.get("reason") or f"{config.target} was not measured for both methods"
    return MethodEvidence(graphs, pairs, accuracy, missing)


def paired_accuracy(
    baseline: str, method: str, seeds: Sequence[int], target: str, class_names: Sequence[str]
) -> PairedAccuracy:
    """Evaluations of both methods on `target`.

    Raises:
        UserError: an evaluation is missing, or the images differ.
    """
    sides = [[Evaluation.load(evaluation_path(name, seed, target)) for seed in seeds] for name in (baseline, method)]
    first = sides[0][0]
    for side, name in zip(sides, (baseline, method), strict=True):
        for seed, evaluation in zip(seeds, side, strict=True):
            if evaluation.names != first.names or evaluation.confusions.shape != first.confusions.shape:
                raise UserError(
                    f"{evaluation_path(name, seed, target)}: evaluated on other images or classes than "
                    f"{evaluation_path(baseline, seeds[0], target)}; run verify again"
                )
    return PairedAccuracy(
        seeds=seeds,
        baseline=np.stack([evaluation.confusions for evaluation in sides[0]]).astype(np.int64),
        other=np.stack([evaluation.confusions for evaluation in sides[1]]).astype(np.int64),
        class_names=class_names,
        sequences=first.groups,
        baseline_boundary=np.stack([evaluation.boundary for evaluation in sides[0]]),
        other_boundary=np.stack([evaluation.boundary for evaluation in sides[1]]),
    )


def _input_shape(benchmark: Mapping[str, Any], config: CertifyConfig, seed: int, path: Path) -> tuple[int, ...]:
    """The shape whose latency was measured; without one, a square of eight strides."""
    for row in benchmark.get("targets", []):
        key = (row["method"], row["seed"], row["target"])
        if key == (config.baseline, seed, config.target) and row["status"] == "ok":
            return tuple(row["input_shape"])
    side = 8 * read_sidecar(path).input.stride
    return (1, side, side, 3)


def _load_graph(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro` first") from None
    except Exception as error:  # noqa: BLE001  protobuf's DecodeError has no base of its own, and no types
        raise UserError(f"{path}: not a readable ONNX file ({error}); run `dvc repro` again") from None
