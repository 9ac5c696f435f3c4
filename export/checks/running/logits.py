"""How far are the logits from PyTorch's on real images?"""

from __future__ import annotations

from export.checks.examination.context import CheckContext, CheckResult, SkippedError
from export.checks.examination.deviation import QUANTILES

# Where the limit is exceeded: how many times what PyTorch loses on the same image in the same precision an engine may
# lose. Both round as often, each in its own order; an engine that loses much more computes something else.
ROUNDING_FACTOR = 2


def check(context: CheckContext) -> CheckResult:
    """The largest difference of a logit, relative to the largest logit of its image."""
    if not context.shows_logits:
        raise SkippedError(f"an engine of kind {context.manifest.kind} shows no logits; its masks are checked")
    judged = []
    for deviation, batch in zip(context.on_images, context.images, strict=True):
        assert deviation.error is not None, "an engine that shows logits has errors"
        allowed, note = context.allowed_error(deviation, batch, ROUNDING_FACTOR)
        judged.append((not deviation.error <= allowed, deviation.error, allowed, batch.name + note))
    # The largest error, of the images that lose too much if there are any.
    failed, error, allowed, where = max(judged)
    quantiles = [
        max(deviation.error_quantiles[index] for deviation in context.on_images if deviation.error_quantiles)
        for index in range(len(QUANTILES))
    ]
    shown = ", ".join(f"{100 * share:g} % {value:.2e}" for share, value in zip(QUANTILES, quantiles, strict=True))
    detail = f"{len(judged)} images; worst on {where}; quantiles {shown} of the largest logit"
    return CheckResult.decided(not failed, error, allowed, "of the largest logit", detail)
