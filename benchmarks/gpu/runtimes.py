"""Engines on the device: ONNX Runtime's CUDA provider and TensorRT, where they are installed, beside PyTorch."""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.networks import exported, street_scenes
from export.checks.examination.images import scene
from export.checks.examination.reference import Reference
from export.plans.compilation import compile_plan
from export.plans.timing_cache import TimingCaches
from export.targets.artifact_config import ArtifactConfig
from export.targets.plan_build import PlanBuild
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo
from serving.contract.errors import UnavailableError, UserError
from serving.engines.predictor import Predictor

Package = Literal["tensorrt", "tensorrt_rtx"]
PACKAGES: tuple[Package, ...] = ("tensorrt", "tensorrt_rtx")


def measure(device: Literal["cpu", "cuda"], *, toy: bool) -> dict[str, Any]:
    """What every engine answers, how fast, and in which precision it says that it runs."""
    side = 64 if toy else 512
    image = scene(side, side, np.random.default_rng(0))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="contrail-gpu-runtimes-") as folder:
        prepared = street_scenes(Path(folder) / "data", 64)
        config = ModelConfig("mobilenetv3_small_100" if toy else "tf_efficientnet_lite0", False)
        segmentor = build_segmentor(config, prepared.num_classes, seed=0).eval()
        artifacts = {"onnx_fp32": ArtifactConfig("onnx_fp32"), "onnx_fp16": ArtifactConfig("onnx_fp16")}
        paths = {}
        for name, artifact in artifacts.items():
            (Path(folder) / name).mkdir()
            paths[name] = exported(name, artifact, segmentor, prepared, Path(folder) / name)
        info = SegmentorInfo(config, prepared.num_classes, prepared.class_names, prepared.palette, 255)
        expected = Reference(segmentor, info, torch.device(device)).logits(image[None]).argmax(1)[0]
        for name, path in paths.items():
            for prefer_nhwc in (False, True) if device == "cuda" else (False,):
                options: dict[str, object] = {"provider": device, "prefer_nhwc": prefer_nhwc}
                said = f"ONNX Runtime, {name}{', prefer_nhwc' if prefer_nhwc else ''}"
                found[said] = _tried(path, "onnxruntime", options, image, expected)
            for package in PACKAGES:
                if device == "cuda" and importlib.util.find_spec(package) is not None:
                    found[f"{package}, {name}"] = _plan(path, package, Path(folder), image, expected)
    return found


def _plan(path: Path, package: Package, folder: Path, image: Any, expected: Any) -> dict[str, Any]:
    target = folder / f"{package}-{path.parent.name}"
    target.mkdir()
    build = PlanBuild(package=package)
    try:
        plan = compile_plan(
            path,
            target,
            name="plan",
            build=build,
            sizes=lambda: [image.shape[:2]],
            timings=TimingCaches(folder / "timings", "0" * 64),
        )
    except UserError as error:
        return {"error": str(error)}
    return _tried(plan, "tensorrt", {}, image, expected)


def _tried(path: Path, runtime: str, options: dict[str, object], image: Any, expected: Any) -> dict[str, Any]:
    try:
        with Predictor(path, runtime=runtime, options=options) as predictor:
            mask = predictor.predict(image)
            seconds = []
            for _ in range(20):
                started = time.perf_counter()
                predictor.predict(image)
                seconds.append(time.perf_counter() - started)
            return {
                "differing_pixels": float((mask != expected).mean()),
                "median_ms": 1000 * statistics.median(seconds),
                "runs": predictor.runtime.what_runs(),
            }
    except (UserError, UnavailableError) as error:
        return {"error": str(error)}
