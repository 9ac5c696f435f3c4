"""TensorRT: plans that cannot run here are refused before they are touched; what runs waits, replays and frees."""

import dataclasses
import importlib.util
import re
import sys

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec, OutputSpec, write_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile
from serving.images.geometry import place

PROFILE = Profile((1, 32, 32, 3), (1, 64, 96, 3), (4, 128, 128, 3))
DETAILS = PlanDetails("tensorrt_rtx", "1.7.1.116", ("8.6", "8.9"), PROFILE)


def test_the_details_survive_the_manifest(write_plan):
    details = dataclasses.replace(DETAILS, extra={"timing_cache_sha256": "0" * 64})
    from serving.contract.manifest import read_sidecar

    assert PlanDetails.of(read_sidecar(write_plan(details)), "plan") == details


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({}, "details.tensorrt: missing"),
        (
            {"tensorrt": {"package": "torch_tensorrt"}},
            "details.tensorrt.package: expected one of tensorrt, tensorrt_rtx",
        ),
        (
            {"tensorrt": {**DETAILS.to_details()["tensorrt"], "compute_capabilities": ["sm_89"]}},
            "expected texts such as '8.9', got ['sm_89']",
        ),
        (
            {"tensorrt": {**DETAILS.to_details()["tensorrt"], "profile": {"min": [2], "opt": [1], "max": [1]}}},
            "expected four axes each",
        ),
    ],
)
def test_a_manifest_that_does_not_say_what_the_plan_is_for_is_refused(write_plan, details, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        Predictor(write_plan(details))


def test_a_missing_package_says_what_to_install(write_plan, monkeypatch):
    for package, command in (
        ("tensorrt_rtx", "pip install tensorrt-rtx==9.9"),
        ("tensorrt", "pip install tensorrt==9.9 --extra-index-url https://pypi.nvidia.com"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match="is not installed") as caught:
            Predictor(write_plan(dataclasses.replace(DETAILS, package=package, version="9.9")))
        assert command in str(caught.value) and "\n" not in str(caught.value)


def test_missing_cuda_bindings_say_what_to_install(write_plan, fake_gpu, monkeypatch):
    fake_gpu()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(UserError, match=r"cuda-python is not installed.*pip install 'cuda-python>=12\.6,<14'"):
        Predictor(write_plan())


def test_plans_for_another_version_gpu_or_machine_are_never_deserialised(write_plan, fake_gpu):
    _, library = fake_gpu()
    with pytest.raises(
        UserError, match=r"built by tensorrt-rtx 1\.6\.0, installed is 1\.7\.1\.116.*pip install tensorrt-rtx==1\.6\.0$"
    ):
        Predictor(write_plan(dataclasses.replace(DETAILS, version="1.6.0")))
    with pytest.raises(UserError, match=r"built for compute capability 7\.5, but Fake GPU has 8\.9: rebuild"):
        Predictor(write_plan(dataclasses.replace(DETAILS, compute_capabilities=("7.5",))))
    with pytest.raises(UserError, match=r"device_id 3: this machine has 1 CUDA device"):
        Predictor(write_plan(), options={"device_id": 3})
    changed = write_plan()
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(UserError, match="not the file its manifest describes"):
        Predictor(changed)
    assert library.deserialised == 0
    _, library = fake_gpu(devices=0)
    with pytest.raises(UserError, match="no CUDA device: cudaErrorNoDevice; an NVIDIA GPU and its driver are needed"):
        Predictor(write_plan())
    assert library.deserialised == 0


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_masks_follow_the_image_through_changing_shapes_and_everything_is_freed(
    write_plan, fake_gpu, reference, photo, cuda_graph
):
    cuda, _ = fake_gpu()
    sizes = [(64, 96), (64, 96), (64, 96), (128, 128), (33, 50), (64, 96), (64, 96)]
    with Predictor(write_plan(), options={"cuda_graph": cuda_graph}) as predictor:
        kept = []
        for seed, size in enumerate(sizes):
            image = photo(*size, seed)
            kept.append((predictor.predict(image), reference.predict(image)))
        for mask, expected in kept:  # later calls do not write into earlier results
            np.testing.assert_array_equal(mask, expected)
        images = [photo(64, 64, seed) for seed in range(9)]  # more than the profile's 4 at once
        for mask, image in zip(predictor.predict_batch(images), images, strict=True):
            np.testing.assert_array_equal(mask, reference.predict(image))
        assert set(predictor.runtime.last_timings_ms) == {"upload", "enqueue", "download", "engine"}
        assert predictor.runtime.what_runs()["provider"] == "Fake GPU"
        assert (cuda.launches > 0) is cuda_graph
    predictor.close()
    assert not cuda.memory and not cuda.handles and not cuda.pending


def test_a_shape_outside_the_profile_is_refused_and_the_engine_goes_on(write_plan, fake_gpu, reference, photo):
    fake_gpu()
    with Predictor(write_plan()) as predictor:
        with pytest.raises(
            UserError, match=r"\[1, 160, 64, 3\]: the plan takes \[1, 32, 32, 3\] to \[4, 128, 128, 3\]"
        ):
            predictor.predict(photo(160, 64))
        image = photo(40, 40)
        np.testing.assert_array_equal(predictor.predict(image), reference.predict(image))


def test_a_least_batch_is_filled(write_plan, fake_gpu, reference, photo):
    fake_gpu()
    profile = Profile((2, 32, 32, 3), (2, 64, 96, 3), (4, 128, 128, 3))
    with Predictor(write_plan(dataclasses.replace(DETAILS, profile=profile))) as predictor:
        image = photo(64, 64)
        np.testing.assert_array_equal(predictor.predict(image), reference.predict(image))


def test_engines_on_two_gpus_take_turns_in_one_thread(write_plan, fake_gpu, reference, photo):
    """CUDA keeps one chosen GPU for each thread, and an engine's stream is of one GPU."""
    fake_gpu(devices=2)
    path = write_plan()
    with Predictor(path) as first, Predictor(path, options={"device_id": 1}) as second:
        for seed in range(3):
            image = photo(64, 64, seed)
            for predictor in (first, second):
                np.testing.assert_array_equal(predictor.predict(image), reference.predict(image))


def test_an_engine_that_cannot_be_recorded_says_so(write_plan, fake_gpu, photo):
    cuda, library = fake_gpu()
    library.captures = False
    with Predictor(write_plan(), options={"cuda_graph": True}) as predictor:
        predictor.predict(photo(64, 64))
        with pytest.raises(UserError, match="set cuda_graph: false"):
            predictor.predict(photo(64, 64))
    assert not cuda.memory


def test_a_failed_recording_is_forgotten_and_the_image_runs_directly(write_plan, fake_gpu, reference, photo):
    """Otherwise the graph that was begun would be replayed, and give the mask of an earlier image in silence."""
    cuda, library = fake_gpu()
    images = [photo(64, 64, seed) for seed in range(5)]
    with Predictor(write_plan(), options={"cuda_graph": True}) as predictor:
        predictor.predict(images[0])
        library.failures = iter([True])
        for image in images[1:]:
            np.testing.assert_array_equal(predictor.predict(image), reference.predict(image))
            assert ("capture" in predictor.runtime.last_timings_ms) is (image is images[1])
        assert cuda.launches == 0 and predictor.runtime.what_runs()["failed_captures"] == 1
        for seed in range(3):  # another shape may be recorded
            image = photo(32, 96, seed)
            np.testing.assert_array_equal(predictor.predict(image), reference.predict(image))
        assert cuda.launches == 2 and predictor.runtime.what_runs()["failed_captures"] == 1
    assert not cuda.memory and not cuda.handles


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_recording_that_cuda_refuses_is_no_failure(write_plan, fake_gpu, reference, photo, call):
    cuda, _ = fake_gpu()

    def refused(*_):
        cuda.recording = None
        return cuda.cudaError_t.cudaErrorInvalidValue, None

    setattr(cuda, call, refused)
    with Predictor(write_plan(), options={"cuda_graph": True}) as predictor:
        for seed in range(3):
            image = photo(64, 64, seed)
            np.testing.assert_array_equal(predictor.predict(image), reference.predict(image))
        assert cuda.launches == 0 and predictor.runtime.what_runs()["failed_captures"] == 1
    assert not cuda.memory and not cuda.handles


@pytest.mark.parametrize(
    ("failures", "cuda_graph"),
    [([True], False), ([True], True), ([False, True, True], True)],
    ids=["directly", "at the first run", "when recorded and then directly"],
)
def test_an_engine_that_fails_on_one_image_serves_the_next(
    write_plan, fake_gpu, reference, photo, failures, cuda_graph
):
    cuda, library = fake_gpu()
    with Predictor(write_plan(), options={"cuda_graph": cuda_graph}) as predictor:
        library.failures = iter(failures)
        with pytest.raises(UserError, match=r"the engine failed on an input of shape \[1, 64, 64, 3\]"):
            for seed in range(2):
                predictor.predict(photo(64, 64, seed))
        for seed in range(5, 8):
            image = photo(64, 64, seed)
            np.testing.assert_array_equal(predictor.predict(image), reference.predict(image))
    assert not cuda.memory and not cuda.handles


def test_a_graph_that_cannot_be_replayed_is_recorded_anew(write_plan, fake_gpu, reference, photo, monkeypatch):
    cuda, _ = fake_gpu()
    with Predictor(write_plan(), options={"cuda_graph": True}) as predictor:
        predictor.predict(photo(64, 64))
        with monkeypatch.context() as patch:
            patch.setattr(cuda, "cudaGraphLaunch", lambda *_: (cuda.cudaError_t.cudaErrorInvalidValue,))
            with pytest.raises(UserError, match="CUDA on Fake GPU: cudaGraphLaunch: cudaErrorInvalidValue"):
                predictor.predict(photo(64, 64, 1))
        for seed in range(2, 5):
            image = photo(64, 64, seed)
            np.testing.assert_array_equal(predictor.predict(image), reference.predict(image))
        assert cuda.launches == 2
    assert not cuda.memory and not cuda.handles


def test_what_tensorrt_says_of_a_broken_plan_is_shown_and_nothing_leaks(write_plan, fake_gpu):
    cuda, _ = fake_gpu()
    with pytest.raises(UserError, match="cannot open it: magic word not found; rebuild it with `dvc repro`"):
        Predictor(write_plan(content=b"no plan at all"))
    assert not cuda.memory and not cuda.handles


def test_io_that_is_not_the_manifests_is_refused_and_nothing_leaks(write_plan, fake_gpu):
    cuda, _ = fake_gpu()
    with pytest.raises(UserError, match="manifest names 'pixels', the engine has"):
        Predictor(write_plan(input=InputSpec("pixels"), outputs=(OutputSpec("mask", dtype="int64"),)))
    assert not cuda.handles


def test_a_failing_cuda_call_is_one_line_with_its_name(write_plan, fake_gpu, photo):
    cuda, _ = fake_gpu()
    with Predictor(write_plan()) as predictor:
        cuda.cudaMalloc = lambda size: (cuda.cudaError_t.cudaErrorInvalidValue, None)
        with pytest.raises(UserError, match="CUDA on Fake GPU: cudaMalloc: cudaErrorInvalidValue"):
            predictor.predict(photo(64, 64))
    assert not cuda.memory


def test_specialization_is_handed_on(write_plan, fake_gpu):
    _, library = fake_gpu()
    with Predictor(write_plan(), options={"specialization": "lazy"}) as predictor:
        config = vars(predictor.runtime)["_engine"].config
    assert (
        config.dynamic_shapes_kernel_specialization_strategy is library.DynamicShapesKernelSpecializationStrategy.LAZY
    )


# From here on with the real packages, where they are installed.

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
