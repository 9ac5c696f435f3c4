"""The memory bank: each of its rules on its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.shared.memory_bank import MemoryBank


def embeddings_of(images: int, dimension: int = 4, size: tuple[int, int] = (6, 7), seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(images, dimension, *size, generator=generator), dim=1)


def labels_of(images: int, classes: int = 3, size: tuple[int, int] = (6, 7), seed: int = 0) -> Tensor:
    return torch.randint(0, classes, (images, *size), generator=torch.Generator().manual_seed(seed))


def enqueue(bank: MemoryBank, embeddings: Tensor, labels: Tensor, seed: int = 0) -> None:
    bank.enqueue(embeddings, labels, generator=torch.Generator().manual_seed(seed))


def row_set(rows: Tensor) -> set[tuple[float, ...]]:
    return {tuple(round(value, 5) for value in row) for row in rows.tolist()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_region_row_is_the_normalised_mean_of_its_pixels(layout: torch.memory_format) -> None:
    embeddings, labels = embeddings_of(3).to(memory_format=layout), labels_of(3)
    bank = MemoryBank(3, 4, 10, 10)
    enqueue(bank, embeddings, labels)
    keys, key_labels = bank.keys("region")
    assert len(keys) == 9
    for label in range(3):
        expected = torch.stack(
            [F.normalize(embeddings[image][:, labels[image] == label].mean(1), dim=0) for image in range(3)]
        )
        torch.testing.assert_close(keys[key_labels == label], expected)


def test_pixel_rows_are_distinct_pixels_of_their_class_up_to_k_per_image() -> None:
    embeddings, labels = embeddings_of(2, size=(8, 8)), labels_of(2, size=(8, 8))
    labels[0][labels[0] == 2] = 0
    labels[0, 0, :3] = 2  # fewer than K
    bank = MemoryBank(3, 4, 10, 50, pixels_per_region=10)
    enqueue(bank, embeddings, labels)
    keys, key_labels = bank.keys("pixel")
    for label, expected in ((0, 20), (1, 20), (2, 13)):
        rows = keys[key_labels == label]
        assert len(rows) == len(row_set(rows)) == expected
        own = torch.cat([embeddings[image][:, labels[image] == label].T for image in range(2)])
        assert row_set(rows) <= row_set(own)
        assert row_set(rows[:3]) <= row_set(embeddings[0][:, labels[0] == label].T)


def test_pixels_are_drawn_at_random_from_the_generator() -> None:
    embeddings, labels = embeddings_of(1, size=(8, 8)), torch.zeros(1, 8, 8, dtype=torch.int64)
    banks = [MemoryBank(1, 4, 1, 10) for _ in range(3)]
    for bank, seed in zip(banks, (1, 1, 2), strict=True):
        enqueue(bank, embeddings, labels, seed)
    assert torch.equal(banks[0].rings.rows, banks[1].rings.rows)
    assert not torch.equal(banks[0].rings.rows, banks[2].rings.rows)


def test_class_zero_is_a_class_and_ignored_pixels_are_none() -> None:
    labels = torch.full((1, 6, 7), 255)
    labels[0, 0] = 0
    bank = MemoryBank(2, 4, 5, 5)
    enqueue(bank, embeddings_of(1), labels)
    for mode, expected in (("region", 1), ("pixel", 5)):
        keys, key_labels = bank.keys(mode)
        assert key_labels.tolist() == [0] * expected
        torch.testing.assert_close(keys.norm(dim=1), torch.ones(expected))


def test_rows_never_written_never_count() -> None:
    bank = MemoryBank(4, 4, 5, 5)
    keys, key_labels = bank.keys("both")
    assert keys.shape == (0, 4)
    assert key_labels.shape == (0,)
    assert bank.rings.fill().item() == 0
    labels = labels_of(2, classes=2)
    enqueue(bank, embeddings_of(2), labels)
    keys, key_labels = bank.keys("both")
    assert set(key_labels.tolist()) == {0, 1}
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(len(keys)))
    assert bank.rings.valid().sum() == len(keys) == 2 * (2 + 5)
    assert bank.rings.fill().item() == pytest.approx(14 / 40)


def test_the_pointer_advances_by_what_was_written_and_the_oldest_rows_go_first() -> None:
    bank = MemoryBank(1, 4, 3, 30)
    labels = torch.zeros(2, 6, 7, dtype=torch.int64)
    means = []
    for step in range(2):  # four images into three region rows
        embeddings = embeddings_of(2, seed=step)
        means += [F.normalize(image.flatten(1).mean(1), dim=0) for image in embeddings]
        enqueue(bank, embeddings, labels)
    assert bank.rings.pointer.tolist() == [[1], [10]]  # 4 % 3, and 40 % 30
    torch.testing.assert_close(bank.keys("region")[0], torch.stack([means[3], means[1], means[2]]))


def test_more_pixels_at_once_than_the_ring_holds_leave_the_newest() -> None:
    embeddings, labels = embeddings_of(3), torch.zeros(3, 6, 7, dtype=torch.int64)
    bank = MemoryBank(1, 4, 2, 12, pixels_per_region=10)
    enqueue(bank, embeddings, labels)
    pixels = bank.keys("pixel")[0]
    assert len(row_set(pixels)) == 12
    assert row_set(pixels) <= row_set(embeddings[1].flatten(1).T) | row_set(embeddings[2].flatten(1).T)
    assert len(row_set(pixels) & row_set(embeddings[2].flatten(1).T)) == 10
    assert row_set(bank.keys("region")[0]) == row_set(F.normalize(embeddings[1:].flatten(2).mean(2), dim=1))


def test_modes() -> None:
    bank = MemoryBank(3, 4, 5, 5)
    enqueue(bank, embeddings_of(2), labels_of(2))
    both = torch.cat([bank.keys("region")[0], bank.keys("pixel")[0]])
    assert torch.equal(bank.keys("both")[0], both)
    assert torch.equal(bank.keys()[0], both)
    with pytest.raises(ValueError, match="expected pixel, region or both, got 'rows'"):
        bank.keys("rows")


@pytest.mark.parametrize(("region_size", "pixel_size"), [(0, 4), (4, 0)])
def test_a_ring_of_no_rows_is_left_alone(region_size: int, pixel_size: int) -> None:
    bank = MemoryBank(3, 4, region_size, pixel_size)
    enqueue(bank, embeddings_of(2), labels_of(2))
    assert len(bank.keys("region")[0]) == min(region_size, 2) * 3
    assert len(bank.keys("pixel")[0]) == pixel_size * 3


@pytest.mark.parametrize("shape", [(2, 12, 14), (2, 6, 6), (1, 6, 7)])
def test_labels_at_another_resolution_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one resolution"):
        enqueue(MemoryBank(3, 4, 5, 5), embeddings_of(2), torch.zeros(shape, dtype=torch.int64))


def test_nothing_in_it_has_a_gradient() -> None:
    bank = MemoryBank(3, 4, 5, 5)
    embeddings = embeddings_of(2).requires_grad_()
    enqueue(bank, embeddings, labels_of(2))
    assert not bank.rings.rows.requires_grad
    assert not list(bank.parameters())
    assert embeddings.grad is None


def test_a_saved_bank_goes_on_exactly() -> None:
    straight, first = (MemoryBank(3, 4, 5, 7) for _ in range(2))
    for step in range(2):
        enqueue(straight, embeddings_of(2, seed=step), labels_of(2, seed=step), step)
        enqueue(first, embeddings_of(2, seed=step), labels_of(2, seed=step), step)
    resumed = MemoryBank(3, 4, 5, 7)
    resumed.load_state_dict(first.state_dict())
    for bank in (straight, resumed):
        enqueue(bank, embeddings_of(2, seed=9), labels_of(2, seed=9), 9)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_stored_as_float32(dtype: torch.dtype) -> None:
    bank = MemoryBank(3, 4, 5, 5)
    with torch.autocast("cpu", dtype=dtype):
        enqueue(bank, embeddings_of(2).to(dtype), labels_of(2))
    assert bank.rings.rows.dtype == torch.float32
    assert len(bank.keys()[0]) == 3 * (2 + 5)
