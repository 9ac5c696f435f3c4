"""Does the engine equal PyTorch at the ends of uint8?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.images import Batch, extremes
from export.checks.examination.synthetic import synthetic_result


def check(context: CheckContext) -> CheckResult:
    """All 0, all 255, both chequered and side by side, pure channels."""
    found = batches(context)
    return synthetic_result(context, found, f"{len(found)} images of extreme values")


def batches(context: CheckContext) -> list[Batch]:
    """One image of every kind."""
    stride = context.manifest.input.stride
    return extremes(*context.shapes.clamp(1, 2 * stride, 3 * stride, stride))
