"""One result for several synthetic batches."""

from __future__ import annotations

from collections.abc import Iterable

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.deviation import unexplained_pixels
from export.checks.examination.images import Batch
from serving.contract.errors import UserError

# Where the tolerance is exceeded: how many times what PyTorch loses by rounding an engine may differ from it. Two sound
# implementations that round in another order were seen 5 apart in single precision, and 6 in bf16.
ROUNDING_FACTOR = 10


def synthetic_result(context: CheckContext, batches: Iterable[Batch], what: str) -> CheckResult:
    """Compare an engine with PyTorch on synthetic batches: logits within the tolerance, masks explained by them.

    Synthetic images are far from what the network was made for, and one of a single colour can make it ill-conditioned.
    Where the tolerance is exceeded PyTorch's own rounding error in the engine's precision is measured, and
    `ROUNDING_FACTOR` times it is allowed.

    Args:
        context: the engine.
        batches: what it runs on. One that it does not take is a failure, and the others still run.
        what: the batches in words.
    """
    deviations, problems, refused = [], [], []
    # The largest error, of the batches that lose too much if there are any: what is reported.
    worst: tuple[bool, float, float, str] = (False, 0.0, context.max_logit_error, "")
    for batch in batches:
        try:
            deviation = context.deviation(batch)
        except UserError as refusal:
            refused.append(f"{batch.name}: {refusal}")
            continue
        deviations.append(deviation)
        if deviation.error is None:
            continue
        allowed, note = context.allowed_error(deviation, batch, ROUNDING_FACTOR)
        lost_too_much = not deviation.error <= allowed
        if lost_too_much:
            problems.append(f"logits off by {deviation.error:.2e} of the largest on {batch.name}{note}")
        worst = max(worst, (lost_too_much, deviation.error, allowed, batch.name + note))
    unexplained, first = unexplained_pixels(deviations)
    if unexplained:
        problems.append(f"{unexplained} pixels differ unexplained by the logits, the first: {first}")
    if refused:
        problems.append(f"{len(refused)} batches refused, the first: {refused[0]}")
    _, error, allowed, where = worst
    detail = f"{what}: " + ("; ".join(problems[:3]) or f"equal; worst on {where or 'none'}")
    if not context.shows_logits:
        return CheckResult.decided(not problems, unexplained, 0, "pixels", detail)
    return CheckResult.decided(not problems, error, allowed, "of the largest logit", detail)
