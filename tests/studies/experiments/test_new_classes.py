"""Adding classes to a network that never saw their labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from serving.contract.errors import UserError
from studies.experiments.new_classes import added_classes_iou, draw, linear_probe, nearest_mean

POLE, SIGN = 7, 8


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("new_classes") / "prepared"
    prepare(PrepareConfig(options={"train": 16, "val": 1, "test": 3, "height": 64, "width": 96, "seed": 0}), folder)
    return load_prepared(folder, None)


@pytest.fixture(scope="module")
def segmentor() -> Segmentor:
    return build_segmentor(ModelConfig(pretrained=False), 11, seed=0).eval()


def clusters(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit features around three directions, of classes 0, 2 and 3; class 3 is rare."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * 200 + [2] * 200 + [3] * 10)
    centres = torch.eye(6)[[0, 0, 1, 2]]
    return F.normalize(centres[labels] + 0.1 * torch.randn(410, 6, generator=generator), dim=1), labels


@pytest.mark.parametrize("readout", [nearest_mean, linear_probe])
def test_what_separates_is_read_out_and_what_has_no_pixel_is_never_given(readout):
    scores = readout(clusters(0), 5)
    features, labels = clusters(1)
    assert (scores(features).argmax(dim=1) == labels).all(), "the rare class too, and never class 1 or 4"


def test_a_probe_separates_what_means_cannot():
    """Of one class nearly all pixels lie at one end, and so does its mean; the others lie behind the other class."""
    angles = torch.tensor([0.0] * 90 + [1.2] * 30 + [1.5] * 60)
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    pixels = features, torch.tensor([0] * 90 + [0] * 30 + [1] * 60)
    hits = {
        readout: float((readout(pixels, 2)(features).argmax(dim=1) == pixels[1]).float().mean())
        for readout in (nearest_mean, linear_probe)
    }
    assert hits[nearest_mean] < 0.9 < hits[linear_probe]


def test_images_are_drawn_by_the_seed_and_hold_the_classes(prepared: Prepared):
    train = prepared.split("train")
    drawn = draw(train, [POLE, SIGN], 6, 100)
    assert len(set(drawn)) == 6 and drawn == sorted(drawn)
    assert all({POLE, SIGN} & set(np.unique(train.read_label(index)).tolist()) for index in drawn)
    assert draw(train, [POLE, SIGN], 6, 100) == drawn != draw(train, [POLE, SIGN], 6, 101)
    with pytest.raises(UserError, match=r"expected 17 training images .*; got class 7: \d+, class 8: \d+"):
        draw(train, [POLE, SIGN], 17, 100)
    with pytest.raises(UserError, match="no class was ignored"):
        draw(train, [], 6, 100)


def test_classes_are_added_from_train_and_judged_elsewhere(segmentor: Segmentor, prepared: Prepared):
    train, test = prepared.split("train"), prepared.split("test")
    found = added_classes_iou(segmentor, train, test, [POLE, SIGN], resize=None, seed=0, images=6)
    assert found.keys() == {"mean", "probe"} and all(0 <= value <= 1 for value in found.values())
    again = added_classes_iou(segmentor, train, test, [POLE, SIGN], resize=None, seed=0, images=6)
    assert found == again, "nothing in it is random but the draw"
    # Judged on the very images that the probe was fitted on it looks better than on others.
    few = dataclasses.replace(train, entries=tuple(train.entries[index] for index in draw(train, [POLE, SIGN], 6, 0)))
    fitted = added_classes_iou(segmentor, train, few, [POLE, SIGN], resize=None, seed=0, images=6)
    assert fitted["probe"] > found["probe"]
