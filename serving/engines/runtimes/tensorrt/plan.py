"""What a TensorRT plan says of itself in its manifest, and why it cannot run here: decided before it is deserialised.

A plan is machine code for one version of one package and for some GPUs; TensorRT itself says so only after it has
parsed the file, and at worst crashes the process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serving.contract.errors import UserError
from serving.contract.manifest import Manifest
from serving.contract.schema import Problems, Require, build

PLAN_KEY = "tensorrt"
DISTRIBUTION = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


@dataclass(frozen=True)
class Profile:
    """The input shapes a plan was built for, axes as in the input's layout.

    Attributes:
        min, opt, max: smallest, most important and largest shape.
    """

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        require = Require()
        require(
            len(self.min) == len(self.opt) == len(self.max) == 4,
            f"expected four axes each, got min {list(self.min)}, opt {list(self.opt)}, max {list(self.max)}",
        )
        require(
            all(0 < low <= best <= high for low, best, high in zip(self.min, self.opt, self.max, strict=False)),
            f"expected 0 < min <= opt <= max on every axis, got {list(self.min)}, {list(self.opt)}, {list(self.max)}",
        )
        require.done()

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether the plan takes an input of this shape."""
        return len(shape) == len(self.min) and all(
            low <= side <= high for low, side, high in zip(self.min, shape, self.max, strict=True)
        )


@dataclass(frozen=True)
class PlanDetails:
    """The entry `details["tensorrt"]` of a plan's manifest.

    Attributes:
        package: Python module that built it.
        version: of that package, as its `__version__` says.
        compute_capabilities: GPUs it was built for, as in "8.9".
        profile: input shapes it takes.
        extra: what the exporter adds (hash of the timing cache, of the ONNX file...); nothing here reads it.
    """

    package: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    compute_capabilities: tuple[str, ...]
    profile: Profile
    extra: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        require = Require()
        require(bool(self.version), "version: expected the package's __version__, got an empty text")
        require(
            bool(self.compute_capabilities)
            and all(major.isdigit() and minor.isdigit() for major, minor in map(_split, self.compute_capabilities)),
            f"compute_capabilities: expected texts such as '8.9', got {list(self.compute_capabilities)}",
        )
        require.done()

    def to_details(self) -> dict[str, object]:
        """What goes into `Manifest.details`."""
        return {PLAN_KEY: dataclasses.asdict(self)}

    @staticmethod
    def of(manifest: Manifest, source: object) -> PlanDetails:
        """Read the entry from a manifest.

        Args:
            manifest: of the plan.
            source: the plan's path, for messages.

        Raises:
            UserError: missing or invalid; all problems at once.
        """
        problems = Problems()
        values = manifest.details.get(PLAN_KEY)
        if values is None:
            problems.add(f"details.{PLAN_KEY}", "missing: package, version, compute_capabilities and profile")
        plan = build(PlanDetails, values, f"details.{PLAN_KEY}", problems) if values is not None else None
        if plan is None:
            listed = "".join(f"\n  {problem}" for problem in problems)
            raise UserError(f"{source}: its manifest does not say what the plan was built for:{listed}")
        return plan


def require_version(plan: PlanDetails, installed: str, source: object) -> None:
    """Refuse a plan of another version of its package.

    Raises:
        UserError: with what to install.
    """
    if plan.version != installed:
        raise UserError(
            f"{source}: built by {DISTRIBUTION[plan.package]} {plan.version}, installed is {installed}, and plans run "
            f"on their own version only: {install_command(plan)}"
        )


def install_command(plan: PlanDetails) -> str:
    """Installs what runs a plan."""
    index = " --extra-index-url https://pypi.nvidia.com" if plan.package == "tensorrt" else ""
    return f"pip install {DISTRIBUTION[plan.package]}=={plan.version}{index}"


def require_capability(plan: PlanDetails, capability: str, gpu: str, source: object) -> None:
    """Refuse a plan built for other GPUs.

    Args:
        plan: what it was built for.
        capability: compute capability of the GPU that would run it.
        gpu: that GPU's name, for the message.
        source: the plan's path, for the message.

    Raises:
        UserError: with what to rebuild.
    """
    if capability not in plan.compute_capabilities:
        raise UserError(
            f"{source}: built for compute capability {', '.join(plan.compute_capabilities)}, but {gpu} has {capability}"
            ": rebuild it on this machine with `dvc repro`"
        )


def _split(capability: str) -> tuple[str, str]:
    major, _, minor = capability.partition(".")
    return major, minor


def error_log(library: Any) -> Any:
    """A logger for `library` that keeps what is said of errors, as `errors`: TensorRT's functions only return None."""

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()
