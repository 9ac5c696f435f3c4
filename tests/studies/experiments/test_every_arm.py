"""Every arm of every experiment of the repository, run from training to outcome: a tiny network, streets, few steps."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.recipes import merge
from studies.experiments.measures import OUTCOMES
from studies.experiments.protocol import Experiment, arm_params, experiment_names, load_experiment
from studies.experiments.runs import Workplace, code_sha256, data_sha256, run_arm

ROOT = Path(__file__).parents[3]
STREETS = {"train": 12, "val": 2, "test": 2, "height": 64, "width": 96, "seed": 0}  # new classes are drawn from ten
MODEL = {"backbone": "mobilenetv3_small_100", "pretrained": False, "head": "light", "output_stride": None}
QUICK = {("e8", "mean_teacher_contrast")}


def arms() -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        found = [(name, arm) for name in experiment_names() for arm in load_experiment(name).arms]
    return [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in found]


def in_small(experiment: Experiment, arm: str) -> Experiment:
    """The experiment on tiny streets, a tiny network and two iterations, the arm's own settings as they are."""
    ends = "end_fraction" in experiment.arms[arm].method  # a third of the iterations has to be one
    iterations = 6 if ends else 2
    prepare: Any = experiment.params.get("prepare", {})
    few = {"train_images": 4} if "train_images" in prepare.get("options", {}) else {}
    tiny = {
        "prepare": {"dataset": "streets", "root": None, "options": STREETS | few},
        "model": MODEL,
        "train": {
            "iterations": iterations,
            "validate_every": iterations,
            "device": "cpu",
            "precision": "fp32",
            "workers": 0,
            "augment": {"crop": [64, 96]},
        },
        "evaluate": {"resize": None},
    }
    own: dict[str, Any] = {name: dict(config.params) for name, config in experiment.arms.items()}
    for params in own.values():
        merge(params, {"train": {"batch_size": params.get("train", {}).get("batch_size", 8) // 4}})
    changed = {
        name: dataclasses.replace(
            config, params=tiny_over(own[name], tiny), ignore_classes=("sky", "road")[: len(config.ignore_classes)]
        )
        for name, config in experiment.arms.items()
    }
    teacher = experiment.teacher
    if teacher is not None:
        params = tiny_over(dict(teacher.params), tiny)
        teacher = dataclasses.replace(teacher, params=params | {"model": MODEL | {"backbone": "resnet18"}})
    return dataclasses.replace(experiment, arms=changed, teacher=teacher, hold_out_in_turn=())


def tiny_over(params: Any, tiny: Any) -> Any:
    merge(params, tiny)
    return params


@pytest.mark.parametrize(("name", "arm"), arms())
def test_an_arm_runs_from_training_to_its_outcomes(
    name: str, arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("recipes", "studies"):
        shutil.copytree(ROOT / each, tmp_path / each, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    experiment = in_small(load_experiment(name), arm)
    compared = [each for each in experiment.comparisons if arm in (each.method, each.baseline)]
    data = data_sha256(arm_params(experiment, arm).prepare, tmp_path / "runs" / "prepared")
    place = Workplace(tmp_path / "runs" / "x", None, data, code_sha256())
    found = run_arm(experiment, arm, experiment.pairs.first_seed, place)
    assert found["outcomes"].keys() == {each.outcome for each in compared} <= OUTCOMES.keys()
    assert all(isinstance(value, float) for value in found["outcomes"].values())
    assert ("teacher_sha256" in found) == experiment.is_taught(arm)
