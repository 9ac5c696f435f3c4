"""One Predictor in several threads gives every thread its own masks, in every runtime."""

import dataclasses
import sys
import threading
from typing import Any, SupportsIndex

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import write_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes.openvino.engine import OpenVino
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile

RUNTIMES = {
    "onnxruntime": {"threads": 1},
    "onnxruntime, bound": {"threads": 1, "io_binding": True},
    "openvino": {"threads": 1},
    "openvino, streams": {"threads": 2, "mode": "throughput", "streams": 2},
}
THREADS, ROUNDS = 3, 8


def at_once(work):
    """Run `work(thread)` in several threads that take turns as often as Python lets them; returns what went wrong."""
    problems = []

    def guarded(thread):
        try:
            work(thread)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test must see it
            problems.append(error)

    threads = [threading.Thread(target=guarded, args=(thread,)) for thread in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return problems


def wrong_masks(predictor, images):
    """How many masks differ from what one thread alone gets."""
    expected = [predictor.predict(image) for image in images]
    wrong = []

    def work(thread):
        for turn in range(ROUNDS):
            for step in range(len(images)):
                index = (step + thread + turn) % len(images)
                if not np.array_equal(predictor.predict(images[index]), expected[index]):
                    wrong.append(index)
            for mask, whole in zip(predictor.predict_batch(images), expected, strict=True):
                if not np.array_equal(mask, whole):
                    wrong.append("batch")

    assert at_once(work) == []
    return wrong


@pytest.fixture
def images(photo):
    return [photo(64 + 32 * (seed % 3), 96, seed) for seed in range(9)]


def opened(engine, name):
    """The engine in one of `RUNTIMES`; skips without its package."""
    pytest.importorskip(name.partition(",")[0])
    return Predictor(engine, runtime=name.partition(",")[0], options=RUNTIMES[name])


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_thread_gets_its_own_masks(engine, images, name):
    with opened(engine, name) as predictor:
        assert wrong_masks(predictor, images) == []


def test_every_thread_gets_its_own_masks_from_tensorrt(fake_gpu, tmp_path, build_engine, models, manifest, images):
    fake_gpu()
    path = tmp_path / "model.plan"
    path.write_bytes(b"PLAN" + models["network"]().SerializeToString())
    profile = Profile((1, 32, 32, 3), (1, 64, 96, 3), (4, 128, 128, 3))
    details = PlanDetails("tensorrt_rtx", "1.7.1.116", ("8.9",), profile)
    write_sidecar(dataclasses.replace(manifest, kind="tensorrt", details=details.to_details()), path)
    with Predictor(path) as predictor:
        assert wrong_masks(predictor, images) == []


def test_the_test_would_see_requests_that_threads_share(engine, images, monkeypatch):
    """One request for all threads, as it once was: the masks of others come out, or the engine says it is busy."""
    with opened(engine, "openvino") as predictor:
        assert isinstance(predictor.runtime, OpenVino)
        shared = predictor.runtime._compiled.create_infer_request()

        class Shared(list[Any]):
            def pop(self, _index: SupportsIndex = -1, /) -> Any:
                return shared

        predictor.runtime._free = Shared()
        with pytest.raises(AssertionError):
            assert wrong_masks(predictor, images) == []


def test_timings_are_those_of_the_thread_that_called(engine, photo):
    small, large = photo(32, 32), photo(96, 128)
    with Predictor(engine, options={"threads": 1}) as predictor:
        predictor.predict(small)
        mine = dict(predictor.timings_ms), dict(predictor.runtime.last_timings_ms)

        def work(_):
            assert predictor.timings_ms == {}
            predictor.predict(large)
            assert predictor.timings_ms["engine"] > 0

        assert at_once(work) == []
        assert (predictor.timings_ms, predictor.runtime.last_timings_ms) == mine


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_closed_predictor_says_so(engine, photo, name):
    predictor = opened(engine, name)
    predictor.close()
    with pytest.raises(UserError, match="this predictor is closed"):
        predictor.predict(photo(32, 32))
