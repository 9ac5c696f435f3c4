"""Which images are drawn, and that what is drawn is what the engines say."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from export.report.evidence.pictures import OUTCOMES, chosen_images, draw_pictures, outcome, worst_of_classes
from pipeline.evaluation.evaluation import evaluate
from pipeline.evaluation.metrics import iou_per_class
from serving.contract.errors import UserError
from serving.engines.predictor import Predictor, Segmentation


def mask_of(engine):
    return lambda image: engine(image).mask


@pytest.fixture(scope="module")
def engines(exported, prepared):
    """A baseline that says one class, and the exported engine; each with its evaluation."""
    split = prepared.split("val")

    def plain(image):
        return Segmentation(np.zeros(image.shape[:2], np.uint8))

    with Predictor(exported, options={"threads": 1}) as predictor:

        def real(image):
            return predictor.segment([image])[0]

        evaluations = tuple(evaluate(mask_of(engine), split, prepared.num_classes, 255) for engine in (plain, real))
        yield (plain, real), evaluations


def split_names(split):
    return [split.name(index) for index in range(len(split))]


def test_worst_images_come_first_then_those_nearest_to_the_median():
    assert chosen_images([0.9, 0.1, 0.6, 0.5, 0.2], 4) == [(1, "worst"), (4, "worst"), (2, "typical"), (3, "typical")]
    assert chosen_images([0.5, float("nan"), 0.4], 12) == [(2, "worst"), (0, "worst")]
    assert chosen_images([float("nan")], 12) == []


def test_a_class_ranks_the_images_that_show_it_and_no_speck_of_it():
    confusions = np.zeros((3, 2, 2), np.int32)
    confusions[:, 0, 0] = 5000
    confusions[0, 1] = [1, 3]  # a speck: 4 of 5004 pixels
    confusions[1, 1] = [6, 6]
    confusions[2, 1] = [9, 1]
    assert worst_of_classes(confusions) == [[2, 1, 0], [2, 1]]


def test_pixels_are_marked_by_who_is_right():
    label = np.array([[0, 0, 1, 1, 255]], np.uint8)
    found = outcome(label, np.array([[0, 0, 0, 0, 0]], np.uint8), np.array([[0, 1, 1, 0, 1]], np.uint8), 255)
    names = list(OUTCOMES)
    assert [names[index] for index in found[0]] == [
        "both right",
        "only the baseline right",
        "only the method right",
        "both wrong",
        "no label",
    ]


def test_pictures_are_the_masks_of_the_engines(prepared, engines):
    segments, evaluations = engines
    split = prepared.split("val")
    found = draw_pictures(prepared, split, evaluations, segments)
    assert found.differing == [] and len(found.pictures) == len(split)
    assert found.pictures[0].reason == "worst"
    mious = [each.miou for each in found.pictures if each.reason == "worst"]
    assert mious == sorted(mious)
    first = found.pictures[0]
    index = split_names(split).index(first.name)
    with Image.open(io.BytesIO(first.files["method"])) as image:
        assert np.array_equal(np.asarray(image), segments[1](split.read_image(index)).mask)
    with Image.open(io.BytesIO(first.files["truth"])) as image:
        assert np.array_equal(np.asarray(image), split.read_label(index))
    with Image.open(io.BytesIO(first.files["input"])) as image:
        assert image.format == "JPEG" and image.size == (125, 90)
    assert set(first.class_iou) <= set(prepared.class_names) and min(first.class_iou.values()) >= 0


def test_the_worst_images_of_every_class_are_drawn_beside_the_others(prepared, engines):
    segments, evaluations = engines
    split = prepared.split("val")
    found = draw_pictures(prepared, split, evaluations, segments, count=1, per_class=1)
    extra = found.pictures[1:]
    assert found.pictures[0].reason == "worst" and {each.reason for each in extra} == {"worst of a class"}
    for index, name in enumerate(prepared.class_names):
        ious = iou_per_class(evaluations[1].confusions)[:, index]
        drawn = [each for each in found.pictures if each.class_place.get(name) == 1]
        assert len(drawn) == bool(found.class_images[name])
        if drawn and found.class_images[name] == np.isfinite(ious).sum():
            assert drawn[0].class_iou[name] == np.nanmin(ious)
    assert [each.name for each in extra] == [name for name in split_names(split) if name != found.pictures[0].name]
    (one,) = draw_pictures(prepared, split, evaluations, segments, count=1, class_budget=1).pictures
    assert one.name == found.pictures[0].name, "no further one fits one byte"


def test_an_engine_that_says_something_else_than_was_counted_is_named(prepared, engines):
    segments, evaluations = engines
    found = draw_pictures(prepared, prepared.split("val"), (evaluations[1], evaluations[1]), segments)
    assert found.differing == [each.name for each in found.pictures]


def test_pictures_shrink_until_they_fit(prepared, engines):
    segments, evaluations = engines
    found = draw_pictures(prepared, prepared.split("val"), evaluations, segments, budget=1)
    with Image.open(io.BytesIO(found.pictures[0].files["outcome"])) as image:
        assert image.size[0] == found.width == 112


def test_other_images_than_were_evaluated_are_refused(prepared, engines):
    segments, evaluations = engines
    with pytest.raises(UserError, match="not those of data/prepared"):
        draw_pictures(prepared, prepared.split("train"), evaluations, segments)
