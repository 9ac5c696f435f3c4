"""Charts of the evidence: what is drawn apart is told apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.report.charts import latency_ecdf
from export.report.evidence.gathering import Evidence
from export.report.evidence.samples import LatencySamples
from export.report.report import build_report
from tests.export.report.test_report import inputs


def test_every_target_has_a_line_of_its_own():
    targets = [f"target_{index}" for index in range(8)]
    samples = LatencySamples({("pixel_contrast-s0", target): np.array([1.0, 2.0]) for target in targets}, {})
    figure = latency_ecdf(build_report(inputs()), Evidence((), (), samples=samples))
    assert figure is not None
    drawn: list[Any] = list(figure.axes[0].lines)
    patterns = [line._unscaled_dash_pattern for line in drawn]
    assert len(patterns) == len(targets) == len(set(map(repr, patterns)))
    legend = figure.axes[0].get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()][-8:] == targets
