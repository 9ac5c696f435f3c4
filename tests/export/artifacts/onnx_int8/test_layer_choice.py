"""The fewest layers in floating point: found by few trials, one layer in INT8 at least."""

from __future__ import annotations

import math

import pytest
from onnx import ModelProto

from export.artifacts.onnx_int8.layer_choice import MOST_RETURNS, Trials, keep_fewest

LAYERS = [f"layer{index}" for index in range(62)]


def search(drop, order=LAYERS, limit=1.0):
    """What is kept where `drop` gives the loss of a set of kept layers."""
    trials = Trials(lambda kept: (float(drop(set(kept))), ModelProto(producer_name=",".join(kept))), limit)
    if not trials.within(()):
        keep_fewest(trials, order)
    assert trials.best.model.producer_name == ",".join(trials.best.kept), "the graph is the one that was measured"
    return trials


def harm(*culprits):
    """Each culprit in INT8 costs ten points."""
    return lambda kept: 10 * len(set(culprits) - kept)


def test_nothing_is_searched_where_nothing_needs_to_be_kept():
    trials = search(lambda kept: 0.9)
    assert trials.best.kept == () and trials.count == 1


@pytest.mark.parametrize("culprits", [(0,), (0, 1), (0, 1, 2), (2, 5), (0, 40), (30, 60), tuple(range(20))])
def test_exactly_the_layers_that_hurt_are_kept(culprits):
    names = [LAYERS[index] for index in culprits]
    trials = search(harm(*names))
    assert sorted(trials.best.kept) == sorted(names) and trials.best.drop_points == 0


def test_losses_that_only_add_up_are_kept_in_the_order_of_sensitivity():
    trials = search(lambda kept: 0.1 * (len(LAYERS) - len(kept)), limit=5.25)
    assert trials.best.kept == tuple(LAYERS[:10])


def test_one_layer_stays_in_int8_and_the_smallest_loss_is_told():
    trials = search(lambda kept: 20 - 0.1 * len(kept))
    assert len(trials.best.kept) == len(LAYERS) - 1
    assert trials.best.drop_points == pytest.approx(20 - 6.1)
    assert search(lambda kept: 5, order=LAYERS[:1]).best.kept == ()


def test_beyond_the_limit_the_smallest_loss_wins_even_with_fewer_layers():
    trials = search(lambda kept: 2 if len(kept) == 4 else 9)
    assert len(trials.best.kept) == 4 and trials.best.drop_points == 2


@pytest.mark.parametrize("count", [2, 62, 1000])
@pytest.mark.parametrize("needed", [1, 31, 1000])
def test_the_trials_are_bounded(count, needed):
    names = [f"layer{index}" for index in range(count)]
    trials = search(lambda kept: 10 * (len(kept) < min(needed, count - 1)), order=names)
    assert trials.best.drop_points == 0
    assert trials.count <= 2 + 2 * math.ceil(math.log2(count)) + MOST_RETURNS
