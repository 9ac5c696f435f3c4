"""TensorRT-RTX's compiled kernels lie beside the plan: the second open compiles nothing."""

import pytest

from serving.contract.errors import UserError
from serving.engines.predictor import Predictor
from serving.engines.runtimes.tensorrt import runtime_cache
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile

IMAGES = [(64, 96), (128, 128), (64, 96)]


@pytest.fixture
def run(write_plan, fake_gpu, photo):
    """Opens the plan, segments images of two sizes, closes it; how often kernels were compiled, and what ran."""
    path = write_plan()

    def opened(**gpu):
        _, library = fake_gpu(**gpu)
        with Predictor(path) as predictor:
            for seed, size in enumerate(IMAGES):
                predictor.predict(photo(*size, seed))
            described = predictor.runtime.what_runs()
        return library.compiled, described["runtime_cache_found"]

    return opened


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "model.plan.runtime-cache"


def test_what_was_compiled_once_is_not_compiled_again(run, cache):
    assert run() == (2, False)
    saved = cache.read_bytes()
    assert run() == (0, True) and cache.read_bytes() == saved


def test_the_cache_of_another_gpu_is_replaced(run):
    run()
    assert run(name=b"Other GPU") == (2, False)
    assert run(name=b"Other GPU") == (0, True)


@pytest.mark.parametrize("content", [b"", b"\0damaged"])
def test_a_damaged_cache_is_replaced(run, cache, content):
    cache.write_bytes(content)
    assert run() == (2, False)
    assert run() == (0, True)


def test_a_folder_that_cannot_be_written_costs_time_only(run, cache, monkeypatch):
    def refused(path, content):
        raise UserError(f"{path}: cannot be written")

    monkeypatch.setattr(runtime_cache, "write_atomically", refused)
    assert run() == run() == (2, False)
    assert not cache.exists()


def test_plans_of_tensorrt_itself_have_none(write_plan, fake_gpu, photo):
    fake_gpu(package="tensorrt", version="11.1.0")
    profile = Profile((1, 32, 32, 3), (1, 64, 96, 3), (4, 128, 128, 3))
    path = write_plan(PlanDetails("tensorrt", "11.1.0", ("8.9",), profile))
    with Predictor(path) as predictor:
        predictor.predict(photo(64, 64))
        assert predictor.runtime.what_runs()["runtime_cache_found"] is None
    assert not path.with_name("model.plan.runtime-cache").exists()
