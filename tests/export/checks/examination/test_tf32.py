"""TensorFloat-32, emulated: what its bits are, which operators it touches, and what it costs a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from export.checks.examination.deviation import measure_deviation
from export.checks.examination.tf32 import round_to_tf32, tf32_products
from serving.contract.limits import FP32, TF32


def test_ten_bits_of_mantissa_stay():
    generator = np.random.default_rng(0)
    wide = generator.normal(size=10_000) * 10.0 ** generator.integers(-20, 20, 10_000)
    values = torch.from_numpy(wide.astype(np.float32))
    mantissa, exponent = np.frexp(values.double().numpy())
    expected = np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)  # of which the first bit is always one
    assert np.array_equal(round_to_tf32(values).double().numpy(), expected)
    ties = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11])
    assert round_to_tf32(ties).tolist() == [1.0, 1 + 2**-9, -1.0]
    special = torch.tensor([float("inf"), -float("inf"), 0.0, -0.0])
    assert torch.equal(round_to_tf32(special), special) and round_to_tf32(torch.tensor(float("nan"))).isnan()
    assert round_to_tf32(torch.tensor(1 / 3, dtype=torch.float64)) == torch.tensor(1 / 3, dtype=torch.float64)


@pytest.mark.parametrize(
    "product",
    [
        lambda a, b: F.conv2d(a[None, None], b[None, None]),
        lambda a, b: F.conv_transpose2d(a[None, None], b[None, None]),
        lambda a, b: F.linear(a, b, torch.zeros(6)),
        lambda a, b: a @ b.T,
        lambda a, b: torch.bmm(a[None], b.T[None]),
        lambda a, b: torch.einsum("ij,kj->ik", a, b),
    ],
    ids=["conv2d", "conv_transpose2d", "linear", "matmul", "bmm", "einsum"],
)
@pytest.mark.parametrize("inference", [False, True])
def test_every_product_takes_its_factors_rounded(product, inference):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 6, generator=generator) for _ in range(2))
    with torch.inference_mode(inference), tf32_products():
        found = product(a, b)
    assert torch.equal(found, product(round_to_tf32(a), round_to_tf32(b)))
    assert not torch.equal(found, product(a, b))


def test_nothing_else_is_rounded():
    values = torch.tensor([1 / 3])
    with tf32_products():
        assert torch.equal(values + values, torch.tensor([2 / 3])) and torch.equal(values * 3, torch.tensor([1.0]))


def test_an_engine_in_tensorfloat_32_is_beyond_the_limits_of_single_precision(reference, prepared):
    images = np.stack([prepared.split("val").read_image(0)[:64, :96]])
    expected = reference.logits(images)
    with tf32_products():
        found = reference.logits(images)
    comparison = measure_deviation(
        "image", expected, found.argmax(axis=1).astype(np.uint8), found, tolerance=FP32.max_logit_error
    )
    assert FP32.max_logit_error < comparison.error < TF32.max_logit_error
    assert reference.rounding_error(images, "tf32") == pytest.approx(comparison.error)
    assert reference.rounding_error(images, "tf32") < reference.rounding_error(images, "bf16")
