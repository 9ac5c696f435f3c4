"""On how many pixels of real images do the masks agree with PyTorch's?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult, limit


def check(context: CheckContext) -> CheckResult:
    """The share of pixels whose class differs."""
    deviations = context.on_images
    share = disagreement(context)
    threshold = limit(context.config.max_disagreement, context.precision, "verify.max_disagreement")
    worst = max(deviations, key=lambda deviation: deviation.differing / deviation.pixels)
    detail = (
        f"{100 * (1 - share):.4f} % of the pixels of {len(deviations)} images agree; "
        f"least on {worst.name}: {100 * (1 - worst.differing / worst.pixels):.4f} %"
    )
    return CheckResult.decided(share <= threshold, share, threshold, "of the pixels", detail)


def disagreement(context: CheckContext) -> float:
    """Share of the pixels of the compared images whose class differs from PyTorch's."""
    deviations = context.on_images
    return sum(deviation.differing for deviation in deviations) / sum(item.pixels for item in deviations)
