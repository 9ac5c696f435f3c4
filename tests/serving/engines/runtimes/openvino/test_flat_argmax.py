"""An argmax is flattened where it is one over channels, and answers the same."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from serving.engines.runtimes.openvino.engine import import_openvino, shared_core
from serving.engines.runtimes.openvino.flat_argmax import flatten_argmax

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed (extra cpu)", allow_module_level=True)
openvino = import_openvino()


def argmax_model(channels=3, axis=1, k=1, mode="max", values_used=False, rank=4, keeps=False):
    """TopK as a model of its own, as ArgMax becomes it: indices, and values where they are used."""
    ops = openvino.opset13
    data = ops.parameter([-1, channels, -1, -1][:rank], np.float32)
    largest = ops.topk(data, ops.constant(np.int64(k)), axis, mode, "value", "i64", stable=True)
    index = largest.output(1) if keeps else ops.squeeze(largest.output(1), np.array([axis], np.int64)).output(0)
    outputs = [index, largest.output(0)][: 1 + values_used]
    return openvino.Model([ops.result(output) for output in outputs], [data])


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_flattened_argmax_answers_the_same_ties_included(mode):
    logits = np.random.default_rng(0).integers(0, 4, (3, 5, 6, 7)).astype(np.float32)  # few values: many ties
    results = []
    for flatten in (False, True):
        model = argmax_model(5, mode=mode)
        if flatten:
            assert flatten_argmax(openvino, model) == 1
            assert flatten_argmax(openvino, model) == 0, "once"
        compiled = shared_core(openvino).compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
        for batch, height, width in ((3, 6, 7), (1, 2, 3)):
            images = np.ascontiguousarray(logits[:batch, :, :height, :width])
            results.append(np.array(compiled([images])[0]))
    for plain, flat in zip(results[:2], results[2:], strict=True):
        assert plain.shape == flat.shape and plain.dtype == flat.dtype
        np.testing.assert_array_equal(plain, flat)
    np.testing.assert_array_equal(results[0], logits.argmax(axis=1) if mode == "max" else logits.argmin(axis=1))


@pytest.mark.parametrize(
    "other",
    [{"axis": 2}, {"k": 2, "keeps": True}, {"values_used": True}, {"rank": 3}, {"keeps": True}],
    ids=lambda other: next(iter(other)),
)
def test_nothing_else_is_flattened(other):
    assert flatten_argmax(openvino, argmax_model(**other)) == 0


def test_an_engines_argmax_is_flattened(engine):
    assert flatten_argmax(openvino, shared_core(openvino).read_model(str(engine))) == 1
