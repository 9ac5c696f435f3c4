"""How far inner tensors of an engine are from the network's, a few tensors at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from export.checks.examination.context import CheckContext
from export.checks.examination.images import Batch
from export.checks.locating.matching import TensorPair
from export.graph.deploy import INPUT_NAME
from export.graph.inner_logits import expose_tensors

Floats = NDArray[np.float64]

# An INT8 engine may be this many times as far off as the rounding that its file asks for, plus a step of the last kind.
QUANTISATION_FACTOR = 2
QUANTISATION_STEP = 0.02


@dataclass(frozen=True)
class TensorError:
    """One tensor of an engine beside the network's.

    Attributes:
        error: largest difference, relative to the largest value of the network's tensor; infinite where one is no
            number or the shapes do not fit.
        tolerance: the largest error that is not yet a divergence.
    """

    error: float
    tolerance: float

    @property
    def diverges(self) -> bool:
        """Whether the tensor has left its tolerance."""
        return not self.error <= self.tolerance


class Measure:
    """Compares tensors of one engine with the network exported anew, on one batch.

    Args:
        context: the engine.
        reference: the network's graph in single precision.
        batch: what both run on.
        tolerance: allowed error of a tensor, relative to its largest value.
        as_rounded: let what the file itself asks to be rounded, computed in single precision, count: a tensor of an
            INT8 engine then has a tolerance of its own.
    """

    def __init__(
        self, context: CheckContext, reference: ModelProto, batch: Batch, tolerance: float, *, as_rounded: bool
    ) -> None:
        self._context, self._reference, self._batch = context, reference, batch
        self._tolerance, self._as_rounded = tolerance, as_rounded

    def __call__(self, pairs: Sequence[TensorPair]) -> list[TensorError]:
        """The errors of a few tensors, which are in memory together."""
        expected = computed(self._reference, [pair.expected for pair in pairs], self._batch)
        rounded: list[float] | None = None
        if self._as_rounded:
            values = computed(self._context.model, [pair.found for pair in pairs], self._batch)
            rounded = [relative_error(values[pair.found], expected[pair.expected]) for pair in pairs]
            del values
        found = self.found(pairs)
        errors = [relative_error(found[pair.found], expected[pair.expected]) for pair in pairs]
        if rounded is None:
            return [TensorError(error, self._tolerance) for error in errors]
        own = [min(self._tolerance, QUANTISATION_FACTOR * each + QUANTISATION_STEP) for each in rounded]
        return [TensorError(*both) for both in zip(errors, own, strict=True)]

    def found(self, pairs: Sequence[TensorPair]) -> dict[str, NDArray[np.generic]]:
        """What the engine computes."""
        return self._context.tensors([pair.found for pair in pairs], self._batch.images)

    def weights_of(self, name: str, *, shipped: bool) -> NDArray[np.generic] | None:
        """The weights of the layer that makes a tensor in the shipped or in the new graph; None where none does."""
        graph = (self._context.model if shipped else self._reference).graph
        node = next((node for node in graph.node if name in node.output and node.op_type == "Conv"), None)
        tensor = next((each for each in graph.initializer if node is not None and each.name == node.input[1]), None)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def expected(self, pair: TensorPair) -> NDArray[np.generic]:
        """What the network computes."""
        return computed(self._reference, [pair.expected], self._batch)[pair.expected]


def computed(model: ModelProto, names: Sequence[str], batch: Batch) -> dict[str, NDArray[np.generic]]:
    """Inner tensors of a graph as its operators say: in single precision where it has QuantizeLinear pairs."""
    session = neutral_session(expose_tensors(model, names))
    return dict(zip(names, session.run(list(names), {INPUT_NAME: batch.images}), strict=True))


def neutral_session(model: ModelProto) -> onnxruntime.InferenceSession:
    """A session on the CPU without kernels for INT8 or fused operators."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def relative_error(found: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """The largest difference relative to the largest expected value; infinite where they cannot be compared."""
    if found.size != expected.size:
        return float("inf")
    difference = found.reshape(expected.shape).astype(np.float64)
    difference -= expected.astype(np.float64)
    np.abs(difference, out=difference)
    largest = float(np.max(difference))  # NaN where one is none
    scale = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return largest / scale if np.isfinite(largest) else float("inf")
