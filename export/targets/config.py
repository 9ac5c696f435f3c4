"""Sections `targets`, `deploy`, `exports` and `compiles` of params.yaml: how what runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from export.targets.artifact_config import ArtifactConfig
from export.targets.plan_build import PlanBuild
from pipeline.layout.branches import BranchConfig
from serving.contract.errors import did_you_mean
from serving.contract.schema import Problems, Require, build
from serving.engines.runtimes import RUNTIMES

CONTROL = "control"  # among the comparisons of methods, that of the baseline with itself


@dataclass(frozen=True)
class TargetConfig:
    """One target: an artefact on a runtime.

    Attributes:
        artifact: a name from the section `artifacts`.
        runtime: a name in `serving.engines.runtimes.RUNTIMES`.
        options: settings of that runtime.
        build: how its plan is built; only of the runtime `tensorrt`.
    """

    artifact: str
    runtime: str = "onnxruntime"
    options: Mapping[str, object] = field(default_factory=dict)
    build: PlanBuild = field(default_factory=PlanBuild)

    def __post_init__(self) -> None:
        require = Require()
        if self.runtime not in RUNTIMES:
            require(False, f"runtime: unknown runtime {self.runtime!r}{did_you_mean(self.runtime, RUNTIMES)}")
        else:
            problems = Problems()
            build(RUNTIMES.resolve(self.runtime).Options, self.options, "options", problems)
            for problem in problems:
                require(False, problem)
        compiles = self.runtime in RUNTIMES and self.compiled
        require(compiles or self.build == PlanBuild(), f"build: the runtime {self.runtime} compiles nothing")
        require.done()

    @property
    def compiled(self) -> bool:
        """Whether the artefact is compiled to an engine of its own first."""
        return RUNTIMES.resolve(self.runtime).compiled


@dataclass(frozen=True)
class DeployConfig:
    """What ships.

    Attributes:
        method: the method whose engines ship; it is built for every target.
        everywhere: targets that the other methods are built for as well, so that they can be compared.
    """

    method: str = "pixel_contrast"
    everywhere: tuple[str, ...] = ("ort_fp32",)

    def targets_of(self, method: str, targets: Mapping[str, TargetConfig]) -> dict[str, TargetConfig]:
        """The targets that `method` is built for, in the order of params.yaml."""
        return {name: target for name, target in targets.items() if method == self.method or name in self.everywhere}


@dataclass(frozen=True)
class ExportConfig:
    """One entry of the section `exports`: DVC exports one artefact of one branch per entry.

    Attributes:
        branch: a name from the section `branches`.
        artifact: a name from the section `artifacts`.
        kind: that artefact's kind, so that dvc.yaml finds the room of its code.
    """

    branch: str
    artifact: str
    kind: str

    @property
    def name(self) -> str:
        """The key that this entry must have in the section."""
        return f"{self.branch}-{self.artifact}"


@dataclass(frozen=True)
class CompileConfig:
    """One entry of the section `compiles`: DVC compiles one target of one branch to an engine of its own per entry.

    Attributes:
        branch: a name from the section `branches`.
        target: a name from the section `targets`, of a runtime that runs compiled engines.
        artifact: that target's artefact, which it is compiled from.
    """

    branch: str
    target: str
    artifact: str

    @property
    def name(self) -> str:
        """The key that this entry must have in the section."""
        return f"{self.branch}-{self.target}"


def needed_exports(
    branches: Mapping[str, BranchConfig],
    artifacts: Mapping[str, ArtifactConfig],
    targets: Mapping[str, TargetConfig],
    deploy: DeployConfig,
) -> dict[str, ExportConfig]:
    """The entries that `exports` must have: every artefact that a target of a branch runs."""
    found = {}
    for branch in branches.values():
        for target in deploy.targets_of(branch.method, targets).values():
            if target.artifact in artifacts:
                entry = ExportConfig(branch.name, target.artifact, artifacts[target.artifact].kind)
                found[entry.name] = entry
    return found


def needed_compiles(
    branches: Mapping[str, BranchConfig], targets: Mapping[str, TargetConfig], deploy: DeployConfig
) -> dict[str, CompileConfig]:
    """The entries that `compiles` must have: every target of a branch whose runtime runs compiled engines."""
    found = {}
    for branch in branches.values():
        for name, target in deploy.targets_of(branch.method, targets).items():
            if target.compiled:
                entry = CompileConfig(branch.name, name, target.artifact)
                found[entry.name] = entry
    return found
