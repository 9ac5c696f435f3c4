"""Memory, streams, events and graphs around an engine that copies its input: on the stand-in, and on a real GPU.

The runtime around the engine is the real one; the engine's mask is the image's own bytes, as far as a mask has bytes.
"""

from __future__ import annotations

import enum
import importlib
import types
from typing import Any

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.engines.runtimes.tensorrt.cuda import Cuda
from serving.engines.runtimes.tensorrt.engine import TensorRT, TensorRTOptions
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile

SHAPES = [(1, 8, 12, 3), (2, 16, 8, 3), (1, 64, 96, 3)]


class Mode(enum.Enum):
    """TensorIOMode."""

    INPUT = 1
    OUTPUT = 2


class CopyingEngine:
    """An ICudaEngine and its context: a copy on the GPU, in the stream's order, that fails when it is told to."""

    num_io_tensors = 2

    def __init__(self, runtime: Any) -> None:
        self._runtime, self._addresses, self._shape = runtime, dict[str, int](), (0, 0, 0, 0)
        self.fails = False

    def get_tensor_name(self, index: int) -> str:
        return ("image", "mask")[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name == "image" else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return "uint8"

    def set_input_shape(self, name: str, shape: tuple[int, int, int, int]) -> bool:
        self._shape = shape
        return True

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape[:3]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        size = int(np.prod(self._shape[:3]))
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        (status,) = self._runtime.cudaMemcpyAsync(self._addresses["mask"], self._addresses["image"], size, kind, stream)
        return bool(status == self._runtime.cudaError_t.cudaSuccess) and not self.fails


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.cuda)])
def copying(request, fake_gpu):
    """Makes a runtime around a copying engine; returns both."""
    if request.param == "stand-in":
        fake_gpu()
    runtime: Any = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")

    def make(**options: Any) -> tuple[TensorRT, CopyingEngine]:
        library = types.SimpleNamespace(TensorIOMode=Mode, nptype=np.dtype)
        cuda = Cuda(0)
        cuda.open_stream()
        engine = CopyingEngine(runtime)
        profile = Profile((1, 8, 8, 3), (1, 64, 96, 3), (4, 512, 512, 3))
        plan = PlanDetails("tensorrt_rtx", "1.0", (cuda.compute_capability,), profile)
        return TensorRT(cuda, library, engine, engine, plan, None, "NHWC", TensorRTOptions(**options)), engine

    return make


def batch(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1)[: int(np.prod(images.shape[:3]))].reshape(images.shape[:3])


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_every_answer_is_of_its_own_image_through_changing_shapes(copying, cuda_graph):
    engine, _ = copying(cuda_graph=cuda_graph)
    with engine:
        kept = []
        for seed, shape in enumerate([shape for shape in (*SHAPES, *SHAPES[::-1]) for _ in range(4)]):
            images = batch(shape, seed)
            kept.append((engine.infer(images)["mask"], images))
            timings = engine.last_timings_ms
            assert all(timings[name] >= 0 for name in ("upload", "enqueue", "download")) and timings["engine"] > 0
            assert ("capture" in timings) is (cuda_graph and seed % 4 == 1 and seed != 13)
        for mask, images in kept:
            np.testing.assert_array_equal(mask, expected(images))


def test_a_recording_that_fails_serves_no_earlier_image(copying):
    engine, copying_engine = copying(cuda_graph=True)
    with engine:
        engine.infer(batch(SHAPES[0], 0))
        copying_engine.fails = True
        with pytest.raises(UserError, match="the engine failed"):
            engine.infer(batch(SHAPES[0], 1))
        copying_engine.fails = False
        for seed in range(2, 6):
            images = batch(SHAPES[0], seed)
            np.testing.assert_array_equal(engine.infer(images)["mask"], expected(images))
        assert engine.what_runs()["failed_captures"] == 1


@pytest.mark.parametrize("copying", [pytest.param("gpu", marks=pytest.mark.cuda)], indirect=True)
def test_everything_is_given_back_to_a_real_gpu(copying):
    runtime = importlib.import_module("cuda.bindings.runtime")

    def used() -> int:
        engine, _ = copying(cuda_graph=True)
        with engine:
            for seed in range(3):
                engine.infer(batch((4, 512, 512, 3), seed))
        _, free, total = runtime.cudaMemGetInfo()
        return int(total) - int(free)

    first = used()
    assert max(used() for _ in range(20)) <= first + 2**20, "of 3 MiB each time"
