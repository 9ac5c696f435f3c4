"""Gathering what the certificate rests on: graphs, session pairs and evaluations of every method and the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.certificate.certificate import GraphPair, MethodInputs
from export.certificate.measured import measured_pairs
from export.latency.config import CertifyConfig
from export.latency.paired_latency import PairSamples
from export.targets.config import TargetConfig
from pipeline.evaluation.accuracy import PairedAccuracy
from pipeline.evaluation.evaluation import Evaluation
from pipeline.layout.branches import BranchConfig, methods_of, seeds_of
from pipeline.layout.paths import MODEL_NAME, artifact_dir, evaluation_path
from serving.contract.errors import UserError
from serving.contract.manifest import read_sidecar


def load_method_inputs(
    branches: Mapping[str, BranchConfig],
    targets: Mapping[str, TargetConfig],
    config: CertifyConfig,
    benchmark: Mapping[str, Any],
    pairs: Mapping[str, Sequence[PairSamples]],
) -> dict[str, MethodInputs]:
    """What is known of every method but the baseline; what is missing is said, never guessed.

    Raises:
        UserError: the baseline has no branch, or the certified target is not in params.yaml.
    """
    methods = methods_of(branches)
    if config.baseline not in methods:
        raise UserError(
            f"certify.baseline: {config.baseline!r} has no branch, {', '.join(methods)} have; add one, or name "
            "one of them"
        )
    if config.target not in targets:
        raise UserError(f"certify.target: no target {config.target!r}; expected one of {', '.join(targets)}")
    return {
        method: _method_inputs(method, seeds_of(branches, method), targets[config.target], config, benchmark, pairs)
        for method in methods
        if method != config.baseline
    }


def _method_inputs(
    method: str,
    seeds: Sequence[int],
    target: TargetConfig,
    config: CertifyConfig,
    benchmark: Mapping[str, Any],
    pairs: Mapping[str, Sequence[PairSamples]],
) -> MethodInputs:
    missing: dict[str, str] = {}
    artifact = target.artifact
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
    measured, reason = measured_pairs(method, method, seeds, target, config, benchmark, pairs)
    if reason is not None:
        missing["latency"] = reason
    return MethodInputs(graphs, measured, accuracy, missing)


def paired_accuracy(
    baseline: str, method: str, seeds: Sequence[int], target: str, class_names: Sequence[str]
) -> PairedAccuracy:
    """Evaluations of both methods on `target`.

    Raises:
        UserError: an evaluation is missing, or the images or the classes differ.
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
    if first.confusions.shape[1] != len(class_names):
        raise UserError(
            f"{evaluation_path(baseline, seeds[0], target)}: evaluated on {first.confusions.shape[1]} classes, "
            f"expected {len(class_names)}; run verify again"
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
