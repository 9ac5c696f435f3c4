"""TensorRT: plans that cannot run here are refused before they are touched; what runs waits and frees."""

import dataclasses
import re
import sys

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec, OutputSpec, read_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile
from tests.serving.engines.runtimes.tensorrt.conftest import DETAILS


def test_the_details_survive_the_manifest(write_plan):
    details = dataclasses.replace(DETAILS, extra={"timing_cache_sha256": "0" * 64})
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
