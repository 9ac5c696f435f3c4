from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.data.datasets.folder.dataset import Folder
from pipeline.data.datasets.shared import prepared
from pipeline.data.datasets.shared.prepared import Entry, PreparedSplit, files_sha256
from pipeline.data.reading.batches import TrainingBatches
from pipeline.data.reading.config import AugmentConfig
from pipeline.data.reading.decoded_cache import DecodedCache
from serving.contract.errors import UserError

CONFIG = AugmentConfig(crop=(16, 24))
PLAIN = AugmentConfig(crop=(12, 16), scale=(1.0, 1.0), flip_probability=0, brightness=0, contrast=0, saturation=0)

Batch = tuple[Tensor, Tensor]
MakeSplit = Callable[..., PreparedSplit]


@pytest.fixture
def make_split(tmp_path: Path) -> MakeSplit:
    """A folder dataset in which every pixel of image i has the value 10 i, and its label the class i."""

    def make(count: int = 5, height: int = 20, width: int = 28) -> PreparedSplit:
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir()
        (tmp_path / "classes.txt").write_text("".join(f"class{index}\n" for index in range(count)))
        entries = []
        for index in range(count):
            Image.fromarray(np.full((height, width, 3), 10 * index, np.uint8)).save(tmp_path / f"images/{index}.png")
            Image.fromarray(np.full((height, width), index, np.uint8)).save(tmp_path / f"labels/{index}.png")
            names = (f"images/{index}.png", f"labels/{index}.png")
            image, label = (hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names)
            entries.append(Entry(str(index), names[0], names[1], image, label, height, width, None))
        return PreparedSplit(Folder(tmp_path, {}), tmp_path, tuple(entries))

    return make


def collect(split: PreparedSplit, config: AugmentConfig = CONFIG, **options: Any) -> list[Batch]:
    settings: dict[str, Any] = {"batch_size": 3, "iterations": 7, "seed": 1} | options
    return list(TrainingBatches(split, config, **settings))


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


def test_shapes_and_types(make_split: MakeSplit) -> None:
    batches = TrainingBatches(make_split(), CONFIG, batch_size=3, iterations=7, seed=1)
    assert len(batches) == 7
    for images, labels in batches:
        assert images.shape == (3, 3, 16, 24) and images.dtype == torch.uint8 and images.is_contiguous()
        assert labels.shape == (3, 16, 24) and labels.dtype == torch.int64


def test_every_epoch_shows_every_pair_once_in_its_own_order(make_split: MakeSplit) -> None:
    batches = collect(make_split(5), PLAIN, batch_size=3, iterations=5)
    seen = torch.cat([labels[:, 0, 0] for _, labels in batches]).tolist()
    epochs = [seen[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]
    for images, labels in batches:  # image and label belong together
        assert torch.equal(images[:, 0].long(), 10 * labels)


def test_the_same_seed_gives_the_same_batches_and_another_others(make_split: MakeSplit) -> None:
    split = make_split()
    first = collect(split)
    assert equal(first, collect(split))
    assert not equal(first, collect(split, seed=2))
    batches = TrainingBatches(split, CONFIG, batch_size=3, iterations=7, seed=1)
    assert equal(list(batches), list(batches))


def test_resume_is_exact(make_split: MakeSplit) -> None:
    split = make_split()
    whole = collect(split)
    for start in (1, 4, 7):
        assert equal(collect(split, start_iteration=start), whole[start:])


def test_parts_of_a_batch_are_those_of_the_whole(make_split: MakeSplit) -> None:
    split = make_split()
    parts = [collect(split, positions=positions, workers=2) for positions in (range(1), range(1, 3))]
    joined = [tuple(map(torch.cat, zip(*batch, strict=True))) for batch in zip(*parts, strict=True)]
    assert equal(joined, collect(split))


def test_neither_workers_nor_cache_change_a_batch(make_split: MakeSplit) -> None:
    split = make_split()
    expected = collect(split)
    uncached = AugmentConfig(crop=(16, 24), cache_decoded_bytes=0)
    small = AugmentConfig(crop=(16, 24), cache_decoded_bytes=2 * 4 * 20 * 28)
    for config in (CONFIG, uncached, small):
        for workers in (0, 2, 5):  # five are more than some machines have cores
            assert equal(collect(split, config, workers=workers), expected)


def test_global_random_states_are_neither_read_nor_moved(make_split: MakeSplit) -> None:
    split = make_split()
    for workers in (0, 1):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        expected = collect(split, workers=workers)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(99)
        assert equal(collect(split, workers=workers), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_cache_is_read_instead_of_the_files(make_split: MakeSplit, workers: int) -> None:
    split = make_split(4)
    cached = TrainingBatches(split, CONFIG, batch_size=4, iterations=2, seed=1, workers=workers)
    first = list(cached)
    for entry in split.entries:
        (split.root / entry.image).unlink()
    assert equal(list(cached), first)  # filled by the worker process too: the memory is shared
    with pytest.raises(UserError, match=r"images/\d\.png"):
        collect(split)


def test_the_cache_keeps_to_its_bound(make_split: MakeSplit) -> None:
    split = make_split(4)
    config = AugmentConfig(crop=(16, 24), cache_decoded_bytes=3 * 4 * 20 * 28 + 100)  # three of four pairs
    batches = TrainingBatches(split, config, batch_size=4, iterations=1, seed=1)
    list(batches)
    (split.root / "images/0.png").unlink()  # the first three are the cached ones
    list(batches)
    (split.root / "images/3.png").unlink()
    with pytest.raises(UserError, match=r"images/3\.png"):
        list(batches)


def test_a_cache_larger_than_the_memory_is_one_clear_message() -> None:
    class Huge:
        def __len__(self) -> int:
            return 1

        def size(self, index: int) -> tuple[int, int]:
            return 2**25, 2**25

    with pytest.raises(
        UserError, match=r"train\.augment\.cache_decoded_bytes: the 1 pairs .* memory, which this machine"
    ):
        DecodedCache(Huge(), 2**60)


def test_compact_batches_are_those_with_labels_of_a_byte(make_split: MakeSplit) -> None:
    split = make_split()
    for workers in (0, 2):
        made = TrainingBatches(split, CONFIG, batch_size=3, iterations=7, seed=1, workers=workers)
        compact = list(made.compact())
        assert {labels.dtype for _, labels in compact} == {torch.uint8}
        assert equal([(images, labels.long()) for images, labels in compact], collect(split))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_one_clear_message(make_split: MakeSplit, workers: int) -> None:
    split = make_split()
    path = split.root / "images/3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError) as caught:
        collect(split, workers=workers)
    assert str(path) in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_a_label_of_another_size_is_refused(make_split: MakeSplit, cache: int) -> None:
    split = make_split()
    Image.fromarray(np.zeros((20, 27), np.uint8)).save(split.root / "labels/2.png")
    with pytest.raises(UserError, match=r"labels/2\.png: not what was prepared"):
        collect(split, AugmentConfig(crop=(16, 24), cache_decoded_bytes=cache))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [0, 1 << 20])
@pytest.mark.parametrize("which", ["images/2.png", "labels/2.png"])
def test_a_file_that_is_not_the_prepared_one_is_refused(
    make_split: MakeSplit, which: str, cache: int, workers: int
) -> None:
    """Of the same size and mode, so that only the hash can tell."""
    split = make_split()
    with Image.open(split.root / which) as picture:
        Image.fromarray(np.full_like(np.asarray(picture), 1)).save(split.root / which)
    with pytest.raises(
        UserError, match=r"2\.png: not what was prepared .*: prepare again, with dvc repro or python -m"
    ):
        collect(split, AugmentConfig(crop=(16, 24), cache_decoded_bytes=cache), workers=workers)


def test_every_file_is_hashed_once_and_again_when_it_changes(
    make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, hashed = make_split(), []

    def noted(files: list[tuple[Path, bytes]]) -> str:
        hashed.append(files[0][0].name)
        return files_sha256(files)

    monkeypatch.setattr(prepared, "files_sha256", noted)
    for _ in range(3):
        for index in range(len(split)):
            split.read_image(index), split.read_label(index)
    assert len(hashed) == 2 * len(split)
    os.utime(split.image_path(1), ns=(0, 0))
    split.read_image(1)
    assert hashed[2 * len(split) :] == ["1.png"]
    split.label_paths(1)[0].write_bytes(split.label_paths(0)[0].read_bytes())
    with pytest.raises(UserError, match="not what was prepared"):
        split.read_label(1)


def test_what_one_worker_hashed_the_others_need_not(make_split: MakeSplit) -> None:
    split = make_split()
    collect(split, AugmentConfig(crop=(16, 24), cache_decoded_bytes=0), workers=2)
    assert (split._known != 0).all()  # set in the forked processes, seen here


def test_a_killed_worker_is_the_users_message(make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    split = make_split()
    parent = os.getpid()

    def kill(self: PreparedSplit, index: int) -> None:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(PreparedSplit, "read_image", kill)
    with pytest.raises(UserError, match=r"a data worker died.*--shm-size.*train.workers"):
        collect(split, workers=1)


def test_stopping_early_ends_the_workers(make_split: MakeSplit) -> None:
    iterator = iter(TrainingBatches(make_split(), CONFIG, batch_size=3, iterations=1000, seed=1, workers=2))
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    iterator.close()
    assert not multiprocessing.active_children()


def test_an_empty_split_is_refused(make_split: MakeSplit) -> None:
    split = make_split(1)
    with pytest.raises(UserError, match="nothing to train on"):
        TrainingBatches(PreparedSplit(split.dataset, split.root, ()), CONFIG, batch_size=1, iterations=1, seed=0)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"workers": -1}, {"seed": -1}, {"start_iteration": 8}, {"start_iteration": -1}]
)
def test_impossible_settings_are_refused(make_split: MakeSplit, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        collect(make_split(), **wrong)


def test_one_process_needs_no_fork(make_split: MakeSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where there is no such way to start a process."""
    split = make_split()
    expected = collect(split)
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])

    def no_fork(method: str | None = None) -> None:
        raise ValueError(f"cannot find context for {method!r}")

    monkeypatch.setattr(multiprocessing, "get_context", no_fork)
    assert equal(collect(split), expected)
    with pytest.raises(UserError, match=r"train\.workers: 2 processes, which this system cannot fork: set it to 0"):
        collect(split, workers=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_pairs_are_left_out_up_to_the_budget(make_split: MakeSplit, workers: int) -> None:
    split = make_split()
    whole = collect(split, PLAIN)
    (split.root / "images/2.png").write_bytes(b"no image")
    said: list[str] = []
    left_out: dict[str, str] = {}
    batches = TrainingBatches(
        split,
        PLAIN,
        batch_size=3,
        iterations=7,
        seed=1,
        workers=workers,
        skip_budget=1,
        left_out=left_out,
        say=said.append,
    )
    for (images, labels), (_, expected) in zip(batches, whole, strict=True):
        for image, label, before in zip(images, labels, expected, strict=True):
            shown = int(label[0, 0])
            assert shown != 2 and int(image.min()) == int(image.max()) == 10 * shown
            assert shown == int(before[0, 0]) or int(before[0, 0]) == 2, "the others are where they were"
    assert len(said) == 1 and said[0].startswith("warning: 2 is left out: ") and "2.png" in said[0]
    assert list(left_out) == ["2"] and "2.png" in left_out["2"]
    earlier = {"5": "was left out before the training was interrupted"}
    with pytest.raises(UserError, match=r"2 pairs could not be read now, and train.skip_budget is 1: 5, 2"):
        list(TrainingBatches(split, PLAIN, batch_size=3, iterations=7, seed=1, skip_budget=1, left_out=earlier))
    (split.root / "images/4.png").unlink()
    with pytest.raises(UserError, match=r"2 pairs could not be read now, and train.skip_budget is 1: (2, 4|4, 2)"):
        list(TrainingBatches(split, PLAIN, batch_size=3, iterations=7, seed=1, workers=workers, skip_budget=1))
    with pytest.raises(UserError, match=r"[24]\.png"):
        list(TrainingBatches(split, PLAIN, batch_size=3, iterations=7, seed=1, workers=workers))
