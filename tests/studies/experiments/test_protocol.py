"""What an experiment's file may hold, and what each arm of it trains with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from serving.contract.errors import UserError
from studies.experiments.protocol import (
    arm_params,
    best_only,
    experiment_names,
    load_experiment,
    path_of,
    teacher_params,
    trainable_arms,
)
from studies.experiments.runs import settings_sha256

ROOT = Path(__file__).parents[3]
WRONG = {
    "arms": {"a b": {"method": {"loss": "cross_entropy"}}, "a": {"method": {"loss": "cross_entropy"}}},
    "comparisons": [
        {"name": "x", "outcome": "miou", "method": "a", "baseline": "bb"},
        {"name": "x", "outcome": "miou", "method": "a", "baseline": "a b"},
    ],
    "pairs": {"planned": 12, "see": 0.6, "at_most": 20},
}


def write(place: Path, **changes: object) -> None:
    path = place / "studies" / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_the_overlays_beside_them_are_no_experiments(place: Path):
    assert experiment_names() == ["tiny"]


def test_everything_that_is_wrong_is_said_at_once(place: Path):
    write(place, **WRONG)
    with pytest.raises(UserError) as refused:
        load_experiment("tiny")
    said = str(refused.value)
    for each in (
        "arms.a b: a part of paths",
        "comparisons, 'x': no arm 'bb'",
        "comparisons: two have the same name",
        "pairs.see: is about the primary comparison: expected one, got 0",
    ):
        assert each in said


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("comparisons", [{"name": "x", "outcome": "mio", "method": "contrast", "baseline": "cross_entropy"}], "'miou'"),
        ("comparisons", [{"name": "x", "outcome": "miou", "method": "contrast", "baseline": "contrast"}], "two arms"),
        (
            "comparisons",
            [{"name": "x", "outcome": "miou", "method": "contrast", "baseline": "cross_entropy", "primary": True}],
            "says what would count",
        ),
        ("comparisons", [], "expected at least one"),
        ("pairs", {"planned": 1}, "at least 2, got 1"),
        ("pairs", {"planned": 12, "see": 0.5}, "both or neither"),
        ("pairs", {"planned": 12, "see": 0.5, "at_most": 12}, "more than the planned 12"),
        ("judged", {"every": 2, "first": 2}, r"first: expected in \[0, 2\), got 2"),
        ("seeds", [1], "unknown key"),
    ],
)
def test_what_makes_no_experiment_is_refused(place: Path, key, value, said):
    write(place, **{key: value})
    with pytest.raises(UserError, match=said):
        load_experiment("tiny")


def test_an_arm_is_merged_over_the_experiment_and_a_pair_settles_the_rest(place: Path):
    (place / "recipes" / "mine.yaml").write_text("# Mine.\ntrain: {iterations: 7, threads: 2, batch_size: 5}\n")
    write(place, recipe="mine", hold_out_in_turn=["x", "y", "z"])
    experiment = load_experiment("tiny")
    baseline, contrast = (arm_params(experiment, arm, 104) for arm in ("cross_entropy", "contrast"))
    assert (baseline.train.iterations, baseline.train.batch_size, contrast.train.batch_size) == (7, 5, 3)
    assert baseline.train.threads == 1, "every run has one thread"
    assert contrast.methods["contrast"].settings.max_views == 2
    options = baseline.prepare.options
    assert (options["train_images"], options["subset_seed"], options["hold_out"]) == (4, 104, "y")
    assert contrast.prepare == baseline.prepare, "the arms of a pair see the same images"
    assert "subset_seed" not in arm_params(experiment, "contrast").prepare.options
    write(place, params={"prepare": {"options": {"train_images": 4, "subset_seed": 1}}})
    assert arm_params(load_experiment("tiny"), "contrast", 104).prepare.options["subset_seed"] == 1


def test_a_confirmation_keeps_the_best_by_name(place: Path):
    rows = [{"outcome": "miou", "method": "contrast", "baseline": "cross_entropy"} | {"name": name} for name in "abc"]
    write(place, comparisons=rows, choose={"studies": ["other"], "best": 2})
    experiment = load_experiment("tiny")
    found = best_only(experiment, {"a": -0.1, "b": 0.5, "c": 0.2, "d": 0.9})
    assert [comparison.name for comparison in found.comparisons] == ["b", "c"]


def test_an_arm_is_taught_by_the_teacher_that_the_experiment_trains_or_by_a_file(place: Path):
    taught = {"loss": "cross_entropy", "teacher": {"weight": 0.5}}
    arms = {"cross_entropy": {"method": {"loss": "cross_entropy"}}, "contrast": {"method": taught}}
    write(place, arms=arms)
    with pytest.raises(UserError, match=r"arms\.contrast: its teacher has no path and the experiment trains none"):
        load_experiment("tiny")
    teacher = {"method": {"loss": "cross_entropy"}, "params": {"train": {"iterations": 3}}, "seed": 4}
    write(place, arms=arms, teacher=teacher, hold_out_in_turn=["x", "y"])
    experiment = load_experiment("tiny")
    untrained = arm_params(experiment, "contrast").methods["contrast"].teacher
    assert untrained is not None and (untrained.weight, untrained.sha256) == (0.5, 64 * "0")
    by = {"path": "somewhere", "sha256": 64 * "a"}
    found = arm_params(experiment, "contrast", 101, taught_by=by).methods["contrast"].teacher
    assert found is not None and (found.path, found.sha256, found.weight) == ("somewhere", 64 * "a", 0.5)
    assert arm_params(experiment, "cross_entropy", 101, taught_by=by).methods["cross_entropy"].teacher is None
    trained, arm = teacher_params(experiment, 101), arm_params(experiment, "contrast", 101)
    assert trained.train.iterations == 3 and arm.train.iterations == 4
    assert trained.prepare == arm.prepare and trained.prepare.options["hold_out"] == "y", "it sees what they see"
    arms["contrast"]["method"] = {"loss": "cross_entropy", "teacher": by}
    write(place, arms=arms, teacher=None)
    own = arm_params(load_experiment("tiny"), "contrast").methods["contrast"].teacher
    assert own is not None and own.path == "somewhere"
    write(place, arms=arms, teacher=teacher)
    with pytest.raises(UserError, match="teacher: no arm learns from it"):
        load_experiment("tiny")


# Of the version that began to collect pairs: they are gone on with as long as these stay.
COLLECTED = {
    "e2": "413439d91d098872",
    "e3": "858253cc3a752f7f",
    "e4": "647b510d94b9c5c4",
    "e5": "3f1e6f4da553fc45",
    "e6": "fc128f8fb6208478",
    "e6-37": "7dcc70cfc800d157",
}


@pytest.mark.parametrize("name", COLLECTED)
def test_pairs_that_an_earlier_version_made_are_gone_on_with(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    experiment = load_experiment(name)
    found = settings_sha256(experiment, trainable_arms(experiment, path_of(name)))
    assert found.startswith(COLLECTED[name]), "its settings, or the code's defaults, are others: the runner refuses it"


def test_every_arm_of_every_experiment_of_the_repository_is_valid(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    names = experiment_names()
    assert {"e3", "e4", "e5", "e7", "e8"} <= set(names)
    protocol = (ROOT / "docs" / "results" / "protocol.md").read_text()
    for name in names:
        experiment = load_experiment(name)
        assert f"`studies/{name}.yaml` | {experiment.pairs.planned} " in protocol, "the page names it, with its pairs"
        assert not [arm for arm, config in experiment.arms.items() if config.needs], "everything can be trained"
        for arm in experiment.arms:
            params = arm_params(experiment, arm)
            assert params.train.checkpoint == "last" and params.train.threads == 1
        if experiment.teacher is not None:
            teacher = teacher_params(experiment)
            assert teacher.train.checkpoint == "last" and teacher.model.backbone != params.model.backbone
