"""How a TensorRT plan is built: `targets.NAME.build` of params.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from serving.contract.schema import Require


@dataclass(frozen=True)
class PlanBuild:
    """How a TensorRT plan is built; but for `tf32`, precision lives in the artefact.

    Attributes:
        package: `tensorrt`, `tensorrt_rtx`, or `auto`: the one that is installed, `tensorrt` first.
        compute_capabilities: GPUs to build for, as in "8.9"; none for the GPU of this machine. Without a GPU only
            TensorRT-RTX builds, and these must be named.
        min, opt, max: batch, height and width: the smallest input, the one to be fastest at, and the largest. What is
            not given fits the dataset (`export.plans.profile`).
        tf32: let layers in single precision round the factors of their products to TensorFloat-32; the precision of the
            plan is then `tf32`. Only for artefacts in fp32.
        workspace_mebibytes: scratch memory that a layer may use; None leaves it to TensorRT.
    """

    package: Literal["auto", "tensorrt", "tensorrt_rtx"] = "auto"
    compute_capabilities: tuple[str, ...] = ()
    min: tuple[int, int, int] | None = None
    opt: tuple[int, int, int] | None = None
    max: tuple[int, int, int] | None = None
    tf32: bool = False
    workspace_mebibytes: int | None = None

    def __post_init__(self) -> None:
        require = Require()
        given = [list(shape) for shape in (self.min, self.opt, self.max) if shape is not None]
        require(
            all(sides[0] > 0 and sides == tuple(sorted(sides)) for sides in zip(*given, strict=True)),
            f"expected 0 < min <= opt <= max on every axis, got {', '.join(map(str, given))}",
        )
        unfit = [text for text in self.compute_capabilities if not re.fullmatch(r"\d+\.\d", text)]
        require(not unfit, f"compute_capabilities: expected texts such as '8.9', got {unfit}")
        require(
            self.workspace_mebibytes is None or self.workspace_mebibytes >= 1,
            f"workspace_mebibytes: expected at least 1, got {self.workspace_mebibytes}",
        )
        require.done()
