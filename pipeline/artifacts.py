"""Where everything lives, and how it gets there whole: paths, atomic writes, JSON. Light to import: no torch."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from serving.errors import UserError

PREPARED_DIR = Path("data/prepared")
ARTIFACTS_DIR = Path("artifacts")
REPORTS_DIR = Path("reports")
METRICS_DIR = Path("metrics")
SKIPPED_NAME = "skipped.json"  # in place of an engine that cannot be built here: {status, reason}


def branch_name(method: str, seed: int) -> str:
    """Name of one method trained with one seed, as in paths and DVC stages: `pixel_contrast-s0`."""
    return f"{method}-s{seed}"


def branch_dir(method: str, seed: int) -> Path:
    """Everything one branch produces."""
    return ARTIFACTS_DIR / branch_name(method, seed)


def trained_dir(method: str, seed: int) -> Path:
    """Checkpoints of the trainee: `best` and `last`, and the training curves."""
    return branch_dir(method, seed) / "trained"


def stripped_dir(method: str, seed: int) -> Path:
    """The segmentor alone."""
    return branch_dir(method, seed) / "stripped"


def artifact_dir(method: str, seed: int, artifact: str) -> Path:
    """One exported artefact: `model.onnx` and `manifest.json`."""
    return branch_dir(method, seed) / artifact


def train_metrics_path(method: str, seed: int) -> Path:
    """Reproducible numbers of one training, committed."""
    return METRICS_DIR / "train" / f"{branch_name(method, seed)}.json"


def verify_metrics_path(method: str, seed: int) -> Path:
    """Reproducible numbers of one verification, committed."""
    return METRICS_DIR / "verify" / f"{branch_name(method, seed)}.json"


def verify_dir(method: str, seed: int) -> Path:
    """What `verify` records of one branch: `report.json`, and one `<target>.npz` of per-image counts per target."""
    return REPORTS_DIR / "verify" / branch_name(method, seed)


def train_timing_path(method: str, seed: int) -> Path:
    """How long the training took on this machine; never a cached output, since it differs from run to run."""
    return REPORTS_DIR / "timing" / f"{branch_name(method, seed)}.json"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's 0600 would reach DVC's outputs
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces it when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, atomically. Dataclasses become mappings, NaN becomes null."""
    text = json.dumps(_plain(value), indent=2, sort_keys=True, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, *, made_by: str) -> Any:
    """Read a JSON file that the stage `made_by` writes. Raises UserError when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the output of `{made_by}`: run it first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected JSON, got {error}; delete it and run `{made_by}` again") from None


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and math.isnan(value):
        return None  # JSON has no NaN; a class that occurs nowhere has no IoU
    return value
