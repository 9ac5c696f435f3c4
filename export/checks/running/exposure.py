"""Are the logits that the checks see those that the shipped mask comes from?"""

from __future__ import annotations

import numpy as np

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.deviation import Float32
from export.checks.examination.images import Batch, extremes, padded_scenes


def check(context: CheckContext) -> CheckResult:
    """The copy with the logits as an output gives the shipped file's masks, and each mask is the argmax of its logits.

    Without this, all that is found out about the copy's logits would say nothing of the shipped file.
    """
    stride = context.manifest.input.stride
    pixels, problems = 0, []
    for batch in (
        padded_scenes("scenes", 3, 3 * stride, 4 * stride, stride, context.config.seed),
        padded_scenes("a larger scene", 1, 8 * stride, 11 * stride, stride, context.config.seed),
        *extremes(1, 2 * stride, 3 * stride)[:3],
    ):
        copied, logits = context.logits(batch.images)
        shipped = context.masks(batch.images)
        other = int((shipped != copied).sum())
        if other:
            problems.append(f"{other} pixels of {batch.name} differ between the shipped file and its copy")
        inside = shipped < logits.shape[1]
        chosen = np.take_along_axis(logits, np.where(inside, shipped, 0)[:, None].astype(np.int64), axis=1)[:, 0]
        lost = int((~inside | (chosen < logits.max(axis=1))).sum())
        if lost:
            problems.append(f"{lost} pixels of {batch.name} are not of the class with the largest logit")
        pixels += other + lost + _wrong_confidences(context, batch, logits, problems)
    detail = "; ".join(problems) or "masks are those of the shipped file, and the argmax of the logits"
    return CheckResult.decided(not pixels, pixels, 0, "pixels", detail)


def _wrong_confidences(context: CheckContext, batch: Batch, logits: Float32, problems: list[str]) -> int:
    """Pixels whose confidence is more than one step of 255 off the softmax of the logits."""
    spec = context.manifest.confidence_output
    if spec is None:
        return 0
    found = context.engine.infer(batch.images)[spec.name].astype(np.float64)
    above = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    expected = 255 / np.exp(above).sum(axis=1)
    wrong = int((np.abs(found - expected) > 1).sum())
    if wrong:
        problems.append(f"{wrong} confidences of {batch.name} are not the softmax of the logits")
    return wrong
