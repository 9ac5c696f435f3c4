"""TensorRT-RTX and cuda-python themselves, where they are installed: real plans, and the names used of both."""

import dataclasses
import importlib.util

import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import write_sidecar
from serving.engines.predictor import Predictor
from serving.images.geometry import place
from tests.serving.engines.runtimes.tensorrt.conftest import DETAILS, PROFILE

needs_packages = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None or importlib.util.find_spec("cuda") is None,
    reason="tensorrt-rtx and cuda-python are not installed",
)


def build_plan(path, model, capability):
    import tensorrt_rtx as trt

    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString())
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("image", PROFILE.min, PROFILE.opt, PROFILE.max)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, "SM" + capability.replace(".", "")), 0)
    path.write_bytes(builder.build_serialized_network(network, config))
    return dataclasses.replace(DETAILS, version=trt.__version__, compute_capabilities=(capability,))


@pytest.fixture
def real_plan(tmp_path, models, manifest):
    """Builds a plan for a compute capability; skips for one that TensorRT-RTX does not build for, such as Hopper's."""
    import tensorrt_rtx as trt

    def build(capability):
        if not hasattr(trt.ComputeCapability, "SM" + capability.replace(".", "")):
            pytest.skip(f"TensorRT-RTX does not build for compute capability {capability}")
        path = tmp_path / "model.plan"
        details = build_plan(path, models["network"](), capability)
        write_sidecar(dataclasses.replace(manifest, kind="tensorrt", details=details.to_details()), path)
        return path

    return build


@needs_packages
def test_a_capability_that_tensorrt_rtx_lacks_is_skipped(real_plan):
    with pytest.raises(pytest.skip.Exception, match=r"does not build for compute capability 9\.0"):
        real_plan("9.0")


@needs_packages
def test_a_real_plan_is_refused_without_a_gpu(real_plan):
    from cuda.bindings import runtime

    status, count = runtime.cudaGetDeviceCount()
    if status == runtime.cudaError_t.cudaSuccess and count > 0:
        pytest.skip("this machine has an NVIDIA GPU")
    with pytest.raises(UserError, match=r"no CUDA device: .*an NVIDIA GPU and its driver are needed"):
        Predictor(real_plan("8.9"))


@needs_packages
@pytest.mark.cuda
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_real_plan_runs_on_a_gpu(real_plan, reference, photo, cuda_graph):
    from cuda.bindings import runtime

    properties = runtime.cudaGetDeviceProperties(0)[1]
    path = real_plan(f"{properties.major}.{properties.minor}")
    for found in (False, True):
        with Predictor(path, options={"cuda_graph": cuda_graph}) as predictor:
            assert predictor.runtime.what_runs()["runtime_cache_found"] is found
            for seed, size in enumerate([(64, 96), (64, 96), (64, 96), (100, 40)]):
                image = photo(*size, seed)
                assert place(image, stride=32)[0].shape[0] <= 128
                assert (predictor.predict(image) == reference.predict(image)).mean() > 0.999
            assert predictor.runtime.what_runs()["failed_captures"] == 0


@needs_packages
def test_the_names_used_of_both_packages_exist():
    import tensorrt_rtx as trt
    from cuda.bindings import runtime

    for name in (
        *(
            "cudaGetDeviceCount",
            "cudaSetDevice",
            "cudaGetDeviceProperties",
            "cudaGetErrorString",
            "cudaMalloc",
            "cudaFree",
        ),
        *("cudaHostAlloc", "cudaFreeHost", "cudaMemcpyAsync", "cudaStreamCreateWithFlags", "cudaStreamSynchronize"),
        *("cudaStreamDestroy", "cudaEventCreate", "cudaEventRecord", "cudaEventElapsedTime", "cudaEventDestroy"),
        *("cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphLaunch"),
        *("cudaGraphExecDestroy", "cudaGraphDestroy", "cudaGetLastError", "cudaStreamNonBlocking"),
    ):
        assert hasattr(runtime, name), name
    assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal is not None
    for owner, names in {
        trt.ICudaEngine: (
            "num_io_tensors",
            "get_tensor_name",
            "get_tensor_mode",
            "get_tensor_dtype",
            "get_tensor_shape",
        ),
        trt.IExecutionContext: ("set_input_shape", "infer_shapes", "set_tensor_address", "execute_async_v3"),
        trt.IRuntimeConfig: (
            *("dynamic_shapes_kernel_specialization_strategy", "create_runtime_cache", "set_runtime_cache"),
        ),
        trt.IRuntimeCache: ("deserialize", "serialize"),
        trt.DynamicShapesKernelSpecializationStrategy: ("EAGER", "LAZY", "NONE"),
        trt.ILogger.Severity: ("ERROR", "INTERNAL_ERROR"),
    }.items():
        for name in names:
            assert hasattr(owner, name), name
