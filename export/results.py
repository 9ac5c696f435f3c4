"""Reading back what the stages before wrote, in the shape that the pure functions take."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from export.engine_latency import Engine
from export.report import ExpectedTarget, ReportInputs
from pipeline.artifacts import (
    REPORTS_DIR,
    read_json,
    train_metrics_path,
    train_timing_path,
    verify_dir,
)
from pipeline.config.artifacts import DeployConfig, TargetConfig
from pipeline.config.methods import MatrixConfig

Key = tuple[str, int, str]

DEVICE_PATH = REPORTS_DIR / "device.json"
BENCHMARK_PATH = REPORTS_DIR / "benchmark.json"
SAMPLES_PATH = REPORTS_DIR / "benchmark_samples.npz"
CERTIFICATE_PATH = REPORTS_DIR / "certificate.json"
REPORT_PATH = REPORTS_DIR / "report.json"


def verify_path(method: str, seed: int) -> Path:
    """Rows of one branch, one per target."""
    return verify_dir(method, seed) / "report.json"


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
