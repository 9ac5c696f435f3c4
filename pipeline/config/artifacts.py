"""Sections `artifacts`, `targets` and `deploy` of params.yaml: what is exported, how it runs, what ships."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.config.schema import Problems, Require, build
from serving.errors import did_you_mean
from serving.runtimes import RUNTIMES


@dataclass(frozen=True)
class OnnxFp32Options:
    """Options of the artefact kind `onnx_fp32`.

    Attributes:
        output: `mask`, or `mask+confidence` for a second output with the probability of the predicted class in 1/255.
    """

    output: Literal["mask", "mask+confidence"] = "mask"


@dataclass(frozen=True)
class OnnxFp16Options:
    """Options of the artefact kind `onnx_fp16`.

    Attributes:
        output: as in `onnx_fp32`.
    """

    output: Literal["mask", "mask+confidence"] = "mask"


@dataclass(frozen=True)
class OnnxInt8Options:
    """Options of the artefact kind `onnx_int8`.

    Attributes:
        scheme: `symmetric` (S8, biases in floating point: TensorRT, OpenVINO) or `asymmetric` (U8 activations and
            quantised biases: ONNX Runtime on CPUs).
        calibration: how ranges follow from activations: `minmax`, `percentile` or `entropy`.
        percentile: share of the values, in percent, that the range covers with `percentile`.
        images: training images that the ranges are measured on.
        held_out: further training images on which the loss of mIoU is measured while layers are chosen.
        max_miou_drop_points: layers stay in floating point until the loss there is at most this; below the gate's
            limit, since other images may lose more.
        probes: held-out images that the sensitivity of each layer is measured on.
        per_channel: one scale per output channel of a weight, not one per tensor.
        reduce_range: weights in 7 bits, for CPUs without VNNI, whose kernels saturate.
        seed: another number chooses other images.
        output: as in `onnx_fp32`.
    """

    scheme: Literal["symmetric", "asymmetric"] = "symmetric"
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    percentile: float = 99.99
    images: int = 32
    held_out: int = 32
    max_miou_drop_points: float = 0.3
    probes: int = 4
    per_channel: bool = True
    reduce_range: bool = False
    seed: int = 0
    output: Literal["mask", "mask+confidence"] = "mask"

    def __post_init__(self) -> None:
        require = Require()
        for name in ("images", "held_out", "probes"):
            value = getattr(self, name)
            require(value >= 1, f"{name}: expected at least 1, got {value}")
        require(50 < self.percentile <= 100, f"percentile: expected in (50, 100], got {self.percentile}")
        require(
            self.max_miou_drop_points >= 0,
            f"max_miou_drop_points: expected at least 0, got {self.max_miou_drop_points}",
        )
        require.done()


# One entry per name in `export.artifacts.ARTIFACTS`; the exporters live in the room `export`, which this room may not
# import, but a typing error in params.yaml should not wait for the export to show.
ARTIFACT_OPTIONS: Mapping[str, type[Any]] = {
    "onnx_fp32": OnnxFp32Options,
    "onnx_fp16": OnnxFp16Options,
    "onnx_int8": OnnxInt8Options,
}


@dataclass(frozen=True)
class ArtifactConfig:
    """One artefact: a file exported from a stripped segmentor.

    Attributes:
        kind: which exporter, a name in `export.artifacts.ARTIFACTS`.
        options: settings of that exporter, the fields of its options class.
    """

    kind: str
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require = Require()
        if self.kind not in ARTIFACT_OPTIONS:
            require(False, f"kind: unknown kind of artifact {self.kind!r}{did_you_mean(self.kind, ARTIFACT_OPTIONS)}")
        else:
            for problem in self._build()[1]:
                require(False, problem)
        require.done()

    def exporter_options(self) -> Any:
        """`options` as an instance of the exporter's own options class."""
        options, problems = self._build()
        assert options is not None, problems  # __post_init__ has built it once
        return options

    def _build(self) -> tuple[Any, Problems]:
        problems = Problems()
        return build(ARTIFACT_OPTIONS[self.kind], self.options, "options", problems), problems


@dataclass(frozen=True)
class PlanBuild:
    """How a TensorRT plan is built; precision lives in the artefact.

    Attributes:
        package: `tensorrt`, `tensorrt_rtx`, or `auto`: the one that is installed, `tensorrt` first.
        compute_capabilities: GPUs to build for, as in "8.9"; none for the GPU of this machine. Without a GPU only
            TensorRT-RTX builds, and these must be named.
        min, opt, max: batch, height and width: the smallest input, the one to be fastest at, and the largest.
        workspace_mebibytes: scratch memory that a layer may use; None leaves it to TensorRT.
    """

    package: Literal["auto", "tensorrt", "tensorrt_rtx"] = "auto"
    compute_capabilities: tuple[str, ...] = ()
    min: tuple[int, int, int] = (1, 64, 64)
    opt: tuple[int, int, int] = (1, 512, 512)
    max: tuple[int, int, int] = (8, 1024, 1024)
    workspace_mebibytes: int | None = None

    def __post_init__(self) -> None:
        require = Require()
        require(
            all(0 < low <= best <= high for low, best, high in zip(self.min, self.opt, self.max, strict=True)),
            f"expected 0 < min <= opt <= max on every axis, got {list(self.min)}, {list(self.opt)}, {list(self.max)}",
        )
        unfit = [text for text in self.compute_capabilities if not re.fullmatch(r"\d+\.\d", text)]
        require(not unfit, f"compute_capabilities: expected texts such as '8.9', got {unfit}")
        require(
            self.workspace_mebibytes is None or self.workspace_mebibytes >= 1,
            f"workspace_mebibytes: expected at least 1, got {self.workspace_mebibytes}",
        )
        require.done()


@dataclass(frozen=True)
class TargetConfig:
    """One target: an artefact on a runtime.

    Attributes:
        artifact: a name from the section `artifacts`.
        runtime: a name in `serving.runtimes.RUNTIMES`.
        options: settings of that runtime.
        build: how its plan is built; only of the runtime `tensorrt`.
    """

    artifact: str
    runtime: str = "onnxruntime"
    options: Mapping[str, object] = field(default_factory=dict)
    build: PlanBuild = PlanBuild()

    def __post_init__(self) -> None:
        require = Require()
        if self.runtime not in RUNTIMES:
            require(False, f"runtime: unknown runtime {self.runtime!r}{did_you_mean(self.runtime, RUNTIMES)}")
        else:
            problems = Problems()
            build(RUNTIMES.resolve(self.runtime).Options, self.options, "options", problems)
            for problem in problems:
                require(False, problem)
        require(self.compiled or self.build == PlanBuild(), f"build: the runtime {self.runtime} compiles nothing")
        require.done()

    @property
    def compiled(self) -> bool:
        """Whether the artefact is compiled to an engine of its own first."""
        return self.runtime == "tensorrt"


@dataclass(frozen=True)
class DeployConfig:
    """What ships.

    Attributes:
        method: the method of the matrix whose engines ship; it is built for every target.
        everywhere: targets that the other methods are built for as well, so that they can be compared.
    """

    method: str = "pixel_contrast"
    everywhere: tuple[str, ...] = ("ort_fp32",)

    def targets_of(self, method: str, targets: Mapping[str, TargetConfig]) -> dict[str, TargetConfig]:
        """The targets that `method` is built for, in the order of params.yaml."""
        return {name: target for name, target in targets.items() if method == self.method or name in self.everywhere}
