"""How far are the logits from PyTorch's on real images?"""

from __future__ import annotations

from export.checks.comparison import QUANTILES, worst_error
from export.checks.interface import CheckContext, CheckResult, SkippedError

NAME = "logits"


def check(context: CheckContext) -> CheckResult:
    """The largest difference of a logit, relative to the largest logit of its image."""
    if not context.shows_logits:
        raise SkippedError(f"an engine of kind {context.manifest.kind} shows no logits; its masks are checked")
    comparisons = context.on_images
    error, where = worst_error(comparisons)
    assert error is not None, "an engine that shows logits has errors"
    quantiles = [
        max(comparison.error_quantiles[index] for comparison in comparisons if comparison.error_quantiles is not None)
        for index in range(len(QUANTILES))
    ]
    shown = ", ".join(f"{100 * share:g} % {value:.2e}" for share, value in zip(QUANTILES, quantiles, strict=True))
    detail = f"{len(comparisons)} images; worst on {where}; quantiles {shown} of the largest logit"
    return CheckResult.judged(
        NAME, error <= context.max_logit_error, error, context.max_logit_error, "of the largest logit", detail
    )
