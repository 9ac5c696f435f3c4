"""CUDA graphs of plans: recorded at the second run of a shape, replayed with fresh input, forgotten when they fail."""

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.engines.predictor import Predictor


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
