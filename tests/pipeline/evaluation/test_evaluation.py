from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.datasets.shared.prepared import Prepared, PreparedSplit, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.evaluation.config import EvaluateConfig, InferenceProtocol
from pipeline.evaluation.evaluation import (
    Evaluation,
    count_confusion,
    evaluate,
    evaluate_miou,
    miou_difference,
    split_miou,
)
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.evaluation.metrics import boundary_counts, boundary_width, confusion_matrix, mean_iou
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from serving.contract.errors import UserError
from serving.images.geometry import place, restore

VOID = 255


@pytest.fixture(scope="module")
def segmentor() -> Segmentor:
    """A network with random weights, its statistics and class offsets fitted so that its masks are varied."""
    built = build_segmentor(ModelConfig(pretrained=False), 3, seed=0)
    images = np.stack([random_image(64, 96, seed) for seed in range(4)])
    pixels = built.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    with torch.no_grad():
        built.train()
        for _ in range(20):
            built(pixels)
        built.eval()
        offsets = built(pixels).mean(dim=(0, 2, 3))
        classifier = [module for module in built.head.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        assert classifier.bias is not None
        classifier.bias -= offsets
    return built


@pytest.fixture
def split(tiny_prepared: Prepared) -> PreparedSplit:
    return tiny_prepared.split("train")


def by_brightness(image: np.ndarray) -> np.ndarray:
    """Three classes by grey value: right often enough to be interesting."""
    return np.digitize(image.mean(axis=2), [75, 130]).astype(np.uint8)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_images_are_run_size_by_size_and_counted_each_in_its_own_place(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("dark\ngrey\nbright\n")
    for index, (height, width) in enumerate([(32, 64), (64, 32), (48, 48)] * 8):
        image = random_image(height, width, index)
        Image.fromarray(image).save(root / "images" / f"{index:02}.png")
        Image.fromarray(by_brightness(image)).save(root / "labels" / f"{index:02}.png")
    prepare(PrepareConfig(dataset="folder", root=str(root)), tmp_path / "prepared")
    mixed = load_prepared(tmp_path / "prepared", root).split("train")
    seen: list[tuple[int, ...]] = []

    def predict(image: np.ndarray) -> np.ndarray:
        seen.append(image.shape)
        return by_brightness(image)

    evaluation = evaluate(predict, mixed, 3, VOID)
    assert len(set(seen)) == 3 and seen == sorted(seen), "each size once"
    assert [mixed.size(index) for index in range(len(mixed))] != sorted(map(mixed.size, range(len(mixed))))
    assert evaluation.names == tuple(map(mixed.name, range(len(mixed)))) and evaluation.miou == 1
    for index in range(len(mixed)):
        label = mixed.read_label(index)
        assert np.array_equal(evaluation.confusions[index], confusion_matrix(label, label, 3, VOID))


def test_counts_are_those_of_every_image(split: PreparedSplit) -> None:
    evaluation = evaluate(by_brightness, split, 3, VOID, boundary_ratio=0.03)
    for index in range(len(split)):
        label, mask = split.read_label(index), by_brightness(split.read_image(index))
        assert np.array_equal(evaluation.confusions[index], confusion_matrix(label, mask, 3, VOID))
        width = boundary_width(64, 96, 0.03)
        assert np.array_equal(evaluation.boundary[index], boundary_counts(label, mask, 3, VOID, width))
    assert evaluation.names == tuple(split.name(index) for index in range(len(split)))
    assert evaluation.miou == mean_iou(evaluation.confusions.sum(axis=0))
    assert 0.1 < evaluation.miou < 0.9
    assert 0 < evaluation.boundary_iou < evaluation.miou


def test_the_labels_themselves_score_one(split: PreparedSplit) -> None:
    masks = iter([split.read_label(index) for index in range(len(split))])
    evaluation = evaluate(lambda image: next(masks), split, 3, VOID)
    assert evaluation.miou == 1
    assert evaluation.boundary_iou == 1


def test_the_protocol_is_stated(split: PreparedSplit) -> None:
    config = EvaluateConfig(scales=(0.5, 1.0), flip=True, resize=(32, 48))
    evaluation = evaluate(by_brightness, split, 3, VOID, protocol=config.in_words())
    assert evaluation.protocol == (
        f"split val, multi-scale 0.5, 1, with flip, images at 32x48, {len(split)} images, labels at their original "
        "64x96, boundary bands of 0.02 of the diagonal"
    )
    assert EvaluateConfig().in_words() == "split val, single scale 1, no flip, images at their own size"
    assert "single scale 1, no flip" in config.in_words(InferenceProtocol())


def test_progress_is_told_of_every_image(split: PreparedSplit) -> None:
    calls: list[tuple[int, int]] = []
    evaluate(by_brightness, split, 3, VOID, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, len(split)) for done in range(1, len(split) + 1)]


def test_a_mask_of_another_size_or_type_is_refused(split: PreparedSplit) -> None:
    with pytest.raises(ValueError, match="one shape"):
        evaluate(lambda image: by_brightness(image)[:-1], split, 3, VOID)
    with pytest.raises(ValueError, match="uint8"):
        evaluate(lambda image: by_brightness(image).astype(np.int64), split, 3, VOID)
    with pytest.raises(ValueError, match=r"prediction: expected 0..2, got \[3\]"):
        evaluate(lambda image: np.full(image.shape[:2], 3, np.uint8), split, 3, VOID)


def test_a_label_that_changed_size_is_the_users_message(split: PreparedSplit, tmp_path: Path) -> None:
    first = split.entries[0]
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / first.image)
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / first.label)
    broken = replace(split, root=tmp_path, entries=(first,))
    with pytest.raises(UserError, match="not what was prepared"):
        evaluate(by_brightness, broken, 3, VOID)


def test_save_and_load(split: PreparedSplit, tmp_path: Path) -> None:
    evaluation = evaluate(by_brightness, split, 3, VOID, protocol="a protocol")
    evaluation = replace(evaluation, sequences=("day", *[None] * (len(split) - 2), ""))
    evaluation.save(tmp_path / "a/one.npz")
    evaluation.save(tmp_path / "two.npz")
    assert (tmp_path / "a/one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded = Evaluation.load(tmp_path / "two.npz")
    assert np.array_equal(loaded.confusions, evaluation.confusions)
    assert np.array_equal(loaded.boundary, evaluation.boundary)
    assert loaded.confusions.dtype == np.int32
    for name in ("names", "sequences", "protocol", "miou", "boundary_iou"):
        assert getattr(loaded, name) == getattr(evaluation, name)
    assert not list(tmp_path.glob("*.partial"))


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(UserError, match="no such evaluation"):
        Evaluation.load(path)
    whole = tmp_path / "whole.npz"
    Evaluation(np.zeros((1, 2, 2), np.int32), np.zeros((1, 2, 2), np.int64), ("a",), (None,), "").save(whole)
    good = whole.read_bytes()
    contents = [b"", b"not a zip", good[:-40], good[:100], good[:80] + b"\xff" * 40 + good[120:]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match="not an evaluation"):
            Evaluation.load(path)
    np.savez(path, confusions=np.zeros(3))
    with pytest.raises(UserError, match="not an evaluation"):
        Evaluation.load(path)
    np.savez(path, confusions=np.array([{}], dtype=object))  # loading must not unpickle
    with pytest.raises(UserError, match="not an evaluation"):
        Evaluation.load(path)


def test_a_split_without_a_labelled_pixel_has_no_miou(split: PreparedSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    label = split.read_label(0)
    monkeypatch.setattr(PreparedSplit, "read_label", lambda self, index: np.full_like(label, VOID))
    with pytest.raises(UserError, match=r"none of the \d+ images to evaluate on has a labelled pixel"):
        evaluate(by_brightness, split, 3, VOID)


def test_groups_need_every_sequence() -> None:
    evaluation = Evaluation(
        np.ones((3, 2, 2), np.int32), np.zeros((3, 2, 2), np.int64), ("a", "b", "c"), ("s", "s", "t"), ""
    )
    assert evaluation.groups == ("s", "s", "t")
    assert replace(evaluation, sequences=("s", None, "t")).groups is None
    assert math.isnan(evaluation.boundary_iou)


def test_compare_is_paired_and_knows_its_images(split: PreparedSplit) -> None:
    first = evaluate(by_brightness, split, 3, VOID)
    second = evaluate(lambda image: np.zeros(image.shape[:2], np.uint8), split, 3, VOID)
    interval = miou_difference(first, second, resamples=200, seed=0)
    assert interval.difference == pytest.approx(first.miou - second.miou)
    assert interval.low < interval.difference < interval.high
    assert interval.unit == "image"
    grouped = replace(first, sequences=tuple(f"s{index % 3}" for index in range(len(split))))
    assert miou_difference(grouped, second, resamples=200, seed=0).unit == "group"
    with pytest.raises(ValueError, match="same images"):
        miou_difference(first, replace(second, names=second.names[::-1]), resamples=10, seed=0)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 71), (33, 32)])
def test_the_plain_protocol_is_place_run_upsample_argmax_restore(segmentor: Segmentor, height: int, width: int) -> None:
    image = random_image(height, width)
    mask = segmentor_predictor(segmentor, torch.device("cpu"))(image)
    placed, placement = place(image, stride=segmentor.stride)
    with torch.no_grad():
        logits = segmentor(segmentor.normalise(torch.tensor(placed).permute(2, 0, 1)[None]))
        logits = torch.nn.functional.interpolate(logits, placed.shape[:2], mode="bilinear", align_corners=False)
    assert np.array_equal(mask, restore(logits.argmax(1)[0].numpy().astype(np.uint8), placement))
    assert mask.shape == (height, width) and mask.dtype == np.uint8
    assert len(np.unique(mask)) > 1


def test_resize_runs_at_that_size_and_comes_back(segmentor: Segmentor) -> None:
    image = random_image(50, 71)
    mask = segmentor_predictor(segmentor, torch.device("cpu"), resize=(64, 96))(image)
    placed, placement = place(image, stride=segmentor.stride, resize=(64, 96))
    inner = segmentor_predictor(segmentor, torch.device("cpu"))(placed)
    assert np.array_equal(mask, restore(inner, placement))
    protocol = InferenceProtocol(scales=(0.5, 1.0), flip=True)
    assert segmentor_predictor(segmentor, torch.device("cpu"), resize=(64, 96), protocol=protocol)(image).shape == (
        50,
        71,
    )


def test_flip_averaging_is_blind_to_mirroring(segmentor: Segmentor) -> None:
    image = random_image(64, 96)  # a multiple of the stride: nothing is padded
    predict = segmentor_predictor(
        segmentor, torch.device("cpu"), protocol=InferenceProtocol((0.5, 1.0, 1.5), flip=True)
    )
    mirrored = np.ascontiguousarray(image[:, ::-1])
    assert np.array_equal(predict(mirrored), predict(image)[:, ::-1])
    plain = segmentor_predictor(segmentor, torch.device("cpu"))
    assert not np.array_equal(plain(mirrored), plain(image)[:, ::-1])


def test_multi_scale_averages_probabilities(segmentor: Segmentor) -> None:
    """Against a plain re-implementation, at sizes that pad."""
    image = random_image(50, 72)
    scales = (0.5, 1.0, 1.25)
    total = torch.zeros(1, 3, 50, 72)
    with torch.no_grad():
        for scale in scales:
            for flipped in (False, True):
                source = np.ascontiguousarray(image[:, ::-1]) if flipped else image
                resized = Image.fromarray(source).resize(
                    (round(72 * scale), round(50 * scale)), Image.Resampling.BILINEAR
                )
                height, width = resized.height, resized.width
                placed, _ = place(np.asarray(resized), stride=segmentor.stride)
                logits = segmentor(segmentor.normalise(torch.tensor(placed).permute(2, 0, 1)[None]))
                logits = torch.nn.functional.interpolate(logits, placed.shape[:2], mode="bilinear")
                logits = logits[:, :, :height, :width]
                if flipped:
                    logits = logits.flip(3)
                total += torch.nn.functional.interpolate(logits, (50, 72), mode="bilinear").softmax(1)
    predict = segmentor_predictor(segmentor, torch.device("cpu"), protocol=InferenceProtocol(scales, flip=True))
    top = total.topk(2, dim=1).values[0]
    clear = (top[0] - top[1] > 1e-5).numpy()
    assert np.array_equal(predict(image)[clear], total.argmax(1)[0].numpy()[clear])
    assert clear.mean() > 0.99


def test_training_mode_is_refused(segmentor: Segmentor) -> None:
    predict = segmentor_predictor(segmentor, torch.device("cpu"))
    segmentor.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            predict(random_image(32, 32))
    finally:
        segmentor.eval()


def test_config_lists_every_problem() -> None:
    with pytest.raises(ValueError, match="resize") as caught:
        EvaluateConfig(resize=(0, 3), scales=(1.0, 1.0, 20.0), boundary_ratio=0)
    assert len(str(caught.value).splitlines()) == 4
    with pytest.raises(ValueError, match="at least one"):
        EvaluateConfig(scales=())


@pytest.mark.parametrize("threads", [0, 3])
def test_validation_comes_to_the_miou_of_an_evaluation(split: PreparedSplit, threads: int) -> None:
    done: list[tuple[int, int]] = []
    found = evaluate_miou(by_brightness, split, 3, VOID, threads=threads, progress=lambda *counts: done.append(counts))
    assert found == evaluate(by_brightness, split, 3, VOID).miou
    assert done == [(number, len(split)) for number in range(1, len(split) + 1)]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_validation_that_is_broken_off_leaves_no_thread(split: PreparedSplit, threads: int) -> None:
    before = threading.active_count()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_miou(by_brightness, split, 3, VOID, threads=threads, progress=stop)
    assert threading.active_count() == before


def test_parts_of_a_split_are_counted_to_what_the_whole_is(split: PreparedSplit) -> None:
    ranks = len(split) + 1  # the last one has no image
    parts = [count_confusion(by_brightness, split, 3, VOID, part=slice(i, None, ranks)) for i in range(ranks)]
    assert not parts[-1].any() and all(part.any() for part in parts[:-1])
    assert split_miou(sum(parts), len(split)) == evaluate_miou(by_brightness, split, 3, VOID)
