"""Sections `artifacts`, `targets` and `deploy` of params.yaml: what is exported, how it runs, what ships."""

from __future__ import annotations

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


# One entry per name in `export.artifacts.ARTIFACTS`; the exporters live in the room `export`, which this room may not
# import, but a typing error in params.yaml should not wait for the export to show.
ARTIFACT_OPTIONS: Mapping[str, type[Any]] = {"onnx_fp32": OnnxFp32Options, "onnx_fp16": OnnxFp16Options}


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
class TargetConfig:
    """One target: an artefact on a runtime.

    Attributes:
        artifact: a name from the section `artifacts`.
        runtime: a name in `serving.runtimes.RUNTIMES`.
        options: settings of that runtime.
    """

    artifact: str
    runtime: str = "onnxruntime"
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require = Require()
        if self.runtime not in RUNTIMES:
            require(False, f"runtime: unknown runtime {self.runtime!r}{did_you_mean(self.runtime, RUNTIMES)}")
        else:
            problems = Problems()
            build(RUNTIMES.resolve(self.runtime).Options, self.options, "options", problems)
            for problem in problems:
                require(False, problem)
        require.done()


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
