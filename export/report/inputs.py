"""Everything that the report is made of, read from what the stages before wrote."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.machine.hardware import hardware_sha256
from export.records.expected import ExpectedTarget, expected_targets
from export.records.recorded import load_curves, load_training, load_verified
from export.report.report import ReportInputs
from export.targets.config import DeployConfig, TargetConfig
from pipeline.layout.branches import BranchConfig
from pipeline.layout.paths import (
    BENCHMARK_PATH,
    CERTIFICATE_PATH,
    DEVICE_PATH,
    METRICS_DIR,
    MODEL_NAME,
    PLAN_NAME,
    PREPARED_DIR,
    artifact_dir,
    branch_dir,
    verify_path,
)
from serving.card.checking import shipped_files, shipped_sha256
from serving.contract.errors import UserError
from serving.contract.files import file_sha256, read_json

ENGINE_SUFFIXES = tuple(Path(name).suffix for name in (MODEL_NAME, PLAN_NAME))


def load_report_inputs(
    *,
    profile: str,
    dataset: Mapping[str, Any],
    losses: Mapping[str, str],
    branches: Mapping[str, BranchConfig],
    targets: Mapping[str, TargetConfig],
    deploy: DeployConfig,
    baseline: str,
) -> ReportInputs:
    """Everything that the report is made of.

    Args:
        profile: of the run.
        dataset: what the accuracy was measured on; the number of `images` is added where it is known, and what prepare
            says of the data: its `sha256`, `warnings` and `notes`.
        losses: method -> loss.
        branches: section of params.yaml.
        targets: section of params.yaml.
        deploy: section of params.yaml.
        baseline: name of the baseline method.

    Raises:
        UserError: a stage has not run, or what it measured is of another profile, other data or another machine than
            those here.
    """
    verified = load_verified(branches)
    prepared = read_json(PREPARED_DIR / "dataset.json", made_by="prepare")
    if "warnings" not in prepared:
        raise UserError(f"{PREPARED_DIR / 'dataset.json'}: made by an older version; run prepare again")
    certificate = read_json(CERTIFICATE_PATH, made_by="certify")
    benchmark, device = read_json(BENCHMARK_PATH, made_by="benchmark"), read_json(DEVICE_PATH, made_by="device")
    measured = {
        path: ("verify", read_json(path, made_by="verify"))
        for path in (verify_path(branch.method, branch.seed) for branch in branches.values())
    }
    require_one_profile(profile, {"benchmark": benchmark["profile"], "certify": certificate["profile"]})
    require_one_origin(
        measured | {BENCHMARK_PATH: ("benchmark", benchmark)},
        {"sha256": prepared["sha256"], "split": dataset["split"]},
        device,
    )
    images = [entry["accuracy"].get("images") for entry in certificate["methods"].values()]
    expected = expected_targets(branches, targets, deploy)
    rows = [verified.get((each.method, each.seed, each.target), {}) for each in expected]
    paths = [path for path in dict.fromkeys(row.get("path") for row in rows) if path]
    there = [path for path in paths if Path(path).is_file()]
    return ReportInputs(
        profile=profile,
        baseline=baseline,
        deployed=deploy.method,
        losses=losses,
        expected=expected,
        verified=verified,
        benchmark=benchmark,
        certificate=certificate,
        device=device,
        training=load_training(branches),
        curves=load_curves(branches),
        engine_bytes={path: Path(path).stat().st_size for path in there},
        engine_sha256={path: file_sha256(Path(path)) for path in there},
        unexamined=unexamined(branches, expected, paths),
        changed=changed_files(branches, {path: record for path, (_, record) in measured.items()}),
        dataset=dict(dataset)
        | {"images": images[0] if images else None}
        | {key: prepared[key] for key in ("sha256", "warnings", "notes")},
        commit=commit(),
        created=now(),
    )


def require_one_profile(profile: str, found: Mapping[str, str]) -> None:
    """A brief measurement is not that of a release, whatever params.yaml says since.

    Args:
        profile: in params.yaml.
        found: stage -> the profile that it measured, or judged, by.

    Raises:
        UserError: a stage went by another one.
    """
    other = [f"{stage} went by the profile {theirs!r}" for stage, theirs in found.items() if theirs != profile]
    if other:
        raise UserError(f"{' and '.join(other)}, params.yaml says {profile!r}: run benchmark and certify again")


def require_one_origin(
    measured: Mapping[Path, tuple[str, Mapping[str, Any]]], dataset: Mapping[str, str], device: Mapping[str, Any]
) -> None:
    """Numbers of other data or of another machine would stand below the names of those that are here.

    Args:
        measured: path -> the stage that wrote it, and what it wrote: the `dataset` that it measured on, and where it
            measured latencies the `hardware_sha256`.
        dataset: `sha256` and `split` of the data that is here.
        device: device.json.

    Raises:
        UserError: something was measured elsewhere, or on other data; all of it is named.
    """
    problems = []
    here = f"{dataset['sha256'][:12]}, split {dataset['split']}"
    for path, (stage, record) in measured.items():
        if (of := record.get("dataset")) is None:
            problems.append(f"{path}: made by an older version, which did not say of what data: run {stage} again")
        elif of != dataset:
            found = f"{of['sha256'][:12]}, split {of['split']}"
            problems.append(f"{path}: measured on data {found}, {PREPARED_DIR} has {here}: run {stage} again")
        if "hardware_sha256" in record and record["hardware_sha256"] != device["hardware_sha256"]:
            machines = f"{record['hardware_sha256'][:12]}, {DEVICE_PATH} is of {device['hardware_sha256'][:12]}"
            problems.append(f"{path}: measured on machine {machines}: run device and {stage} again")
    if hardware_sha256(device["hardware"]) != device["hardware_sha256"]:
        problems.append(f"{DEVICE_PATH}: its hardware_sha256 does not fit its hardware: run device again")
    if problems:
        raise UserError("; ".join(problems))


def unexamined(
    branches: Mapping[str, BranchConfig], expected: Sequence[ExpectedTarget], examined: Sequence[str]
) -> list[str]:
    """Paths of the engines that ship with the branches, whoever put them there, and that no target is about.

    Args:
        branches: section of params.yaml.
        expected: the rows that params.yaml asks for; what their plans are compiled from need not run itself.
        examined: paths of the engines that the rows are of.
    """
    known = {(artifact_dir(each.method, each.seed, each.artifact) / MODEL_NAME).as_posix() for each in expected}
    folders = [branch_dir(branch.method, branch.seed) for branch in branches.values()]
    paths = [folder / name for folder in folders for name in shipped_files(folder)]
    engines = [path.as_posix() for path in paths if path.suffix.lower() in ENGINE_SUFFIXES]
    return [path for path in engines if path not in known.union(examined)]


def changed_files(
    branches: Mapping[str, BranchConfig], verifications: Mapping[Path, Mapping[str, Any]]
) -> dict[str, str]:
    """What ships with the branches and is not as it was when `verify` began: path -> what became of it.

    Args:
        branches: section of params.yaml.
        verifications: path -> what `verify` wrote of a branch; its `files` are path -> SHA-256.

    Raises:
        UserError: a verification does not say what files there were.
    """
    if older := [str(path) for path, record in verifications.items() if "files" not in record]:
        raise UserError(
            f"{'; '.join(older)}: made by an older version, which did not say of what files: run verify again"
        )
    then = {name: sha256 for record in verifications.values() for name, sha256 in record["files"].items()}
    folders = [branch_dir(branch.method, branch.seed) for branch in branches.values()]
    now = {(folder / name).as_posix(): sha for folder in folders for name, sha in shipped_sha256(folder).items()}
    found = {}
    for path in sorted(then.keys() | now.keys()):
        before, after = then.get(path), now.get(path)
        if before is None:
            found[path] = "is new since verify"
        elif after is None:
            found[path] = f"is missing, verify examined {before[:12]}"
        elif before != after:
            found[path] = f"is {after[:12]}, verify examined {before[:12]}"
    return found


def commit(results: Sequence[str] = ("dvc.lock", METRICS_DIR.as_posix())) -> str | None:
    """The checked-out commit, with `-dirty` when tracked files differ from it; None outside a repository.

    Args:
        results: paths that may differ: what every run of the pipeline writes says nothing of the code that ran.
    """
    excluded = [f":(exclude){path}" for path in results]
    try:
        head, changed = (
            subprocess.run(["git", *command], capture_output=True, text=True, timeout=20, check=True).stdout.strip()
            for command in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", ".", *excluded],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if changed else head


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
