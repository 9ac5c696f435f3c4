"""Where everything lies that a run makes. Light to import: no torch."""

from __future__ import annotations

from pathlib import Path

from pipeline.layout.branches import branch_name

PREPARED_DIR = Path("data/prepared")
WATCHED_PATH = Path("data/watched.json")  # names, sizes and times in the dataset's folder, as one hash
ARTIFACTS_DIR = Path("artifacts")
REPORTS_DIR = Path("reports")
METRICS_DIR = Path("metrics")
RUNS_DIR = Path("runs")
MODEL_NAME = "model.onnx"
PLAN_NAME = "model.plan"
SKIPPED_NAME = "skipped.json"  # in place of an engine that cannot be built here: {status, reason}

# All that a run writes, and what else is never data where the dataset's folder is the project's own.
OUTPUT_PATHS = (
    *(PREPARED_DIR, WATCHED_PATH, ARTIFACTS_DIR, REPORTS_DIR, METRICS_DIR, RUNS_DIR),
    *map(Path, ("predictions", "dvc_plots", "dvc.lock", "params.yaml")),
)

DEVICE_PATH = REPORTS_DIR / "device.json"
BENCHMARK_PATH = REPORTS_DIR / "benchmark.json"
SAMPLES_PATH = REPORTS_DIR / "benchmark_samples.npz"
CERTIFICATE_PATH = REPORTS_DIR / "certificate.json"
REPORT_PATH = REPORTS_DIR / "report.json"


def branch_dir(method: str, seed: int) -> Path:
    """Everything one branch produces."""
    return ARTIFACTS_DIR / branch_name(method, seed)


def trained_dir(method: str, seed: int) -> Path:
    """Checkpoints of the trainee: `best` and `last`."""
    return branch_dir(method, seed) / "trained"


def last_weights_path(method: str, seed: int) -> Path:
    """The weights that a training ended with: what it is known by."""
    return trained_dir(method, seed) / "last.safetensors"


def curves_dir(method: str, seed: int) -> Path:
    """Training curves, as DVCLive writes them."""
    return REPORTS_DIR / "training" / branch_name(method, seed)


def stripped_dir(method: str, seed: int) -> Path:
    """The segmentor alone."""
    return branch_dir(method, seed) / "stripped"


def artifact_dir(method: str, seed: int, artifact: str) -> Path:
    """One exported artefact: `model.onnx` and `manifest.json`."""
    return branch_dir(method, seed) / artifact


def train_metrics_path(method: str, seed: int) -> Path:
    """Reproducible numbers of one training, committed."""
    return METRICS_DIR / "train" / f"{branch_name(method, seed)}.json"


def verify_metrics_dir(method: str, seed: int) -> Path:
    """Reproducible numbers of one verification, committed: a file per target, which is a row of `dvc metrics show`."""
    return METRICS_DIR / "verify" / branch_name(method, seed)


def verify_dir(method: str, seed: int) -> Path:
    """What `verify` records of one branch: `report.json`, and one `<target>.npz` of per-image counts per target."""
    return REPORTS_DIR / "verify" / branch_name(method, seed)


def train_timing_path(method: str, seed: int) -> Path:
    """How long the training took on this machine; never a cached output, since it differs from run to run.

    Its `weights_sha256` is that of `last_weights_path`, which may be another training's by the time it is read.
    """
    return REPORTS_DIR / "timing" / f"{branch_name(method, seed)}.json"


def checkpoints_dir(method: str, seed: int) -> Path:
    """States of an interrupted training; no output of a stage, so that DVC does not delete them."""
    return RUNS_DIR / branch_name(method, seed) / "checkpoints"


def verify_path(method: str, seed: int) -> Path:
    """Rows of one branch, one per target."""
    return verify_dir(method, seed) / "report.json"


def evaluation_path(method: str, seed: int, target: str) -> Path:
    """Confusion matrices of one target of a branch on the evaluated split."""
    return verify_dir(method, seed) / f"{target}.npz"
