"""Does the engine equal PyTorch at shapes that hurt?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.images import padded_scenes, shapes_that_hurt
from export.checks.examination.synthetic import synthetic_result


def check(context: CheckContext) -> CheckResult:
    """Single pixels, one-pixel strips, odd sizes before padding, the corners of the range, batches of 1, 3 and 8.

    An engine with bounds of its own, such as a TensorRT plan, runs the nearest of these that it takes.
    """
    stride = context.manifest.input.stride
    shapes = shapes_that_hurt(stride, context.shapes)
    batches = [
        padded_scenes(f"{batch}x{height}x{width}", batch, height, width, stride, context.config.seed)
        for batch, height, width in shapes
    ]
    what = f"{len(shapes)} shapes from 1x1x1 to {context.config.max_side} pixels a side"
    if context.shapes.bounded:
        what = f"{len(shapes)} shapes within {context.shapes}, which the engine takes"
    return synthetic_result(context, batches, what)
