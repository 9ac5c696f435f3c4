"""On how many pixels of real images do the masks agree with PyTorch's?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult, limit

NAME = "agreement"


def check(context: CheckContext) -> CheckResult:
    """The share of pixels whose class differs."""
    comparisons = context.on_images
    share = disagreement(context)
    threshold = limit(context.config.max_disagreement, context.precision, "verify.max_disagreement")
    worst = max(comparisons, key=lambda comparison: comparison.differing / comparison.pixels)
    detail = (
        f"{100 * (1 - share):.4f} % of the pixels of {len(comparisons)} images agree; "
        f"least on {worst.name}: {100 * (1 - worst.differing / worst.pixels):.4f} %"
    )
    return CheckResult.judged(NAME, share <= threshold, share, threshold, "of the pixels", detail)


def disagreement(context: CheckContext) -> float:
    """Share of the pixels of the compared images whose class differs from PyTorch's."""
    comparisons = context.on_images
    return sum(comparison.differing for comparison in comparisons) / sum(item.pixels for item in comparisons)
