"""ONNX Runtime on a real GPU, where there is one with onnxruntime-gpu: what the other tests can only imitate."""

import importlib.util

import numpy as np
import pytest

from serving.engines.predictor import Predictor

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime-gpu is not installed"),
]
SIZES = [(64, 96), (32, 32), (64, 96), (32, 32), (128, 64), (64, 96)]


@pytest.fixture
def on_cuda(engine):
    """Opens the engine on the GPU; skips with the CPU's ONNX Runtime."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is the one for CPUs")
    return lambda **options: Predictor(engine, options={"provider": "cuda", **options})


@pytest.mark.parametrize("options", [{}, {"prefer_nhwc": True}, {"fuse_conv_bias": True}, {"shape_buckets": 1}])
def test_masks_are_those_of_the_cpu_and_every_node_is_on_the_gpu(engine, on_cuda, photo, options):
    with on_cuda(**options) as gpu, Predictor(engine) as cpu:
        for seed, size in enumerate(SIZES):
            image = photo(*size, seed)
            assert (gpu.predict(image) == cpu.predict(image)).mean() > 0.9999
        described = gpu.runtime.what_runs()
        assert described["provider"] == "CUDAExecutionProvider" and gpu.runtime.computed_elsewhere() == []
        # The second size ran last in the first session when it came again, and stays there.
        assert described["sessions"] == (1 if "shape_buckets" in options else 2)
        assert gpu.runtime.layer_precisions()[0] == {"fp32": 2}


def test_equal_sessions_give_equal_masks(on_cuda, photo):
    with on_cuda() as first, on_cuda() as second:
        for seed, size in enumerate(SIZES):
            image = photo(*size, seed)
            np.testing.assert_array_equal(first.predict(image), second.predict(image))
