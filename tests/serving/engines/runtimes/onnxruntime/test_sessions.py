"""Input shapes that take turns: each that comes again has a session of its own, and no mask changes by it."""

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.engines.predictor import Predictor
from serving.engines.runtimes.onnxruntime.sessions import SessionsByShape

TURNS = [(64, 96), (32, 32), (64, 96), (32, 32), (64, 64), (64, 96), (64, 64), (64, 64), (32, 32), (96, 96), (64, 96)]


class Session:
    """Notes the shapes that it runs."""

    def __init__(self):
        self.shapes = []

    def run(self, batch):
        self.shapes.append(batch.shape)
        return [batch], {}

    @property
    def plans(self):
        """How often a session that keeps the plans of one shape would make them."""
        return sum(shape != before for shape, before in zip(self.shapes, [None, *self.shapes], strict=False))


def sessions(most, sizes, fail=False):
    opened = [Session()]

    def open_another():
        if fail:
            raise UserError("out of memory")
        opened.append(Session())
        return opened[-1]

    by_shape = SessionsByShape(opened[0], open_another, most)
    for size in sizes:
        by_shape.run(np.zeros((1, *size, 3), np.uint8))
    assert len(by_shape) == len(opened)
    return opened


def test_shapes_that_take_turns_make_their_plans_once_more_at_most():
    one, several = sessions(1, TURNS), sessions(4, TURNS)
    assert len(one) == 1 and one[0].plans == 10
    assert len(several) == 3 and sum(session.plans for session in several) == len(set(TURNS)) + 2
    assert all(session.plans == 1 for session in several[1:])
    assert sum(len(session.shapes) for session in several) == len(TURNS)


def test_a_shape_that_stays_or_comes_once_needs_no_session():
    assert len(sessions(4, [(64, 96)] * 5)) == 1
    assert len(sessions(4, [(32 * side, 32) for side in range(1, 20)])) == 1


def test_there_are_never_more_than_asked_for_and_none_more_when_memory_is_short():
    many = [(32 * side, 32) for side in range(1, 9)] * 3
    assert len(sessions(4, many)) == 4 and len(sessions(2, many)) == 2
    assert len(sessions(4, many, fail=True)) == 1


def test_no_mask_changes(engine, photo):
    options = {"threads": 1, "io_binding": True}
    with Predictor(engine, options=options | {"shape_buckets": 3}) as several, Predictor(engine) as plain:
        kept = []
        for seed, size in enumerate(TURNS):
            image = photo(*size, seed)
            kept.append((several.predict(image), plain.predict(image)))
        for mask, expected in kept:
            np.testing.assert_array_equal(mask, expected)
        assert several.runtime.what_runs()["sessions"] == 3 and plain.runtime.what_runs()["sessions"] == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"shape_buckets": 0}, "shape_buckets: expected at least 1, got 0"),
        ({"shape_buckets": 2}, "shape_buckets: only with io_binding"),
        ({"prefer_nhwc": True}, "prefer_nhwc: only with provider: cuda, got cpu"),
        ({"fuse_conv_bias": True}, "fuse_conv_bias: only with provider: cuda, got cpu"),
        (
            {"provider": "cuda", "provider_options": {"prefer_nhwc": 1}},
            "provider_options.prefer_nhwc: write `prefer_nhwc: true`, or nothing",
        ),
    ],
)
def test_options_that_do_nothing_are_refused(engine, options, expected):
    with pytest.raises(UserError, match=expected):
        Predictor(engine, options=options)
