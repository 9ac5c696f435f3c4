"""The rules of others judge as their sources say, on the boundary too."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.peers import damages


def outputs(logits: np.ndarray, mask: np.ndarray | None = None) -> dict[str, np.ndarray]:
    return {"logits": logits, "mask": logits.argmax(1).astype(np.uint8) if mask is None else mask}


@pytest.fixture
def expected() -> dict[str, np.ndarray]:
    return outputs(np.random.default_rng(0).normal(0, 3, (1, 4, 10, 20)).astype(np.float32))


def wrong_in(expected: dict[str, np.ndarray], pixels: int) -> np.ndarray:
    mask = expected["mask"].copy()
    mask.flat[:pixels] = (mask.flat[:pixels] + 1) % 4
    return mask


def test_all_rules_pass_what_is_equal(expected):
    assert all(rule(expected, expected) for rule, _ in damages.RULES.values())


@pytest.mark.parametrize(("pixels", "passes"), [(2, True), (3, False)])
def test_agreement_is_of_99_percent(expected, pixels, passes):
    found = outputs(expected["logits"], wrong_in(expected, pixels))
    assert damages.agreement(found, expected) is passes
    assert damages.lightly(found, expected) is passes
    assert damages.tutorial(found, expected)


@pytest.mark.parametrize(
    ("factor", "lightly", "tutorial"), [(1.0005, True, True), (1.05, True, False), (1.2, False, False)]
)
def test_tolerances_are_those_of_the_sources(expected, factor, lightly, tutorial):
    found = outputs(expected["logits"] * np.float32(factor))
    assert damages.lightly(found, expected) is lightly
    assert damages.tutorial(found, expected) is tutorial
    assert damages.agreement(found, expected)


def test_what_cannot_be_run_is_caught(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"not an ONNX file")
    with pytest.raises(Exception, match=r"parse|decode|pars"):
        damages._exposed(file)
    assert damages._outputs(file, np.zeros((32, 32, 3), np.uint8)) is None
