"""Does every slot of a batch hold the result of its own image?"""

from __future__ import annotations

import numpy as np

from export.checks.examination.context import CheckContext, CheckResult, SkippedError
from export.checks.examination.deviation import top_margin
from export.checks.examination.images import padded_scenes

SIZES = (3, 8)
# An engine is compared with itself here, so that only the order of its sums differs, whatever it lost by quantisation.
LARGEST_LIMIT = 0.05


def check(context: CheckContext) -> CheckResult:
    """Permuting the images of a batch permutes the results, and one image alone gives what it gives in a batch.

    Where logits can be seen they are compared, since an untrained or very sure network may give equal masks for all
    images; and then the images must be told apart by them, else nothing is shown.
    """
    stride = context.manifest.input.stride
    sizes = _sizes(context)
    limit = min(context.max_logit_error, LARGEST_LIMIT)
    worst, least_apart = 0.0, np.inf
    wrong = 0
    generator = np.random.default_rng(context.config.seed)
    for size in sizes:
        _, height, width = context.shapes.clamp(size, 2 * stride, 3 * stride, stride)
        batch = padded_scenes(f"{size} scenes", size, height, width, stride, context.config.seed)
        order = generator.permutation(size)
        while (order == np.arange(size)).any():
            order = generator.permutation(size)
        expected = context.reference.logits(batch.images)
        scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
        pairs = [(a, b) for a in range(size) for b in range(a)]
        least_apart = min(least_apart, *(float(np.abs(expected[a] - expected[b]).max()) / scale for a, b in pairs))
        clear = top_margin(expected) > 2 * context.max_logit_error * scale
        masks = context.masks(batch.images)
        permuted = context.masks(batch.images[order])
        alone = np.concatenate([context.masks(image[None]) for image in batch.images])
        wrong += int(((permuted != masks[order]) & clear[order]).sum() + ((alone != masks) & clear).sum())
        if context.shows_logits:
            logits = context.logits(batch.images)[1]
            permuted_logits = context.logits(batch.images[order])[1]
            alone_logits = np.concatenate([context.logits(image[None])[1] for image in batch.images])
            for other, own in ((permuted_logits, logits[order]), (alone_logits, logits)):
                worst = max(worst, float(np.abs(other.astype(np.float64) - own).max()) / scale)
    what = f"batches of {' and '.join(map(str, sizes))}"
    if wrong or not worst <= limit:
        detail = f"{what}: {wrong} pixels and logits by {worst:.2e} of the largest depend on the image's slot"
        return CheckResult("fail", worst, limit, "of the largest logit", detail)
    if least_apart <= 10 * limit:
        detail = f"{what}: the network answers alike to all images ({least_apart:.2e} apart), so slots cannot be told"
        return CheckResult("inconclusive", worst, limit, "of the largest logit", detail)
    detail = f"{what}: every slot holds the result of its own image"
    return CheckResult("pass", worst, limit, "of the largest logit", detail)


def _sizes(context: CheckContext) -> tuple[int, ...]:
    """The batch sizes of `SIZES` that the engine takes, else its largest.

    Raises:
        SkippedError: it takes no image alone, or nothing else.
    """
    least, most = context.shapes.least[0], context.shapes.most[0]
    if least > 1 or most < 2:
        needed = "one image alone and several at once"
        raise SkippedError(f"needs {needed}; the engine takes batches of {least} to {most} only ({context.shapes})")
    return tuple(size for size in SIZES if size <= most) or (most,)
