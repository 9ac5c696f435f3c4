"""Separation of classes in features: against what can be told by hand, and in a network that was just built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from serving.contract.errors import UserError
from studies.features import PLACES, ClassMeans, Separation, features_at, labelled_pixels, part_of, separations


def separation(fitted, judged, num_classes):
    means = ClassMeans(num_classes)
    means.add(fitted)
    found = Separation(means)
    found.add(judged)
    return found.result()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("features") / "prepared"
    prepare(PrepareConfig(options={"train": 4, "val": 1, "test": 3, "height": 64, "width": 96, "seed": 0}), folder)
    return load_prepared(folder, None)


@pytest.fixture(scope="module")
def segmentor() -> Segmentor:
    return build_segmentor(ModelConfig(pretrained=False), 11, seed=0).eval()


def test_orthogonal_classes_separate_perfectly():
    features, labels = torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4)
    found = separation((features, labels), (features, labels), 5)
    assert found == {"nearest_mean": 1.0, "within": pytest.approx(0, abs=1e-6), "between": pytest.approx(1)}


def test_features_without_a_class_do_not():
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(4000, 8, generator=generator), dim=1)
    labels = torch.randint(0, 4, (4000,), generator=generator)
    found = separation((features[::2], labels[::2]), (features[1::2], labels[1::2]), 4)
    assert found["nearest_mean"] == pytest.approx(0.25, abs=0.05) and found["within"] > 0.9


def test_a_class_counts_where_it_has_a_mean_and_a_judged_pixel():
    first, second, third = torch.eye(3)
    fitted = (torch.stack([first, second]), torch.tensor([0, 1]))
    # Class 0 is hit once of twice; class 1 is not judged; class 2 has no mean, and its pixels count nowhere.
    judged = (torch.stack([first, second, third]), torch.tensor([0, 0, 2]))
    assert separation(fitted, judged, 4) == {"nearest_mean": 0.5, "within": pytest.approx(0.5), "between": 0.0}
    with pytest.raises(UserError, match="no class is labelled both"):
        separation(fitted, (third[None], torch.tensor([3])), 4)


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(pretrained=False),
        ModelConfig(backbone="hrnet_w18_small_v2", head="ocr", pretrained=False),
    ],
    ids=["light", "ocr"],
)
def test_the_classifier_is_read_where_the_logits_are_made_and_the_tap_where_the_contrast_projects(model):
    segmentor = build_segmentor(model, 5, seed=0).eval()
    pixels = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    found = features_at(segmentor, pixels)
    with torch.inference_mode():
        output = segmentor.features(segmentor.normalise(pixels))
        *_, last = (part for part in segmentor.head.get_submodule("classifier").modules() if hasattr(part, "stride"))
        torch.testing.assert_close(last(found["classifier"]), output.head.logits.main)
    torch.testing.assert_close(found["tap"], output.head.input)
    assert found["tap"].shape != found["classifier"].shape or not torch.equal(found["tap"], found["classifier"])
    assert not last._forward_pre_hooks, "the network is left as it was"


def test_means_come_from_train_and_test_is_judged(segmentor: Segmentor, prepared: Prepared):
    train, test = prepared.split("train"), prepared.split("test")
    found = separations(segmentor, train, test, None)
    for place in PLACES:
        fitted = [image[place] for image in labelled_pixels(segmentor, train, None)]
        judged = [image[place] for image in labelled_pixels(segmentor, test, None)]
        by_hand = separation(
            tuple(map(torch.cat, zip(*fitted, strict=True))), tuple(map(torch.cat, zip(*judged, strict=True))), 11
        )
        assert found[place] == pytest.approx(by_hand, rel=1e-5)
    assert separations(segmentor, test, train, None) != found


def test_a_part_of_a_split(prepared: Prepared):
    train = prepared.split("train")
    names = [entry.name for entry in train.entries]
    assert [entry.name for entry in part_of(train, every=2).entries] == names[::2]
    assert [entry.name for entry in part_of(train, every=2, first=1).entries] == names[1::2]
    assert (part_of(train, every=2, first=1).read_label(0) == train.read_label(1)).all()


def test_the_padding_has_no_pixels(segmentor: Segmentor, tmp_path: Path):
    prepare(PrepareConfig(options={"train": 1, "val": 1, "test": 1, "height": 40, "width": 72, "seed": 0}), tmp_path)
    (image,) = labelled_pixels(segmentor, load_prepared(tmp_path, None).split("test"), None)
    assert all(len(labels) <= 10 * 18 for _, labels in image.values()), "40x72 at stride 4, not the padded 64x96"
