"""InfoNCE against keys stored by class: the same as `info_nce` against the valid ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.losses.shared.info_nce import info_nce
from pipeline.losses.shared.info_nce_by_class import info_nce_by_class


def rows(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def flat(keys: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    return keys[valid], torch.arange(keys.shape[1]).expand_as(valid)[valid]


@settings(deadline=None, max_examples=80)
@given(
    anchors=st.integers(0, 8),
    slots=st.integers(0, 9),
    classes=st.integers(1, 4),
    filled=st.sampled_from([0.0, 0.3, 1.0]),
    temperature=st.sampled_from([0.005, 0.1, 1.0]),
    tile_bytes=st.sampled_from([1, 300, 2**20]),
    bounded=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_info_nce(anchors, slots, classes, filled, temperature, tile_bytes, bounded, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchor_rows = rows(anchors, 5, generator=generator).requires_grad_()
    labels = torch.randint(0, classes, (anchors,), generator=generator)
    keys = rows(slots, classes, 5, generator=generator)
    valid = torch.rand(slots, classes, generator=generator) < filled
    keys[~valid] = 0  # as a bank holds them
    fixed = {"temperature": temperature, "base_temperature": 0.07}
    expected = info_nce(anchor_rows, labels, *flat(keys, valid), **fixed)
    most = int(torch.bincount(labels, minlength=1).max()) if bounded else None
    result = info_nce_by_class(anchor_rows, labels, keys, valid, **fixed, most_per_class=most, tile_bytes=tile_bytes)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(result, anchor_rows)[0],
        torch.autograd.grad(expected, anchor_rows)[0],
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("temperature", [0.003, 0.1])
def test_float32_with_autocast(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    anchors, labels = rows(40, 8, generator=generator), torch.arange(40) % 5
    keys = rows(60, 5, 8, generator=generator)
    valid = torch.ones(60, 5, dtype=torch.bool)
    fixed = {"temperature": temperature, "base_temperature": 0.07}
    exact = info_nce(anchors, labels, *flat(keys, valid), **fixed)
    single = anchors.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = info_nce_by_class(single, labels, keys.float(), valid, **fixed, tile_bytes=4000)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(exact.item(), rel=1e-5)
    result.backward()
    assert single.grad.isfinite().all()


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    anchors = rows(6, 4, generator=generator).requires_grad_()
    keys, valid = rows(5, 3, 4, generator=generator), torch.ones(5, 3, dtype=torch.bool)
    labels = torch.arange(6) % 3
    fixed = {"temperature": 0.2, "base_temperature": 0.07, "tile_bytes": 200}
    assert torch.autograd.gradcheck(lambda a: info_nce_by_class(a, labels, keys, valid, **fixed), (anchors,))


def test_the_similarities_are_never_held_whole() -> None:
    """No tensor that the loss creates is as large as half the anchors x keys matrix."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    generator = torch.Generator().manual_seed(0)
    anchors = rows(64, 4, generator=generator, dtype=torch.float32).requires_grad_()
    keys = rows(2000, 7, 4, generator=generator, dtype=torch.float32)
    fixed = {"temperature": 0.1, "base_temperature": 0.07, "tile_bytes": 2**18, "most_per_class": 10}
    with Watch():
        loss = info_nce_by_class(anchors, torch.arange(64) % 7, keys, torch.ones(2000, 7, dtype=torch.bool), **fixed)
        loss.backward()
    assert largest <= 65 * 2000 * 4  # the similarities to positives, one in seven of all
