"""Do the masks differ from PyTorch's only where the logits allow it?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.deviation import unexplained_pixels


def check(context: CheckContext) -> CheckResult:
    """Pixels of real images whose class differs although PyTorch's margin exceeds twice the logit error there."""
    deviations = context.on_images
    count, first = unexplained_pixels(deviations)
    differing = sum(deviation.differing for deviation in deviations)
    pixels = sum(deviation.pixels for deviation in deviations)
    detail = f"{differing} of {pixels} pixels differ, {count} of them unexplained by the logits"
    if count:
        detail += f", the first: {first}"
    return CheckResult.decided(not count, count, 0, "pixels", detail)
