"""What a run is judged by: the curve's second half by hand, the others against what they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.evaluation.evaluation import evaluate
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from serving.contract.errors import UserError
from studies.experiments.measures import OUTCOMES, TrainedRun, measure, second_half_mean
from studies.experiments.protocol import arm_params, load_experiment
from studies.features import part_of, separations


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("measures") / "prepared"
    prepare(PrepareConfig(options={"train": 12, "val": 1, "test": 4, "height": 64, "width": 96, "seed": 0}), folder)
    return load_prepared(folder, None)


@pytest.fixture(scope="module")
def segmentor() -> Segmentor:
    return build_segmentor(ModelConfig(pretrained=False), 11, seed=0).eval()


@pytest.fixture
def finished(place: Path, prepared: Prepared, segmentor: Segmentor) -> TrainedRun:
    """A run with a curve, of a network that was just built."""
    curve = place / "curves" / "plots" / "metrics" / "cross_entropy.tsv"
    curve.parent.mkdir(parents=True)
    curve.write_text("step\tcross_entropy\n1\t3.0\n3\t2.0\n4\t1.0\n")
    params = arm_params(load_experiment("tiny"), "cross_entropy", 100)
    judged = part_of(prepared.split("test"), every=2)
    return TrainedRun(segmentor, prepared, judged, params, place / "curves", 100, ignored=(7, 9))


def test_every_outcome_is_what_it_says(finished: TrainedRun, prepared: Prepared, segmentor: Segmentor):
    found = measure(finished, list(OUTCOMES))
    assert found.keys() == OUTCOMES.keys()
    predict = segmentor_predictor(segmentor, torch.device("cpu"))
    judged = evaluate(predict, finished.judged, 11, 255)
    assert found["miou"] == pytest.approx(100 * judged.miou) and len(judged.names) == 2
    assert found["boundary_iou"] == pytest.approx(100 * judged.boundary_iou)
    separated = separations(segmentor, prepared.split("train"), finished.judged, None)
    assert found["nearest_mean_tap"] == pytest.approx(100 * separated["tap"]["nearest_mean"])
    assert found["nearest_mean_classifier"] == pytest.approx(100 * separated["classifier"]["nearest_mean"])
    # Of four iterations the last two: half of what was reported for the second and third, and the fourth.
    assert found["training_cross_entropy"] == pytest.approx((2.0 + 1.0) / 2)
    assert all(0 <= found[f"new_classes_by_{readout}"] <= 100 for readout in ("mean", "probe"))


def test_only_what_is_wanted_is_measured(finished: TrainedRun):
    assert measure(finished, ["training_cross_entropy"]).keys() == {"training_cross_entropy"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("step\tcross_entropy\n2\t1.0\n", "up to iteration 4"),
        ("step\tcross_entropy\n", "up to iteration 4"),
        ("step\tother\n4\t1.0\n", "expected the curve"),
        (None, "expected the curve"),
    ],
)
def test_a_curve_that_is_not_whole_is_refused(tmp_path: Path, text, said):
    path = tmp_path / "cross_entropy.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=said):
        second_half_mean(path, 4)
