"""Do the masks differ from PyTorch's only where the logits allow it?"""

from __future__ import annotations

from export.checks.examination.comparison import unexplained_pixels
from export.checks.examination.context import CheckContext, CheckResult

NAME = "masks"


def check(context: CheckContext) -> CheckResult:
    """Pixels of real images whose class differs although PyTorch's margin exceeds twice the logit error there."""
    comparisons = context.on_images
    count, first = unexplained_pixels(comparisons)
    differing = sum(comparison.differing for comparison in comparisons)
    pixels = sum(comparison.pixels for comparison in comparisons)
    detail = f"{differing} of {pixels} pixels differ, {count} of them unexplained by the logits"
    if count:
        detail += f", the first: {first}"
    return CheckResult.judged(NAME, not count, count, 0, "pixels", detail)
