"""One run: classes ignored in training only, settings hashed with their defaults, data prepared once."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from serving.contract.errors import UserError
from studies.experiments import runs
from studies.experiments.protocol import Judged, load_experiment, trainable_arms
from studies.experiments.runs import (
    class_indices,
    code_sha256,
    data_sha256,
    open_prepared,
    settings_sha256,
    without_classes,
)
from tests.studies.folders import mirror_a_label, street_folder

STREETS = {"train": 4, "val": 2, "test": 2, "height": 64, "width": 96, "seed": 0}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("runs") / "prepared"
    prepare(PrepareConfig(options=STREETS), folder)
    return load_prepared(folder, None)


def test_classes_are_ignored_in_train_and_nowhere_else(prepared: Prepared):
    ignored = class_indices(prepared, ["sky", "road"])
    without = without_classes(prepared, ignored)
    for index in range(4):
        label, changed = prepared.split("train").read_label(index), without.split("train").read_label(index)
        expected = np.where(np.isin(label, ignored), 255, label)
        assert (changed == expected).all() and (label != changed).any()
        assert (prepared.split("train").read_image(index) == without.split("train").read_image(index)).all()
    for split in ("val", "test"):
        assert (prepared.split(split).read_label(0) == without.split(split).read_label(0)).all()
    assert [without.class_pixels["train"][index] for index in ignored] == [0, 0]
    assert sum(without.class_frequencies) == pytest.approx(1)
    assert without.sha256 != prepared.sha256, "what was trained on is told apart"
    assert without_classes(prepared, ()) is prepared
    with pytest.raises(UserError, match=r"no class 'rode'; did you mean 'road'\?\n.*no class 'xyz'; known: "):
        class_indices(prepared, ["rode", "xyz"])


def test_settings_are_hashed_with_the_defaults_of_the_code(place: Path, monkeypatch: pytest.MonkeyPatch):
    experiment = load_experiment("tiny")
    arms = trainable_arms(experiment, Path("x"))
    before = settings_sha256(experiment, arms)
    assert settings_sha256(load_experiment("tiny"), trainable_arms(experiment, Path("x"))) == before
    changed = dataclasses.replace(arms["contrast"].methods["contrast"].settings, temperature=0.2)
    method = dataclasses.replace(arms["contrast"].methods["contrast"], settings=changed)
    other = dict(arms) | {"contrast": dataclasses.replace(arms["contrast"], methods={"contrast": method})}
    assert settings_sha256(experiment, other) != before, "a default that changes in the code is another setting"


def test_a_setting_that_the_code_gains_and_that_is_off_is_no_other_setting(place: Path):
    @dataclass(frozen=True)
    class Gained(Judged):
        later: float | None = None

    experiment = load_experiment("tiny")
    arms = trainable_arms(experiment, Path("x"))
    before = settings_sha256(experiment, arms)
    judged = dataclasses.asdict(experiment.judged)
    assert settings_sha256(dataclasses.replace(experiment, judged=Gained(**judged)), arms) == before
    assert settings_sha256(dataclasses.replace(experiment, judged=Gained(**judged, later=1.0)), arms) != before


def test_data_are_told_by_their_files_whatever_part_is_trained_on(tmp_path: Path):
    whole = data_sha256(PrepareConfig(options=STREETS), tmp_path)
    assert data_sha256(PrepareConfig(options=STREETS | {"train_images": 2, "subset_seed": 3}), tmp_path) == whole
    assert data_sha256(PrepareConfig(options=STREETS | {"seed": 1}), tmp_path) != whole


def test_a_dataset_is_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = open_prepared(PrepareConfig(options=STREETS), tmp_path)
    monkeypatch.setattr(runs, "prepare", None)
    assert open_prepared(PrepareConfig(options=STREETS), tmp_path).sha256 == first.sha256
    (content,) = tmp_path.glob("*/dataset.json")
    assert json.loads(content.read_text())["sha256"] == first.sha256


def test_other_files_are_another_dataset_though_it_was_prepared_before(tmp_path: Path):
    street_folder(tmp_path / "mine")
    config = PrepareConfig(dataset="folder", root=str(tmp_path / "mine"))
    before = data_sha256(config, tmp_path / "prepared")
    assert data_sha256(config, tmp_path / "prepared") == before
    mirror_a_label(tmp_path / "mine")
    assert data_sha256(config, tmp_path / "prepared") != before, "size and time of the file are those of before"


def test_code_that_trains_is_told_apart(monkeypatch: pytest.MonkeyPatch):
    before = code_sha256()
    assert code_sha256() == before and len(before) == 64
    monkeypatch.setattr(runs, "CODE", ("pipeline", "serving"))
    without = code_sha256()
    monkeypatch.setattr(runs, "PACKAGES", ("numpy",))
    assert len({before, without, code_sha256()}) == 3


@pytest.mark.usefixtures("place")
def test_an_outcome_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(runs, "measure", lambda run, wanted: dict.fromkeys(wanted, float("nan")))
    experiment = load_experiment("tiny")
    arms = trainable_arms(experiment, Path("x"))
    data = data_sha256(arms["cross_entropy"].prepare, tmp_path / "runs" / "prepared")
    with pytest.raises(UserError, match="E0, cross_entropy, seed 100: no number came out for miou, training_cross_ent"):
        runs.run_arm(experiment, "cross_entropy", 100, runs.Workplace(tmp_path / "runs" / "x", None, data, "code"))
    assert not list(tmp_path.glob("runs/**/outcome.json"))
