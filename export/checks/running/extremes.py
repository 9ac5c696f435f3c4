"""Does the engine equal PyTorch at the ends of uint8?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.images import extremes
from export.checks.examination.synthetic import synthetic_result


def check(context: CheckContext) -> CheckResult:
    """All 0, all 255, both chequered and side by side, pure channels."""
    stride = context.manifest.input.stride
    batches = extremes(*context.shapes.clamp(1, 2 * stride, 3 * stride, stride))
    return synthetic_result(context, batches, f"{len(batches)} images of extreme values")
