"""The queue: batches of one size, bounded, and no request left waiting whatever the engine does."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from serving.contract.errors import EngineError
from serving.engines.predictor import Segmentation
from serving.server.batching import Batcher
from serving.server.config import Refusal


class Engine:
    """Its mask is the image's red channel; it can be held, and refuses images that begin with 13."""

    def __init__(self):
        self.batches, self.gate, self.inside = [], threading.Event(), threading.Semaphore(0)
        self.gate.set()

    def __call__(self, images):
        self.inside.release()
        assert self.gate.wait(30)
        self.batches.append([image.shape[:2] for image in images])
        if any(image[0, 0, 0] == 13 for image in images):
            raise EngineError("thirteen")
        if any(image[0, 0, 0] == 14 for image in images):
            raise ZeroDivisionError("a mistake of ours")
        return [Segmentation(image[..., 0]) for image in images]


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def batcher(engine):
    made = []

    def build(**options):
        usual = {"workers": 1, "max_batch": 4, "delay_s": 0.0, "max_images": 8, "max_pixels": 10_000}
        made.append(Batcher(engine, **usual | options))
        return made[-1]

    yield build
    engine.gate.set()
    for each in made:
        each.close()


def image(value, height=2, width=3):
    return np.full((height, width, 3), value, np.uint8)


def hold(engine, batcher):
    """Let one image into the engine, and keep it there."""
    engine.gate.clear()
    (future,) = batcher.submit([image(0)])
    assert engine.inside.acquire(timeout=30)
    return future


def test_images_that_wait_run_together_by_size_the_oldest_first(engine, batcher):
    queue = batcher()
    hold(engine, queue)
    futures = [queue.submit([image(value, height)])[0] for value, height in [(1, 2), (2, 5), (3, 2), (4, 5), (5, 2)]]
    engine.gate.set()
    assert [future.result(30).segmentation.mask[0, 0] for future in futures] == [1, 2, 3, 4, 5]
    assert engine.batches[1:] == [3 * [(2, 3)], 2 * [(5, 3)]]
    assert futures[0].result().batch == 3 and futures[0].result().queue_ms > 0


def test_no_batch_is_larger_than_allowed(engine, batcher):
    queue = batcher(max_batch=2)
    hold(engine, queue)
    futures = queue.submit([image(value) for value in range(5)])
    engine.gate.set()
    assert [future.result(30).batch for future in futures] == [2, 2, 2, 2, 1]


def test_a_batch_that_is_not_full_waits_for_more_where_that_is_asked_for(engine, batcher):
    queue = batcher(delay_s=30.0, max_batch=2)
    (first,) = queue.submit([image(1)])
    (second,) = queue.submit([image(2)])
    assert first.result(20).batch == second.result(20).batch == 2


def test_a_full_queue_takes_all_of_a_request_or_nothing(engine, batcher):
    queue = batcher(max_images=3)
    hold(engine, queue)
    queue.submit([image(1), image(1)])
    with pytest.raises(Refusal) as caught:
        queue.submit([image(2), image(2)])
    assert caught.value.status == 503 and int(caught.value.headers["Retry-After"]) >= 1
    assert queue.waiting == 2
    queue.submit([image(3)])


def test_pixels_that_wait_are_bounded_as_well_and_one_image_may_always_wait(engine, batcher):
    queue = batcher(max_pixels=50)
    hold(engine, queue)
    queue.submit([image(1, 20, 20)])
    with pytest.raises(Refusal, match="too busy"):
        queue.submit([image(2)])


def test_more_images_than_ever_fit_are_too_many(batcher):
    with pytest.raises(Refusal) as caught:
        batcher(max_images=3).submit([image(1)] * 4)
    assert caught.value.status == 413


def test_what_nobody_waits_for_leaves_the_queue(engine, batcher):
    queue = batcher(max_images=2)
    hold(engine, queue)
    futures = queue.submit([image(1), image(1)])
    queue.withdraw(futures)
    assert queue.waiting == 0
    with pytest.raises(CancelledError):
        futures[0].result(0)
    (kept,) = queue.submit([image(2)])
    engine.gate.set()
    assert kept.result(30).segmentation.mask[0, 0] == 2
    assert len(engine.batches) == 2


def test_one_bad_image_fails_alone(engine, batcher):
    queue = batcher()
    hold(engine, queue)
    futures = [queue.submit([image(value)])[0] for value in (1, 13, 3)]
    engine.gate.set()
    assert futures[0].result(30).segmentation.mask[0, 0] == 1 and futures[2].result(30).segmentation.mask[0, 0] == 3
    with pytest.raises(EngineError, match="thirteen"):
        futures[1].result(30)


def test_a_mistake_of_ours_is_told_and_the_thread_goes_on(batcher):
    queue = batcher()
    with pytest.raises(ZeroDivisionError):
        queue.submit([image(14)])[0].result(30)
    assert queue.submit([image(2)])[0].result(30).segmentation.mask[0, 0] == 2


def test_closing_finishes_what_waits_and_takes_no_more(engine, batcher):
    queue = batcher()
    first = hold(engine, queue)
    (second,) = queue.submit([image(2, 5)])
    closing = threading.Thread(target=queue.close)
    closing.start()
    engine.gate.set()
    closing.join(30)
    assert not closing.is_alive() and first.done() and second.result(0).segmentation.mask.shape == (5, 3)
    with pytest.raises(Refusal) as caught:
        queue.submit([image(1)])
    assert caught.value.status == 503
