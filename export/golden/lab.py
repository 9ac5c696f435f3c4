"""Running an engine on its golden images in the lab's runtimes, and writing the files beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UnavailableError
from serving.contract.files import file_sha256, write_json
from serving.contract.limits import BF16, FP16, FP32, INT8, TF32
from serving.contract.manifest import Manifest, read_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes import RUNTIMES
from serving.golden.golden import LATENCY_NAME, Golden, GoldenInput, LabRun, golden_folder
from serving.golden.selftest import precision_of

UInt8 = NDArray[np.uint8]
Options = Mapping[str, object]
# (runtime, its options) -> (largest difference of a logit from PyTorch's, PyTorch's largest absolute logit).
LogitError = Callable[[str, Options], tuple[float, float]]

# The runs of a file, beside that in its own precision: OpenVINO computes single precision in bf16 where it is told to.
_OPTIONS: dict[str, tuple[dict[str, object], ...]] = {"openvino": ({}, {"precision": "bf16"})}
_LIMITS = {"fp32": FP32, "tf32": TF32, "fp16": FP16, "bf16": BF16, "int8": INT8}
_LATENCY_RUNS = 5


def write_golden(
    engine_path: Path,
    inputs: Sequence[GoldenInput],
    *,
    logit_error: LogitError | None = None,
) -> bool:
    """Run an engine on golden inputs and write `golden/` beside it.

    It runs in every runtime that is installed here and opens its kind of file; what they give is kept for the device to
    compare with. One thread each: the same numbers every time on one machine.

    Args:
        engine_path: the engine file, its manifest beside it.
        inputs: with PyTorch's masks and margins.
        logit_error: measures the engine's logits in a runtime; None where it shows none.

    Returns:
        Whether any runtime could run it; where none could, nothing is written.
    """
    manifest = read_sidecar(engine_path)
    runs: list[LabRun] = []
    latencies: dict[str, float] = {}
    for name in RUNTIMES:
        if manifest.kind not in RUNTIMES.resolve(name).kinds:
            continue
        for options in _OPTIONS.get(name, ({},)):
            if options and manifest.precision != "fp32":
                continue
            try:
                run, latency = _run(engine_path, manifest, name, options, inputs, logit_error)
            except UnavailableError:
                continue
            runs.append(run)
            latencies[f"{run.runtime} {run.precision}"] = latency
    if not runs:
        return False
    folder = golden_folder(engine_path)
    Golden(file_sha256(engine_path), tuple(inputs), tuple(runs)).save(folder)
    write_json(folder / LATENCY_NAME, latencies)
    return True


def _run(
    engine_path: Path,
    manifest: Manifest,
    runtime: str,
    options: Options,
    inputs: Sequence[GoldenInput],
    logit_error: LogitError | None,
) -> tuple[LabRun, float]:
    """What one runtime gives, and its median latency in milliseconds. Raises UnavailableError where it cannot run."""
    one_thread: dict[str, object] = {"threads": 1} if manifest.kind == "onnx" else {}
    options = one_thread | dict(options)
    with Predictor(engine_path, runtime=runtime, options=options) as predictor:
        precision = precision_of(predictor)
        masks = tuple(predictor.predict(each.image) for each in inputs)
        layers = predictor.runtime.layer_precisions()
        version = str(predictor.runtime.what_runs().get("version", ""))
        latency = _latency(predictor, max(inputs, key=lambda each: each.mask.size).image)
    error, largest = logit_error(runtime, options) if logit_error is not None else (None, 0.0)
    run = LabRun(
        runtime,
        precision,
        version,
        _LIMITS[precision].max_disagreement,
        error,
        largest,
        layers[0] if layers else {},
        masks,
    )
    return run, latency


def _latency(predictor: Predictor, image: UInt8) -> float:
    times = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter_ns()
        predictor.predict(image)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return round(median(times), 3)
