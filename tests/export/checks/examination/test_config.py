"""Section `verify`."""

from __future__ import annotations

import pytest

from export.checks.examination.config import VerifyConfig
from export.report.config import GateConfig
from serving.contract.schema import Problems, build


def test_the_defaults_have_limits_for_every_precision_that_the_gate_has():
    config = VerifyConfig()
    assert set(config.max_logit_error) == set(config.max_disagreement) == set(GateConfig().max_miou_drop_points)
    assert config.max_logit_error["fp32"] == 1e-4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": 0}, "images: expected at least 1, got 0"),
        ({"max_logit_error": {"fp32": -1}}, "max_logit_error.fp32: expected at least 0, got -1"),
        ({"max_disagreement": {"int8": -0.1}}, "max_disagreement.int8: expected at least 0"),
        ({"resamples": 10}, "resamples: expected at least 100"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"max_side": 8}, "max_side: expected at least 64"),
        ({"image": 3}, "unknown key; did you mean 'images'?"),
    ],
)
def test_mistakes_are_named(values, message):
    problems = Problems()
    assert build(VerifyConfig, values, "verify", problems) is None
    assert message in "\n".join(problems)
