"""How much mIoU is lost on the way from PyTorch to the engine?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult, limit
from pipeline.evaluation.evaluation import miou_difference


def check(context: CheckContext) -> CheckResult:
    """The drop of mIoU, in points, on the whole split at the labels' resolution, through serving's predictor.

    The interval is from a paired bootstrap over images, or over sequences where the dataset names them; judged is the
    drop itself, since both networks saw the same images.
    """
    reference = context.reference.evaluation(context.split, context.boundary_ratio)
    found = context.evaluation
    drop = miou_difference(reference, found, resamples=context.config.resamples, seed=context.config.seed)
    threshold = limit(context.max_miou_drop_points, context.precision, "gate.max_miou_drop_points")
    points = 100 * drop.difference
    detail = (
        f"mIoU {100 * found.miou:.3f} %, PyTorch {100 * reference.miou:.3f} %; drop {points:.3f} points, "
        f"{100 * drop.confidence:g} % interval {100 * drop.low:.3f} to {100 * drop.high:.3f} over {drop.units} "
        f"{drop.unit}s; {found.protocol}"
    )
    return CheckResult.decided(points <= threshold, points, threshold, "points of mIoU", detail)
