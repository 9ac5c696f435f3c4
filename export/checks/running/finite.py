"""Are all weights and all logits finite?"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.images import extremes, padded_scenes

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


def check(context: CheckContext) -> CheckResult:
    """No NaN and no infinity: in the weights, nor in the logits of scenes and of the ends of uint8."""
    problems: list[str] = []
    count = 0
    for tensor in context.model.graph.initializer:
        if tensor.data_type in _FLOATS:
            bad = int((~np.isfinite(numpy_helper.to_array(tensor).astype(np.float64))).sum())
            count += bad
            if bad:
                problems.append(f"{bad} in the weights {tensor.name!r}")
    stride = context.manifest.input.stride
    scenes = padded_scenes("scenes", 2, 3 * stride, 4 * stride, stride, context.config.seed)
    for batch in (scenes, *extremes(1, 2 * stride, 3 * stride)):
        bad = int((~np.isfinite(context.logits(batch.images)[1])).sum())
        count += bad
        if bad:
            problems.append(f"{bad} in the logits of {batch.name}")
    detail = "; ".join(problems[:5]) or "all weights and logits are finite"
    return CheckResult.decided(not count, count, 0, "values not finite", detail)
