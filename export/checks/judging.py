"""One result for several synthetic batches."""

from __future__ import annotations

from collections.abc import Iterable

from export.checks.comparison import unexplained_pixels, worst_error
from export.checks.images import Batch
from export.checks.interface import CheckContext, CheckResult
from serving.errors import UserError


def judge(name: str, context: CheckContext, batches: Iterable[Batch], what: str) -> CheckResult:
    """Compare an engine with PyTorch on synthetic batches: logits within the tolerance, masks explained by them.

    Args:
        name: of the check.
        context: the engine.
        batches: what it runs on. One that it does not take is a failure, and the others still run.
        what: the batches in words.
    """
    comparisons, refused = [], []
    for batch in batches:
        try:
            comparisons.append(context.compare(batch))
        except UserError as refusal:
            refused.append(f"{batch.name}: {refusal}")
    error, where = worst_error(comparisons)
    unexplained, first = unexplained_pixels(comparisons)
    problems = refused[:3]
    if unexplained:
        problems.append(f"{unexplained} pixels differ unexplained by the logits, the first: {first}")
    if error is not None and error > context.max_logit_error:
        problems.append(f"logits off by {error:.2e} of the largest on {where}")
    if refused:
        problems.append(f"{len(refused)} batches refused")
    detail = f"{what}: " + ("; ".join(problems) or f"equal; worst on {where or 'none'}")
    if error is None:
        return CheckResult.judged(name, not problems, unexplained, 0, "pixels", detail)
    return CheckResult.judged(name, not problems, error, context.max_logit_error, "of the largest logit", detail)
