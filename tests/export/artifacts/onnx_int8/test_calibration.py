"""Calibration images: from the training split, by content, and none that is reported on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from export.artifacts.onnx_int8.calibration import CalibrationImages, choose, confusions
from pipeline.data.datasets.shared.prepared import Entry, Prepared, PreparedSplit
from serving.contract.errors import UserError


def entry(number, name=None):
    return Entry(name or f"{number:03}", f"{number}.png", f"{number}.png", f"{number:064x}", "0" * 64, 8, 8, None)


class Labelled(PreparedSplit):
    """Every image has a labelled pixel, but those whose name begins with `void`."""

    def read_label(self, index):
        return np.full((8, 8), 255 if self.entries[index].name.startswith("void") else 0, np.uint8)


@pytest.fixture
def dataset(tmp_path):
    def make(train, val=(), test=()):
        splits = {
            name: Labelled(None, tmp_path, tuple(entries))
            for name, entries in (("train", train), ("val", val), ("test", test))
        }
        return Prepared("folder", ("a", "b"), ((0, 0, 0), (1, 1, 1)), 255, (0.5, 0.5), {}, "0" * 64, splits)

    return make


def hashes(images: CalibrationImages, indices) -> set[str]:
    return {images.split.entries[index].image_sha256 for index in indices}


SETTINGS = {"calibration": 6, "held_out": 4, "seed": 0, "stride": 32, "resize": None}


def test_the_two_parts_share_no_image_and_come_from_train(dataset):
    chosen = choose(dataset([entry(number) for number in range(40)]), **SETTINGS)
    assert (len(chosen.calibration), len(chosen.held_out)) == (6, 4)
    assert not hashes(chosen, chosen.calibration) & hashes(chosen, chosen.held_out)


def test_content_decides_and_names_and_order_do_not(dataset):
    plain = choose(dataset([entry(number) for number in range(40)]), **SETTINGS)
    renamed = choose(dataset([entry(number, f"x{99 - number}") for number in reversed(range(40))]), **SETTINGS)
    assert hashes(plain, plain.calibration) == hashes(renamed, renamed.calibration)
    other = choose(dataset([entry(number) for number in range(40)]), **(SETTINGS | {"seed": 1}))
    assert hashes(plain, plain.calibration) != hashes(other, other.calibration)


def test_images_without_a_labelled_pixel_are_not_held_out(dataset):
    before = choose(dataset([entry(number) for number in range(40)]), **SETTINGS)
    void = {before.held_out[0], before.held_out[2]}
    chosen = choose(dataset([entry(n, f"void{n}" if n in void else None) for n in range(40)]), **SETTINGS)
    assert len(chosen.held_out) == 4 and not void & set(chosen.held_out)
    assert void <= set(chosen.calibration), "ranges need no label"


def test_without_any_labelled_pixel_there_is_nothing_to_judge_by(dataset):
    with pytest.raises(UserError, match=r"none of the 5 images of the split 'train' .* has a labelled pixel"):
        choose(dataset([entry(number, f"void{number}") for number in range(5)]), **SETTINGS)


def test_an_image_that_is_reported_on_is_left_out_and_counted(dataset):
    prepared = dataset([entry(number) for number in range(20)], [entry(number) for number in range(5, 10)], [entry(3)])
    chosen = choose(prepared, **(SETTINGS | {"calibration": 10, "held_out": 10}))
    used = hashes(chosen, (*chosen.calibration, *chosen.held_out))
    assert len(used) == 14 and not used & {f"{number:064x}" for number in (3, 5, 6, 7, 8, 9)}
    assert chosen.manifest_entry()["excluded_as_reported"] == 6
    assert chosen.manifest_entry()["not_in"] == ["val", "test"]


def test_overlap_is_noticed_if_choosing_ever_fails_to_avoid_it(dataset, monkeypatch):
    import export.artifacts.onnx_int8.calibration as module

    original = module.CalibrationImages

    def overlapping(**values):
        return original(**(values | {"held_out": values["calibration"][:1]}))

    monkeypatch.setattr(module, "CalibrationImages", overlapping)
    with pytest.raises(RuntimeError, match="not disjoint"):
        choose(dataset([entry(number) for number in range(20)]), **SETTINGS)


def test_equal_pictures_count_once(dataset):
    chosen = choose(dataset([entry(1, "a"), entry(1, "b"), entry(2), entry(3)]), **SETTINGS)
    assert len(chosen.calibration) + len(chosen.held_out) == 3


def test_a_small_split_is_shared_out(dataset):
    chosen = choose(dataset([entry(number) for number in range(5)]), **SETTINGS)
    assert (len(chosen.calibration), len(chosen.held_out)) == (3, 2)


def test_too_few_images_are_refused(dataset):
    with pytest.raises(UserError, match="1 images of the split 'train'"):
        choose(dataset([entry(1), entry(2)], [entry(2)]), **SETTINGS)


def test_the_manifest_entry_hashes_the_content(dataset):
    entries = [entry(number) for number in range(40)]
    first, second = (choose(dataset(each), **SETTINGS).manifest_entry() for each in (entries, entries[::-1]))
    assert first == second and first["calibration"]["images"] == 6


def test_masks_are_judged_at_the_labels_size(prepared):
    images = choose(prepared, calibration=2, held_out=1, seed=0, stride=32, resize=(64, 96))
    images = dataclasses.replace(images)
    batch, placement, label = next(images.labelled())
    assert batch.shape == (1, 64, 96, 3) and (placement.height, placement.width) == label.shape
    table = confusions([np.zeros((1, 64, 96), np.uint8)], images, prepared.num_classes)
    assert table.sum() == np.count_nonzero(label != 255) and table[:, 1:].sum() == 0
