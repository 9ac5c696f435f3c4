"""Does the engine equal PyTorch at shapes that hurt?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.images import Batch, padded_scenes, shapes_that_hurt
from export.checks.examination.synthetic import synthetic_result


def check(context: CheckContext) -> CheckResult:
    """Single pixels, one-pixel strips, odd sizes before padding, the corners of the range, batches of 1, 3 and 8.

    An engine with bounds of its own, such as a TensorRT plan, runs the nearest of these that it takes.
    """
    found = batches(context)
    what = f"{len(found)} shapes from 1x1x1 to {context.config.max_side} pixels a side"
    if context.shapes.bounded:
        what = f"{len(found)} shapes within {context.shapes}, which the engine takes"
    return synthetic_result(context, found, what)


def batches(context: CheckContext) -> list[Batch]:
    """One batch of scenes of every shape."""
    stride = context.manifest.input.stride
    return [
        padded_scenes(f"{batch}x{height}x{width}", batch, height, width, stride, context.config.seed)
        for batch, height, width in shapes_that_hurt(stride, context.shapes)
    ]
