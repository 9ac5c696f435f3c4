"""Generated streets: the same bytes everywhere, every class there, and no way to tell the classes by colour."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # type: ignore[import-not-found]
from PIL import Image

from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.datasets.streets.dataset import Streets, write_image, write_label
from pipeline.data.datasets.streets.scenes.classes import CLASSES, SKY, VOID
from pipeline.data.datasets.streets.scenes.render import render_street
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.evaluation.metrics import confusion_matrix, mean_iou
from serving.contract.errors import UserError

NUM_CLASSES = len(CLASSES)
PIXELS_SHA256 = "4cdbfc986e35a100100441d02d4c28e487858b05bd17c448b377b581b7f50976"

Scenes = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def train_scenes() -> Scenes:
    return [render_street((0, 0, index), 96, 128) for index in range(120)]


@pytest.fixture(scope="module")
def val_scenes() -> Scenes:
    return [render_street((0, 1, index), 96, 128) for index in range(40)]


def pixels_sha256() -> str:
    """Hash of three streets' images and labels."""
    digest = hashlib.sha256()
    for key, height, width in (((0, 0, 0), 192, 256), ((0, 2, 7), 96, 128), ((5, 1, 1000), 135, 241)):
        image, label = render_street(key, height, width)
        digest.update(image.tobytes() + label.tobytes())
    return digest.hexdigest()


def best_colour_classifier_miou(train: Scenes, val: Scenes) -> float:
    """mIoU on `val` of the best of several per-pixel colour classifiers fitted on `train`.

    Each is a dense histogram over RGB (8 to 32 bins a channel) that answers with the class that is commonest in the
    bin: as counted, and with rare classes weighted up by half and in full. Empty bins use the coarser histogram.
    """
    counts = {bits: np.zeros(((1 << bits) ** 3, NUM_CLASSES)) for bits in (3, 4, 5)}
    for image, label in train:
        known = label != VOID
        for bits, histogram in counts.items():
            np.add.at(histogram, (bins(image, bits)[known], label[known]), 1)
    prior = counts[3].sum(axis=0)
    scores = []
    for bits, histogram in counts.items():
        for power in (0.0, 0.5, 1.0):
            weights = 1 / np.maximum(prior, 1) ** power
            fine, coarse = (histogram * weights).argmax(axis=1), (counts[3] * weights).argmax(axis=1)
            total = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
            for image, label in val:
                index = bins(image, bits)
                guess = np.where(histogram.sum(axis=1)[index] > 0, fine[index], coarse[bins(image, 3)])
                total += confusion_matrix(label, guess.astype(np.uint8), NUM_CLASSES, VOID)
            scores.append(mean_iou(total))
    return max(scores)


def bins(image: np.ndarray, bits: int) -> np.ndarray:
    reduced = (image >> (8 - bits)).astype(np.int64)
    return (reduced[..., 0] << (2 * bits)) | (reduced[..., 1] << bits) | reduced[..., 2]


class TestContent:
    def test_colour_alone_does_not_tell_the_classes(self, train_scenes: Scenes, val_scenes: Scenes) -> None:
        assert best_colour_classifier_miou(train_scenes, val_scenes) < 0.3  # asked: below 0.5

    def test_the_colour_classifier_solves_what_colour_solves(self, train_scenes: Scenes, val_scenes: Scenes) -> None:
        """The check above can fail: labels drawn in one noisy colour per class are solved."""
        palette = np.zeros((256, 3), np.int64)
        palette[:NUM_CLASSES] = list(CLASSES.values())
        generator = np.random.default_rng(0)

        def drawn(scenes: Scenes) -> Scenes:
            return [
                (
                    np.clip(palette[label] + generator.integers(-9, 10, (*label.shape, 3)), 0, 255).astype(np.uint8),
                    label,
                )
                for _, label in scenes
            ]

        assert best_colour_classifier_miou(drawn(train_scenes), drawn(val_scenes)) > 0.85

    def test_every_class_is_common_enough_to_learn(self, train_scenes: Scenes) -> None:
        labels = np.concatenate([label.reshape(-1) for _, label in train_scenes])
        shares = np.bincount(labels, minlength=256) / labels.size
        for name, share, least in zip(
            CLASSES, shares, [0.2, 0.03, 0.1, 0.01, 0.04, 0.01, 0.08, 0.01, 0.005, 0.02, 0.005], strict=False
        ):
            assert least < share < 0.5, name
        assert 0.005 < shares[VOID] < 0.06
        assert shares[NUM_CLASSES:VOID].sum() == 0

    def test_rare_classes_are_in_many_images(self, train_scenes: Scenes) -> None:
        present = np.array([[(label == c).sum() > 20 for c in range(NUM_CLASSES)] for _, label in train_scenes])
        assert present.mean(axis=0).min() > 0.2

    def test_scenes_differ(self, train_scenes: Scenes) -> None:
        means = np.array([image.mean(axis=(0, 1)) for image, _ in train_scenes])
        assert means.std(axis=0).min() > 15  # light and weather
        skies = np.array([(label == SKY).mean() for _, label in train_scenes])
        assert skies.std() > 0.04  # views

    def test_the_image_is_noisy_but_not_only_noise(self, train_scenes: Scenes) -> None:
        image = np.stack([image for image, _ in train_scenes]).astype(np.float64)
        along = np.abs(np.diff(image, axis=2)).mean()
        apart = np.abs(image[:, :, 64:] - image[:, :, :64]).mean()
        assert 1 < along < apart / 2


class TestDeterminism:
    def test_pixels_are_those_of_every_machine(self) -> None:
        """Pinned: a change here changes every user's dataset, on purpose only."""
        assert pixels_sha256() == PIXELS_SHA256

    def test_pixels_do_not_depend_on_the_processor(self) -> None:
        """The same without the vector instructions that NumPy chooses for this processor when it starts."""
        extensions = " ".join(name for name in __cpu_dispatch__ if __cpu_features__[name])
        code = f"import runpy; print(runpy.run_path({__file__!r})['pixels_sha256']())"
        environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": extensions, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == PIXELS_SHA256

    def test_an_image_follows_from_its_key_alone(self) -> None:
        first = render_street((1, 0, 3), 64, 80)
        render_street((9, 9, 9), 100, 64)
        np.random.seed(3)  # noqa: NPY002 (the global stream must not matter)
        again = render_street((1, 0, 3), 64, 80)
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])

    def test_different_keys_give_different_streets(self) -> None:
        labels = [render_street(key, 48, 64)[1].tobytes() for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
        assert len(set(labels)) == 4

    def test_files_are_those_of_any_zlib(self, tmp_path: Path) -> None:
        """Pillow brings its own build of zlib; Python's must give the same bytes."""
        image, label = render_street((0, 0, 0), 192, 256)
        write_image(tmp_path / "image.png", image)
        write_label(tmp_path / "label.png", label, Streets.palette)
        for name, strategy in (("image.png", zlib.Z_HUFFMAN_ONLY), ("label.png", zlib.Z_RLE)):
            stream = compressed_stream(tmp_path / name)
            compressor = zlib.compressobj(6, zlib.DEFLATED, 15, 9, strategy)
            assert compressor.compress(zlib.decompress(stream)) + compressor.flush() == stream
        with Image.open(tmp_path / "image.png") as written:
            np.testing.assert_array_equal(np.asarray(written), image)
        with Image.open(tmp_path / "label.png") as written:
            np.testing.assert_array_equal(np.asarray(written), label)
            assert written.getpalette()[:3] == [128, 64, 128]


def compressed_stream(path: Path) -> bytes:
    content, position, stream = path.read_bytes(), 8, b""
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        if content[position + 4 : position + 8] == b"IDAT":
            stream += content[position + 8 : position + 8 + length]
        position += 12 + length
    return stream


class TestAnySize:
    @settings(deadline=None, max_examples=40)
    @given(
        key=st.tuples(st.integers(0, 2**40), st.integers(0, 2), st.integers(0, 10**6)),
        height=st.integers(32, 300),
        width=st.integers(32, 300),
    )
    def test_a_street_is_drawn(self, key: tuple[int, int, int], height: int, width: int) -> None:
        image, label = render_street(key, height, width)
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
        assert label.shape == (height, width) and label.dtype == np.uint8
        assert set(np.unique(label)) <= {*range(NUM_CLASSES), VOID}
        assert (label == VOID).mean() < 0.7  # a box right in front of the camera at most

    @pytest.mark.parametrize(("height", "width"), [(32, 1024), (1024, 32), (512, 1024)])
    def test_unusual_sizes(self, height: int, width: int) -> None:
        image, label = render_street((0, 0, 0), height, width)
        assert image.shape[:2] == label.shape == (height, width)
        assert len(np.unique(label)) >= 4

    def test_a_scene_is_the_same_at_another_size(self) -> None:
        """Sizes are in metres, not in pixels: twice the pixels show the same street."""
        small, large = render_street((0, 0, 4), 96, 128)[1], render_street((0, 0, 4), 192, 256)[1]
        assert (large[::2, ::2] == small).mean() > 0.85


SMALL: dict[str, object] = {"train": 3, "val": 2, "test": 1, "height": 48, "width": 64, "seed": 7}


class TestPrepare:
    def test_generate_check_and_read(self, tmp_path: Path) -> None:
        done = prepare(PrepareConfig(dataset="streets", options=SMALL), tmp_path / "prepared", strict=True)
        assert done.pairs == {"train": 3, "val": 2, "test": 1}
        prepared = load_prepared(tmp_path / "prepared", None)
        assert prepared.class_names == tuple(CLASSES)
        for number, name in enumerate(("train", "val", "test")):
            split = prepared.split(name)
            for index in range(len(split)):
                image, label = render_street((7, number, index), 48, 64)
                np.testing.assert_array_equal(split.read_image(index), image)
                np.testing.assert_array_equal(split.read_label(index), label)

    def test_the_same_folder_twice(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            prepare(PrepareConfig(dataset="streets", options=SMALL), tmp_path / name)
        first = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
        second = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}
        assert len(first) == 13 and first == second

    def test_more_images_only_add(self, tmp_path: Path) -> None:
        prepare(PrepareConfig(dataset="streets", options=SMALL), tmp_path / "a")
        prepare(PrepareConfig(dataset="streets", options={**SMALL, "train": 4}), tmp_path / "b")
        for path in (tmp_path / "a").rglob("*.png"):
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()

    def test_it_may_have_no_test_split(self, tmp_path: Path) -> None:
        prepare(PrepareConfig(dataset="streets", options={**SMALL, "test": 0}), tmp_path / "prepared")
        with pytest.raises(UserError, match="no labelled images in its split 'test'"):
            load_prepared(tmp_path / "prepared", None).split("test")

    def test_a_lost_file_is_noticed_by_its_reader(self, tmp_path: Path) -> None:
        prepare(PrepareConfig(dataset="streets", options=SMALL), tmp_path / "prepared")
        split = load_prepared(tmp_path / "prepared", None).split("val")
        split.image_path(0).unlink()
        with pytest.raises(UserError, match="000000"):
            split.read_image(0)

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"train": 0}, "train: expected at least 1, got 0"),
            ({"val": 0}, "val: expected at least 1, got 0"),
            ({"test": -1}, "test: expected at least 0, got -1"),
            ({"seed": -1}, "seed: expected at least 0, got -1"),
            ({"height": 31}, "height: expected 32 to 4096 pixels, got 31"),
            ({"width": 5000}, "width: expected 32 to 4096 pixels, got 5000"),
            ({"widht": 64}, "options.widht: unknown key; did you mean 'width'?"),
            ({"train": "many"}, "options.train: expected a whole number, got str 'many'"),
        ],
    )
    def test_bad_options_are_refused_with_the_config(self, options: dict[str, object], problem: str) -> None:
        with pytest.raises(ValueError) as caught:
            PrepareConfig(dataset="streets", options=options)
        assert problem in str(caught.value)
