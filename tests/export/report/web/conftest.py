"""A page of the golden report with real evidence: drawn images, embeddings, samples and evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.report.charts import charts
from export.report.config import GateConfig
from export.report.evidence.embeddings import project_embeddings
from export.report.evidence.gathering import Evidence
from export.report.evidence.pictures import draw_pictures
from export.report.evidence.reliability import reliability
from export.report.evidence.samples import LatencySamples
from export.report.gate import judge
from export.report.plots import plots
from export.report.report import build_report
from export.report.web.page import html_page
from pipeline.evaluation.accuracy import PairedAccuracy
from pipeline.evaluation.evaluation import evaluate
from pipeline.models.network.weights import save_tensors
from serving.engines.predictor import Predictor, Segmentation
from tests.export.report.test_report import inputs

HOSTILE = "<script>alert(1)</script>|`x`"


def mask_of(engine):
    """An engine's mask alone."""
    return lambda image: engine(image).mask


@pytest.fixture(scope="session")
def evidence(exported, stripped, prepared, tmp_path_factory) -> Evidence:
    """All parts of it, of the small network against a baseline that says one class."""
    split = prepared.split("val")
    with Predictor(exported, options={"threads": 1}) as predictor:

        def real(image):
            mask = predictor.predict(image)
            return Segmentation(mask, np.full(mask.shape, 230, np.uint8))

        def plain(image):
            return Segmentation(np.zeros(image.shape[:2], np.uint8))

        evaluations = [evaluate(mask_of(engine), split, prepared.num_classes, 255) for engine in (plain, real)]
        pictures = draw_pictures(prepared, split, (evaluations[0], evaluations[1]), (plain, real), count=1)
    baseline, other = evaluations
    accuracy = PairedAccuracy(
        (0,),
        baseline.confusions[None].astype(np.int64),
        other.confusions[None].astype(np.int64),
        prepared.class_names,
        None,
        baseline.boundary[None],
        other.boundary[None],
    )
    trained = tmp_path_factory.mktemp("trained")
    save_tensors({}, trained / "best.safetensors")
    generator = np.random.default_rng(0)
    return Evidence(
        prepared.class_names,
        prepared.palette,
        samples=LatencySamples(
            {("pixel_contrast-s0", "ort_fp32"): generator.gamma(9, 1, 80)},
            {"control": generator.normal(1, 0.02, 80), "pixel_contrast": generator.normal(1, 0.02, 80)},
        ),
        accuracies={"pixel_contrast": accuracy},
        pictures=pictures,
        embeddings={"pixel_contrast": project_embeddings(trained, stripped, "best", split)},
        reliability=reliability(pictures.confidences, prepared.ignore_index),
        asked={"logits": "How far are the logits from PyTorch's on real images?"},
        missing={"embeddings of contextrast": "no such file"},
    )


@pytest.fixture(scope="session")
def html(evidence) -> str:
    """report.html, with a hostile name in it."""
    training = {(HOSTILE, 0): {"contrast_steps": 1, "mean_anchors": 1, "miou": 0.5}}
    report = build_report(inputs(training=training))
    figures = plots(report) | charts(report, evidence)
    return html_page(report, evidence, judge(report, GateConfig()), figures)


@pytest.fixture(scope="session")
def page_path(html, tmp_path_factory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path
