"""Does the engine equal PyTorch at shapes that hurt?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.images import padded_scenes, shapes_that_hurt
from export.checks.examination.synthetic import judge

NAME = "shapes"


def check(context: CheckContext) -> CheckResult:
    """Single pixels, one-pixel strips, odd sizes before padding, the corners of the range, batches of 1, 3 and 8."""
    stride = context.manifest.input.stride
    shapes = shapes_that_hurt(stride, context.config.max_side)
    batches = [
        padded_scenes(f"{batch}x{height}x{width}", batch, height, width, stride, context.config.seed)
        for batch, height, width in shapes
    ]
    return judge(NAME, context, batches, f"{len(shapes)} shapes from 1x1x1 to {context.config.max_side} pixels a side")
