"""A whole study in small: real trainings, one look at test, the record and its table, other settings, gradients."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from pipeline.data.datasets.camvid.dataset import CamVid
from pipeline.data.datasets.folder.dataset import Folder
from pipeline.data.datasets.shared.camvid import sequence_of
from pipeline.data.datasets.shared.prepared import Entry, PreparedSplit
from pipeline.layout.branches import methods_of
from serving.contract.errors import UserError
from studies import gradients as study_gradients
from studies import study, table
from studies.record import compact_json

ROOT = Path(__file__).parent.parent.parent
PARAMS = """
prepare: {dataset: streets, options: {train: 6, val: 6, test: 6, height: 64, width: 96, seed: 0}}
model: {pretrained: false}
train:
  {iterations: 4, batch_size: 2, threads: 1, device: cpu, precision: fp32, validate_every: 2, augment: {crop: [64, 96]}}
methods:
  cross_entropy: {loss: cross_entropy}
  pixel_contrast: {loss: pixel_contrast, max_views: 2, embedding_dim: 8}
branches:
  cross_entropy-s0: {method: cross_entropy, loss: cross_entropy, seed: 0}
  pixel_contrast-s0: {method: pixel_contrast, loss: pixel_contrast, seed: 0}
  cross_entropy-s1: {method: cross_entropy, loss: cross_entropy, seed: 1}
  pixel_contrast-s1: {method: pixel_contrast, loss: pixel_contrast, seed: 1}
artifacts: {onnx_fp32: {kind: onnx_fp32}}
targets: {ort_fp32: {artifact: onnx_fp32}}
"""
OVER = """
methods: {heavy: {loss: pixel_contrast, max_views: 2, embedding_dim: 8, weight: 1.0}}
branches:
  cross_entropy-s0: {method: cross_entropy, loss: cross_entropy, seed: 0}
  heavy-s0: {method: heavy, loss: pixel_contrast, seed: 0}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with settings, a recipe and something over it."""
    place = tmp_path_factory.mktemp("study")
    (place / "params.yaml").write_text(PARAMS)
    (place / "recipes").mkdir()
    (place / "recipes" / "tiny.yaml").write_text("# Tiny.\ntrain: {checkpoint: last}\n")
    (place / "over.yaml").write_text(OVER)
    return place


@pytest.fixture
def call(place, monkeypatch, capsys):
    def call(main, *arguments):
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        assert main() == 0
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def runs(place):
    """The study, run by two workers one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for worker in ("0/2", "1/2"):
            patch.setattr(sys, "argv", ["x", "run", "--recipe", "tiny", "--worker", worker])
            study.main()
    return place / "runs" / "study" / "tiny"


@pytest.fixture
def record(place):
    """Where the study's record is written."""
    return place / "docs" / "results" / "tiny.json"


def test_the_workers_share_the_runs(runs, record):
    assert not record.exists(), "the table writes it"
    values = {path.stem: json.loads(path.read_text()) for path in runs.glob("*.json")}
    assert sorted(values) == ["cross_entropy-s0", "cross_entropy-s1", "pixel_contrast-s0", "pixel_contrast-s1"]
    assert all("test" not in run and 0 <= run["val"]["miou"] <= 1 for run in values.values())
    assert values["pixel_contrast-s0"]["training"]["contrast_steps"] == 4  # half an iteration of warm-up is none
    assert values["cross_entropy-s0"]["training"]["contrast_steps"] == 0
    # The confusions by block are all that the intervals see: they must add up to the mIoU beside them.
    total = torch.tensor(list(values["cross_entropy-s0"]["val"]["confusion_by_block"].values())).sum(dim=0).double()
    union = total.sum(dim=0) + total.sum(dim=1) - total.diagonal()
    seen = union > 0
    found = (total.diagonal()[seen] / union[seen]).mean()
    assert float(found) == pytest.approx(values["cross_entropy-s0"]["val"]["miou"], abs=1e-9)


def test_what_is_there_is_not_repeated(runs, call):
    (runs / "pixel_contrast-s1.json").unlink()
    assert call(study.main, "run", "--recipe", "tiny").count("val mIoU") == 1


def test_one_look_at_test_and_the_table(runs, record, call):
    assert call(study.main, "test", "--recipe", "tiny").count("test mIoU") == 4
    assert call(study.main, "test", "--recipe", "tiny") == "", "the test split is looked at once"
    call(study.main, "table", "--recipe", "tiny")
    rows = json.loads(record.read_text())["rows"]
    assert [(row["method"], row["split"]) for row in rows] == [
        (method, split) for split in ("val", "test") for method in ("cross_entropy", "pixel_contrast")
    ]
    mious = [json.loads((runs / f"pixel_contrast-s{seed}.json").read_text())["test"]["miou"] for seed in (0, 1)]
    theirs = [json.loads((runs / f"cross_entropy-s{seed}.json").read_text())["test"]["miou"] for seed in (0, 1)]
    assert rows[3]["difference"] == pytest.approx(sum(mious) / 2 - sum(theirs) / 2)
    assert rows[3]["ci95_seeds"][0] <= rows[3]["difference"] <= rows[3]["ci95_seeds"][1]
    text = record.with_suffix(".md").read_text()
    assert "Written by `python -m studies.study table --recipe tiny`. Single scale" in text
    assert "## test" in text and f"| pixel_contrast | 0, 1 | {100 * rows[3]['mean']:.2f}" in text


def test_the_record_alone_gives_the_same_table_and_counts_as_run(runs, record, call, place):
    """As in a clone: the record is committed, what lies under runs/ is not."""
    call(study.main, "test", "--recipe", "tiny")
    call(study.main, "table", "--recipe", "tiny")
    written = [record.read_bytes(), record.with_suffix(".md").read_bytes()]
    assert len(record.read_text().splitlines()) < 300, "a line per confusion matrix at most, and none per number"
    kept = {(run["method"], run["seed"]): run for run in json.loads(record.read_text())["runs"]}
    assert kept["pixel_contrast", 1] == json.loads((runs / "pixel_contrast-s1.json").read_text())
    aside = place / "aside"
    aside.mkdir()
    for path in runs.glob("*.json"):
        path.rename(aside / path.name)
    try:
        record.with_suffix(".md").unlink()
        call(study.main, "table", "--recipe", "tiny")
        assert [record.read_bytes(), record.with_suffix(".md").read_bytes()] == written
        assert call(study.main, "run", "--recipe", "tiny") == "", "nothing is trained again"
        assert call(study.main, "test", "--recipe", "tiny") == "", "nor looked at again"
    finally:
        for path in aside.glob("*.json"):
            path.rename(runs / path.name)


def test_runs_of_other_settings_are_refused_before_anything_trains(runs, record, call, place):
    call(study.main, "table", "--recipe", "tiny")
    recipe = place / "recipes" / "tiny.yaml"
    before = recipe.read_text()
    recipe.write_text(before + "methods: {pixel_contrast: {weight: 0.5}}\n")
    try:
        with pytest.raises(
            UserError, match=r"other settings.*: pixel_contrast-s0, pixel_contrast-s1; to run them anew"
        ):
            call(study.main, "run", "--recipe", "tiny")
    finally:
        recipe.write_text(before)


def test_json_spends_a_line_where_it_is_worth_one():
    value = {"b": [[[{"deep": list(range(100))}]]], "a": {"short": None}, "many": list(range(200))}
    text = compact_json(value)
    assert json.loads(text) == value
    assert [line.strip()[:9] for line in text.splitlines()] == [
        "{", '"a": {"sh', '"b": [', "[", "[", '{"deep": ', "]", "]", "],", '"many": [', "}"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="Out of range"):
        compact_json({"nan": float("nan")})


def test_blocks_are_ten_seconds_of_a_recording_whatever_the_rate_of_its_frames(tmp_path):
    def split(dataset, names, sequence):
        entries = tuple(Entry(name, "", "", "", "", 1, 1, sequence(name)) for name in names)
        return PreparedSplit(dataset, tmp_path, entries)

    camvid = CamVid(tmp_path, {})
    sparse = split(camvid, [f"0001TP_{8550 + 30 * index:06}" for index in range(25)], sequence_of)
    dense = split(camvid, [f"0016E5_{7959 + 2 * index:05}" for index in range(101)], sequence_of)
    assert [study.blocks(sparse).count(f"0001TP/{number}") for number in (28, 29, 30)] == [5, 10, 10]
    assert sorted(set(study.blocks(dense))) == ["0016E5/26", "0016E5/27"], "6.7 seconds"
    # Without times a recording stays whole, and images of none stand for themselves.
    folder = Folder(tmp_path, {"sequence_pattern": r"^(\w)_"})
    assert study.blocks(split(folder, ["a_1", "a_2", "b_1"], lambda name: name[0])) == ["a", "a", "b"]
    assert study.blocks(split(folder, ["1", "2"], lambda name: None)) == ["1", "2"]


def test_too_few_blocks_give_no_interval_over_images():
    def run(miou, blocks):
        confusion = [[8, 2], [round(10 - 10 * miou), round(10 * miou)]]
        split = {"miou": miou, "boundary_iou": miou, "iou_per_class": [miou, miou]}
        split["confusion_by_block"] = {str(block): confusion for block in range(blocks)}
        return {"test": split, "training": {"contrast_steps": 0, "mean_anchors": 0.0, "seconds": 1.0}}

    for blocks, there in ((4, False), (5, True)):
        runs = {"base": {0: run(0.5, blocks)}, "other": {0: run(0.7, blocks)}}
        row = table.beside_baseline(runs, "other", "base", "test")
        assert (row["ci95_frames"] is not None) == there and row["blocks"] == blocks
        text = table._row(row | {"mean_anchors": 0.0})
        assert ("none (4 of 5 blocks needed)" in text) != there and ("(5 blocks)" in text) == there


@pytest.mark.slow
@pytest.mark.parametrize("over", [[], ["--over", "studies/contrast.yaml"]], ids=["camvid-cpu", "camvid-cpu-contrast"])
def test_the_committed_tables_come_from_the_committed_records(tmp_path, monkeypatch, over):
    for name in ("params.yaml", "recipes", "studies", "docs/results"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    name = study.study_name("camvid-cpu", Path(over[1]) if over else None)
    (tmp_path / "docs" / "results" / f"{name}.md").unlink()
    monkeypatch.setattr(sys, "argv", ["x", "table", "--recipe", "camvid-cpu", *over])
    assert study.main() == 0
    for ending in (".json", ".md"):
        path = Path("docs", "results", f"{name}{ending}")
        assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes()


def test_other_settings_are_a_study_of_their_own_that_takes_over_equal_runs(place, runs, call):
    said = call(study.main, "run", "--recipe", "tiny", "--over", "over.yaml")
    folder = runs.with_name("tiny-over")
    assert said.count("val mIoU") == 1 and "heavy-s0" in said, "the baseline is the same run"
    baseline = json.loads((folder / "cross_entropy-s0.json").read_text())
    assert baseline["val"] == json.loads((runs / "cross_entropy-s0.json").read_text())["val"] and "test" not in baseline
    assert json.loads((folder / "heavy-s0.json").read_text())["settings"]["weight"] == 1.0
    # With another schedule nothing is the same run.
    (place / "over.yaml").write_text(OVER + "train: {iterations: 2}\n")
    with pytest.raises(UserError, match="cross_entropy-s0, heavy-s0"):
        call(study.main, "run", "--recipe", "tiny", "--over", "over.yaml")
    shutil.rmtree(folder)
    assert call(study.main, "run", "--recipe", "tiny", "--over", "over.yaml").count("val mIoU") == 2


def test_the_baseline_is_always_among_the_methods(place, monkeypatch):
    monkeypatch.chdir(place)
    branches = study.study_params("tiny", ["pixel_contrast"], [3]).branches
    assert list(branches) == ["cross_entropy-s3", "pixel_contrast-s3"]
    both = ["pixel_contrast", "cross_entropy"]
    assert methods_of(study.study_params("tiny", both, None).branches) == both


def test_gradients_of_the_runs(runs, record, call):
    said = call(study_gradients.main, "--recipe", "tiny", "--batches", "2")
    (first, second) = json.loads((record.with_name("tiny-gradients.json")).read_text())["rows"]
    assert (first["method"], first["seed"], second["seed"]) == ("pixel_contrast", 0, 1), "the baseline has none"
    assert first["ratio"] > 0 and -1 <= first["cosine"] <= 1 and 0 < first["through"] <= 1
    assert "pixel_contrast-s1: ratio" in said


def test_gradients_beside_each_other_by_hand():
    found = study_gradients.compare(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0]))
    assert found == {
        "ratio": pytest.approx(2**0.5 / 2),
        "cosine": pytest.approx(2**-0.5),
        "through": pytest.approx(2 / 3),
    }


def test_methods_and_seeds_that_are_none_are_all_named(call, place):
    with pytest.raises(UserError) as error:
        call(study.main, "run", "--recipe", "tiny", "--methods", "contrst", "nosuch", "--seeds", "-1")
    told = str(error.value).splitlines()
    assert [line.split(";")[0] for line in told] == [
        "--methods: 'contrst' is not in the section methods",
        "--methods: 'nosuch' is not in the section methods",
        "--seeds: expected at least 0, got -1",
    ]


@pytest.mark.parametrize("worker", ["2/2", "1", "a/b", "-1/2"])
def test_a_worker_that_is_none(call, worker):
    with pytest.raises(UserError, match="expected K/N"):
        call(study.main, "run", "--recipe", "tiny", f"--worker={worker}")


def test_a_table_of_nothing(place, call):
    with pytest.raises(UserError, match=r"nothing\.yaml: no such file"):
        call(study.main, "table", "--recipe", "tiny", "--over", "nothing.yaml")
    (place / "empty.yaml").write_text("{}")
    with pytest.raises(UserError, match="no runs"):
        call(study.main, "table", "--recipe", "tiny", "--over", "empty.yaml")
