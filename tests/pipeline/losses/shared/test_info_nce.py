"""InfoNCE: the golden vectors, a slow obvious reference, gradients, chunks, precision, degenerate inputs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.losses.shared.info_nce import Selected, info_nce

GOLDEN = np.load(Path(__file__).parents[3] / "golden" / "info_nce.npz")
CASES = [str(name) for name in GOLDEN["case_names"]]


def golden_case(name: str, dtype: torch.dtype) -> tuple[dict[str, Any], float, np.ndarray]:
    def tensor(key: str, dtype: torch.dtype | None = None) -> Tensor | None:
        return torch.tensor(GOLDEN[f"{name}/{key}"], dtype=dtype) if f"{name}/{key}" in GOLDEN.files else None

    arguments = {
        "anchors": tensor("anchors", dtype),
        "anchor_labels": tensor("anchor_labels"),
        "keys": tensor("keys", dtype),
        "key_labels": tensor("key_labels"),
        "temperature": float(GOLDEN[f"{name}/temperature"]),
        "base_temperature": float(GOLDEN[f"{name}/base_temperature"]),
    }
    return arguments, float(GOLDEN[f"{name}/loss"]), GOLDEN[f"{name}/grad"]


def unit_rows(rows: int, dimension: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dimension, generator=generator, dtype=dtype), dim=1)


@pytest.mark.parametrize("chunk_bytes", [1, 4000, 2**24])
@pytest.mark.parametrize("name", CASES)
def test_golden_float64(name: str, chunk_bytes: int) -> None:
    arguments, loss, gradient = golden_case(name, torch.float64)
    anchors = arguments["anchors"].requires_grad_()
    result = info_nce(**arguments, chunk_bytes=chunk_bytes)
    assert result.dtype == torch.float64
    assert abs(result.item() - loss) <= 1e-9 * max(1, abs(loss))
    result.backward()
    np.testing.assert_allclose(anchors.grad.numpy(), gradient, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_golden_float32(name: str) -> None:
    arguments, loss, gradient = golden_case(name, torch.float32)
    anchors = arguments["anchors"].requires_grad_()
    result = info_nce(**arguments)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(loss, rel=1e-4, abs=1e-12)
    result.backward()
    np.testing.assert_allclose(
        anchors.grad.numpy(), gradient, rtol=1e-4, atol=1e-5 * max(1e-12, np.abs(gradient).max())
    )


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 9),
    keys=st.none() | st.integers(0, 11),
    classes=st.integers(1, 4),
    temperature=st.sampled_from([0.01, 0.07, 0.1, 1.0]),
    selected=st.booleans(),
    key_gradient=st.booleans(),
    chunk_bytes=st.sampled_from([1, 200, 2**20]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_slow_reference(
    rows, keys, classes, temperature, selected, key_gradient, chunk_bytes, seed, reference_info_nce
) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = unit_rows(rows, 5, seed).requires_grad_()
    anchor_labels = torch.randint(0, classes, (rows,), generator=generator)
    key_rows = key_labels = None
    if keys is not None:
        key_rows = unit_rows(keys, 5, seed + 1).requires_grad_(key_gradient)
        key_labels = torch.randint(-1, classes, (keys,), generator=generator)
    width = rows if keys is None else keys
    selection = torch.rand(rows, width, generator=generator) < 0.6 if selected else None
    inputs = [anchors] + ([key_rows] if keys is not None and key_gradient else [])
    settings_ = {"temperature": temperature, "base_temperature": 0.07}
    expected = reference_info_nce(anchors, anchor_labels, key_rows, key_labels, **settings_, selection=selection)
    wanted = torch.autograd.grad(expected, inputs, allow_unused=True)
    result = info_nce(
        anchors, anchor_labels, key_rows, key_labels, **settings_, selection=selection, chunk_bytes=chunk_bytes
    )
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-12)
    for got, want in zip(torch.autograd.grad(result, inputs), wanted, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk_bytes", [1, 2**24])
def test_gradcheck_of_the_function(chunk_bytes: int) -> None:
    anchors, keys = unit_rows(6, 4, 0).requires_grad_(), unit_rows(9, 4, 1).requires_grad_()
    labels, key_labels = torch.tensor([0, 1, 2, 0, 3, 1]), torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2])
    fixed = {"temperature": 0.2, "base_temperature": 0.07, "chunk_bytes": chunk_bytes}
    assert torch.autograd.gradcheck(lambda a, k: info_nce(a, labels, k, key_labels, **fixed), (anchors, keys))
    assert torch.autograd.gradcheck(lambda a: info_nce(a, labels, **fixed), (anchors,))


def test_selector_is_asked_for_every_chunk_and_obeyed(reference_info_nce) -> None:
    anchors, keys = unit_rows(7, 4, 0).requires_grad_(), unit_rows(10, 4, 1).requires_grad_()
    labels, key_labels = torch.arange(7) % 3, torch.arange(10) % 3
    mask = torch.rand(7, 10, generator=torch.Generator().manual_seed(2)) < 0.5
    seen: list[Tensor] = []

    def selector(similarities: Tensor, positives: Tensor, negatives: Tensor) -> Selected:
        start = sum(map(len, seen))
        torch.testing.assert_close(similarities, anchors[start : start + len(positives)] @ keys.T / 0.1)
        assert not (positives & negatives).any()
        seen.append(positives)
        everywhere = torch.arange(10).expand(len(positives), 10)
        chosen = mask[start : start + len(positives)]
        # a position that does not count may name a key that counts elsewhere in the row
        return Selected(torch.cat([everywhere, everywhere], 1), torch.cat([chosen, torch.zeros_like(chosen)], 1))

    fixed = {"temperature": 0.1, "base_temperature": 0.07}
    result = info_nce(anchors, labels, keys, key_labels, **fixed, selection=selector, chunk_bytes=3 * 10 * 8)
    assert [len(positives) for positives in seen] == [3, 3, 1]
    expected = reference_info_nce(anchors, labels, keys, key_labels, **fixed, selection=mask)
    torch.testing.assert_close(result, expected)
    got = torch.autograd.grad(result, (anchors, keys))
    for gradient, wanted in zip(got, torch.autograd.grad(expected, (anchors, keys)), strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize(
    ("labels", "key_labels"),
    [
        ([], None),  # no anchor
        ([3], None),  # one anchor, which is no key of itself
        ([0, 1, 2], None),  # one anchor per class
        ([4, 4, 4], None),  # one class only
        ([0, 1], []),  # empty bank
        ([0, 1], [2, 3, 3]),  # nothing of an anchor's class
        ([0, 1], [-1, -1]),  # keys that are none
        ([0, 0], [0, 0, 0]),  # no negatives
    ],
)
def test_degenerate_inputs_give_an_exact_differentiable_zero(labels: list[int], key_labels: list[int] | None) -> None:
    anchors = unit_rows(len(labels), 4, 0, torch.float32).requires_grad_()
    keys = None if key_labels is None else unit_rows(len(key_labels), 4, 1, torch.float32)
    result = info_nce(
        anchors,
        torch.tensor(labels, dtype=torch.int64),
        keys,
        None if key_labels is None else torch.tensor(key_labels, dtype=torch.int64),
        temperature=0.1,
        base_temperature=0.07,
    )
    assert result.item() == 0
    result.backward()
    assert torch.equal(anchors.grad, torch.zeros_like(anchors))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, reference_info_nce) -> None:
    anchors = unit_rows(40, 8, 0).to(dtype).requires_grad_()
    labels = torch.arange(40) % 4
    with torch.autocast("cpu", dtype=dtype):
        result = info_nce(anchors, labels, temperature=0.1, base_temperature=0.07)
    assert result.dtype == torch.float32
    exact = reference_info_nce(anchors.detach().double(), labels, None, None, 0.1, 0.07)
    assert result.item() == pytest.approx(exact.item(), rel=1e-5)
    result.backward()
    assert anchors.grad.dtype == dtype
    assert anchors.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1e-3, 1e-2])
def test_extreme_logits_stay_finite_and_exact(temperature: float, reference_info_nce) -> None:
    anchors = unit_rows(30, 3, 0, torch.float32).requires_grad_()
    labels = torch.arange(30) % 3
    result = info_nce(anchors, labels, temperature=temperature, base_temperature=0.07)
    exact = reference_info_nce(anchors.detach().double(), labels, None, None, temperature, 0.07)
    assert result.item() == pytest.approx(exact.item(), rel=1e-5)
    result.backward()
    assert anchors.grad.isfinite().all()


def test_no_gradient_is_formed_when_none_is_wanted() -> None:
    anchors = unit_rows(6, 4, 0).requires_grad_()
    labels = torch.arange(6) % 2
    with torch.no_grad():
        assert not info_nce(anchors, labels, temperature=0.1, base_temperature=0.07).requires_grad
    keys = unit_rows(6, 4, 1)
    loss = info_nce(anchors, labels, keys, labels, temperature=0.1, base_temperature=0.07)
    loss.backward()
    assert keys.grad is None


def test_bound_of_the_loss_for_unrelated_embeddings() -> None:
    """With all similarities equal every term is log(1 + negatives)."""
    anchors = torch.ones(6, 1, dtype=torch.float64)
    loss = info_nce(anchors, torch.tensor([0, 0, 1, 1, 2, 2]), temperature=0.07, base_temperature=0.07)
    assert loss.item() == pytest.approx(math.log(5))


# torch's own tracing of a custom Function instantiates it
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch 2.11's Dynamo
@pytest.mark.parametrize("with_keys", [False, True])
def test_compiles_without_a_graph_break(with_keys: bool) -> None:
    anchors = unit_rows(12, 4, 0, torch.float32).requires_grad_()
    labels = torch.arange(12) % 3
    keys, key_labels = (unit_rows(9, 4, 1, torch.float32), torch.arange(9) % 3) if with_keys else (None, None)

    def loss(anchors: Tensor) -> Tensor:
        return info_nce(
            anchors, labels, keys, key_labels, temperature=0.1, base_temperature=0.07, chunk_bytes=5 * 4 * 12
        )

    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    (expected,) = torch.autograd.grad(loss(anchors), anchors)
    result = compiled(anchors)
    torch.testing.assert_close(result, loss(anchors))
    torch.testing.assert_close(torch.autograd.grad(result, anchors)[0], expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"anchors": torch.ones(3)}, "expected \\[N,D\\]"),
        ({"anchor_labels": torch.zeros(2, dtype=torch.int64)}, "anchor_labels: expected \\[3\\]"),
        ({"keys": torch.ones(2, 5), "key_labels": torch.zeros(2, dtype=torch.int64)}, "\\[3, 4\\] and \\[2, 5\\]"),
        ({"keys": torch.ones(2, 4)}, "both or neither"),
        ({"keys": torch.ones(2, 4), "key_labels": torch.zeros(3, dtype=torch.int64)}, "key_labels: expected \\[2\\]"),
        ({"temperature": 0.0}, "above 0"),
        ({"selection": torch.ones(3, 2, dtype=torch.bool)}, "selection: expected \\[3,3\\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changed: dict[str, object], message: str) -> None:
    arguments = {
        "anchors": torch.ones(3, 4),
        "anchor_labels": torch.zeros(3, dtype=torch.int64),
        "temperature": 0.1,
        "base_temperature": 0.07,
    }
    with pytest.raises(ValueError, match=message):
        info_nce(**{**arguments, **changed})
