"""A whole experiment in small: real trainings, pairs appended as they end, killed and gone on with, never mixed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from pipeline.training.experiment import train_branch
from serving.contract.errors import UserError
from studies import run
from studies.experiments import runs
from tests.studies.conftest import call_main
from tests.studies.folders import mirror_a_label, street_folder

TEACHER = (
    "teacher: {method: {loss: cross_entropy}, params: {model: {backbone: mobilenetv3_small_100}, "
    "train: {iterations: 3, validate_every: 3}}}\n"
)
TAUGHT = "contrast: {method: {loss: cross_entropy, teacher: {max_views: 8}}"
RECORD = Path("docs", "results", "studies", "tiny.json")


def record() -> dict[str, Any]:
    return json.loads(RECORD.read_text())


def edit(place: Path, old: str, new: str) -> None:
    path = place / "studies" / "tiny.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "studies.run", "tiny", *arguments]
    return subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_pairs_are_recorded_in_the_form_that_anyone_can_compute_again(call, place):
    said = call("tiny")
    found = record()
    assert found.keys() == {"experiment", "hypothesis", "commit", "comparisons", "provenance"}
    assert found["experiment"] == "E0" and found["hypothesis"].startswith("The contrast changes something.")
    for comparison, unit, primary in zip(found["comparisons"], ("points", "nats"), (True, False), strict=True):
        assert comparison.keys() == {"name", "primary", "unit", "pairs", "difference", "ci95"}
        assert (comparison["unit"], comparison["primary"]) == (unit, primary)
        assert [pair["seed"] for pair in comparison["pairs"]] == [100, 101]
        values = [pair["method"] - pair["baseline"] for pair in comparison["pairs"]]
        assert comparison["difference"] == pytest.approx(sum(values) / 2, abs=1e-4)
        half = stats.t.ppf(0.975, 1) * abs(values[0] - values[1]) / 2
        assert comparison["ci95"] == pytest.approx([sum(values) / 2 - half, sum(values) / 2 + half], abs=2e-4)
        assert all(0 <= pair[side] <= 100 for pair in comparison["pairs"] for side in ("baseline", "method"))
    assert "contrast-s101: miou" in said and "pair 101 appended, 2 of 2" in said
    # The arms of a pair have the same start: the first losses differ by what the arms differ in, and by nothing else.
    prepared = [json.loads(path.read_text()) for path in Path("runs").glob("**/prepared/*/dataset.json")]
    drawn = {content["options"]["subset_seed"]: content["splits"]["train"] for content in prepared}
    assert {seed: len(train) for seed, train in drawn.items()} == {0: 6, 100: 4, 101: 4}
    assert drawn[100] != drawn[101], "each pair draws its own images, and its arms share them"
    assert not list(Path("runs").glob("**/*.safetensors")), "weights are gone when a run has been judged"
    assert call("tiny") == call("tiny", "--plan"), "nothing is left to do"


def interrupted_in_the_second_run(call, monkeypatch, said_of):
    """Call the experiment until its second training starts; what is said of every training, of later calls as well."""
    trained = []
    real = train_branch

    def interrupted(setup, *arguments, **options):
        trained.append(said_of(setup))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(setup, *arguments, **options)

    monkeypatch.setattr(runs, "train_branch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call("tiny")
    return trained


def test_what_was_interrupted_goes_on_and_repeats_nothing(call, place, monkeypatch):
    trained = interrupted_in_the_second_run(call, monkeypatch, lambda setup: (setup.name, setup.seed))
    assert not RECORD.exists(), "half a pair is none"
    call("tiny", "--pairs", "1")
    assert trained == [("cross_entropy", 100), ("contrast", 100), ("contrast", 100)]
    assert [pair["seed"] for pair in record()["comparisons"][0]["pairs"]] == [100]
    assert record()["comparisons"][0]["ci95"] is None, "one pair has no interval"
    before = record()["comparisons"][0]["pairs"][0]
    call("tiny")
    assert trained[3:] == [("cross_entropy", 101), ("contrast", 101)]
    assert record()["comparisons"][0]["pairs"][0] == before


def test_the_arms_of_a_pair_are_trained_on_one_device(call, place, monkeypatch):
    """A run that an earlier call made on another device is made anew, and the record names the device of all arms."""
    trained = interrupted_in_the_second_run(call, monkeypatch, lambda setup: (setup.name, setup.train.precision))
    (outcome,) = Path("runs").glob("**/outcome.json")
    outcome.write_text(outcome.read_text().replace('"CPU"', '"a GPU"'))
    call("tiny", "--pairs", "1")
    assert trained == [("cross_entropy", "fp32"), ("contrast", "fp32")] * 2
    assert [pair["device"] for pair in record()["provenance"]["pairs"]] == ["CPU"]


def test_the_arms_of_a_pair_are_trained_by_the_same_code(call, place, monkeypatch):
    """A run that an earlier call made with other code is made anew, however its commit is called."""
    trained = interrupted_in_the_second_run(call, monkeypatch, lambda setup: setup.name)
    monkeypatch.setattr(run, "code_sha256", lambda: "other code")
    call("tiny", "--pairs", "1")
    assert trained == ["cross_entropy", "contrast"] * 2
    codes = {json.loads(path.read_text())["code"] for path in Path("runs").glob("**/outcome.json")}
    assert codes == {"other code"}


@pytest.mark.parametrize("damage", ["[]", "{}", '{"device": "CPU"}'])
def test_a_run_whose_outcome_is_not_whole_is_made_anew(call, place, monkeypatch, damage):
    trained = interrupted_in_the_second_run(call, monkeypatch, lambda setup: setup.name)
    (outcome,) = Path("runs").glob("**/outcome.json")
    outcome.write_text(damage)
    call("tiny", "--pairs", "1")
    assert trained == ["cross_entropy", "contrast"] * 2


@pytest.fixture
def place_of_a_folder(place: Path) -> Path:
    """A working directory in which one pair of `tiny` has run on a user's folder."""
    street_folder(place / "mine")
    streets = "options: {train: 6, val: 2, test: 4, height: 64, width: 96, seed: 0, train_images: 4}"
    edit(place, streets, "dataset: folder, root: mine, options: {train_images: 4}")
    call_main("tiny", "--pairs", "1")
    return place


def test_files_that_changed_on_disk_are_other_data(call, place_of_a_folder):
    before = RECORD.read_bytes()
    mirror_a_label(place_of_a_folder / "mine", "test")
    with pytest.raises(UserError, match="its 1 pairs were made with other data than tiny has now"):
        call("tiny")
    assert RECORD.read_bytes() == before


def test_files_that_change_while_an_experiment_runs_end_it(call, place_of_a_folder, monkeypatch):
    before, real = RECORD.read_bytes(), train_branch

    def changed(setup, *arguments, **options):
        mirror_a_label(place_of_a_folder / "mine", "test")
        return real(setup, *arguments, **options)

    monkeypatch.setattr(runs, "train_branch", changed)
    with pytest.raises(UserError, match="E0, contrast, seed 101: the dataset's files changed since the experiment was"):
        call("tiny")
    assert RECORD.read_bytes() == before


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *arguments], check=True, capture_output=True)


def test_the_commit_is_clean_where_only_records_changed(call, place):
    RECORD.parent.mkdir(parents=True)
    RECORD.with_name("other.json").write_text("{}")
    git("init")
    git("add", "params.yaml", "studies", "docs")
    git("commit", "-m", "x")
    assert "nobody can check out" not in call("tiny", "--plan")
    RECORD.with_name("other.json").write_text("[]")
    commit = run.commit_of_code()
    assert commit is not None and len(commit) == 40
    edit(place, "E0", "E00")
    assert run.commit_of_code() == f"{commit}-dirty"
    assert f"warning: code differs from its commit; pairs will name {commit}-dirty" in call("tiny", "--plan")


def test_the_record_alone_counts_as_done(call, place_of_one_pair):
    """As in a clone: the record is committed, what lies under runs/ is not."""
    before = RECORD.read_bytes()
    (place_of_one_pair / "runs").rename(place_of_one_pair / "gone")
    assert "1 of 2 pairs" in call("tiny", "--plan")
    assert "s100" not in call("tiny")
    assert json.loads(before)["comparisons"][0]["pairs"][0] == record()["comparisons"][0]["pairs"][0]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("batch_size: 3", "batch_size: 4", "settings"),
        ("first: 1", "first: 0", "settings"),
        ("above: 0", "above: 0.5", "settings"),
        ("planned: 2", "planned: 3", "settings"),
        ("train_images: 4", "train_images: 5", "settings"),
        ("seed: 0, train_images", "seed: 1, train_images", "settings and data"),
    ],
)
def test_another_protocol_or_other_data_are_never_mixed_with_what_is_there(call, place_of_one_pair, old, new, what):
    before = RECORD.read_bytes()
    edit(place_of_one_pair, old, new)
    with pytest.raises(UserError, match=rf"its 1 pairs were made with other {what} than tiny has now; go on from the"):
        call("tiny")
    assert RECORD.read_bytes() == before


def test_words_may_be_mended(call, place_of_one_pair):
    edit(place_of_one_pair, "hypothesis: The contrast", "hypothesis: A contrast")
    call("tiny", "--plan")


@pytest.mark.slow
def test_two_processes_share_the_pairs_and_a_killed_one_leaves_its_pair_to_the_next(place):
    edit(place, "planned: 2", "planned: 3")
    killed = start(place)
    folder = place / "runs" / "experiments" / "tiny"
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/cross_entropy-s100/trainee.json")) and time.monotonic() < deadline:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    both = [start(place), start(place)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    ran = [line.partition(":")[0] for out, _ in said for line in out.splitlines() if "CPU minutes)" in line]
    assert sorted(ran) == sorted(f"{arm}-s{seed}" for arm in ("contrast", "cross_entropy") for seed in (100, 101, 102))
    found = json.loads((place / RECORD).read_text())
    assert [pair["seed"] for pair in found["comparisons"][0]["pairs"]] == [100, 101, 102]


def test_an_arm_that_waits_for_a_feature_is_refused_in_one_line(call, place):
    arms = """arms:
  averaged: {method: {loss: cross_entropy}, params: {train: {no_such_key: 1}}, needs: weight averaging}
  distilled: {method: {loss: no_such_loss}, needs: distillation}
  unused: {method: {loss: nothing}}
"""
    edit(place, "arms:\n", arms)
    edit(place, "pairs:", "  - {name: a, outcome: miou, method: averaged, baseline: distilled}\npairs:")
    with pytest.raises(UserError) as refused:
        call("tiny")
    assert str(refused.value) == (
        f"{Path('studies', 'tiny.yaml')}: cannot run yet, arms wait for: weight averaging (averaged); "
        "distillation (distilled)"
    )
    # What needs nothing and is wrong is wrong; what can be trained after all is not waited for.
    edit(place, "needs: weight averaging", "needs: ''")
    with pytest.raises(UserError, match=r"arm averaged: train\.no_such_key: unknown key"):
        call("tiny")
    edit(place, "params: {train: {no_such_key: 1}}, needs: ''", "needs: weight averaging")
    edit(place, "loss: no_such_loss", "loss: cross_entropy")
    assert "0 of 2 pairs" in call("tiny", "--plan")


def test_a_teacher_is_trained_once_for_what_the_arms_see_and_named_in_the_record(call, place):
    edit(place, ", train_images: 4", "")  # every pair sees the same images
    edit(place, "contrast: {method: {loss: pixel_contrast, max_views: 2, embedding_dim: 8}", TAUGHT)
    edit(place, "arms:", f"{TEACHER}arms:")
    assert "first a teacher, mobilenetv3_small_100, 3 iterations, where it is not there yet" in call("tiny", "--plan")
    assert call("tiny", "--pairs", "1").count("the teacher, mIoU on val") == 1
    (folder,) = Path("runs/experiments/tiny").glob("*/teachers/*/stripped")
    weights = folder / "segmentor.safetensors"
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert not list(folder.parent.glob("training/*.safetensors")), "only what was stripped of it stays"
    weights.rename(folder / "kept")
    weights.write_bytes(b"something else")
    with pytest.raises(UserError, match=f"expected {sha256}: it is another teacher"):
        call("tiny")
    (folder / "kept").replace(weights)
    assert "teacher" not in call("tiny").partition("yet for")[2], "it is there"
    assert [pair["teachers"] for pair in record()["provenance"]["pairs"]] == [{"contrast": sha256}] * 2
    assert "teacher" not in call("tiny", "--plan"), "nothing is left to do"


def test_runs_of_other_settings_are_said_to_be_left(call, place_of_one_pair):
    assert "are left" not in call("tiny", "--plan")
    RECORD.unlink()
    edit(place_of_one_pair, "batch_size: 3", "batch_size: 4")
    (folder,) = Path("runs/experiments/tiny").glob("*-*")
    expected = f"{folder}: 2 finished runs with other settings than now; they are left, and run anew here"
    assert expected in call("tiny", "--plan").splitlines()


@pytest.mark.slow
def test_a_confirmation_takes_the_best_of_the_experiment_that_chooses(call, place):
    edit(place, "pairs:", "  - {name: worse, outcome: miou, method: cross_entropy, baseline: contrast}\npairs:")
    confirmation = (place / "studies" / "tiny.yaml").read_text().replace("name: training", "name: other")
    confirmation = confirmation.replace("planned: 2", "planned: 2, first_seed: 200") + "choose: {studies: [tiny]}\n"
    (place / "studies" / "confirmation.yaml").write_text(confirmation)
    with pytest.raises(UserError, match=r"confirmation\.yaml: confirms what .*tiny\.yaml choose, whose"):
        call("confirmation")
    call("tiny")
    difference = record()["comparisons"][0]["difference"]
    call("confirmation", "--pairs", "1")
    (chosen,) = json.loads(RECORD.with_name("confirmation.json").read_text())["comparisons"]
    assert chosen["name"] == ("test mIoU" if difference >= 0 else "worse")
    assert [pair["seed"] for pair in chosen["pairs"]] == [200]


@pytest.mark.slow
def test_pairs_are_added_by_the_deviation_of_the_planned_ones(call, place):
    edit(place, "planned: 2", "planned: 2, see: 1.0e-9, at_most: 3")
    edit(place, "outcome: miou", "outcome: training_cross_entropy")
    assert "0 of 2 pairs" in call("tiny", "--plan")
    call("tiny")
    assert [pair["seed"] for pair in record()["comparisons"][0]["pairs"]] == [100, 101, 102]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tine"], r"no experiment 'tine'; did you mean 'tiny'\?"),
        (["overlay"], r"no experiment 'overlay'; known: tiny"),
        (["tiny", "--pairs", "0"], "--pairs: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_run_is_refused(call, arguments, said):
    with pytest.raises(UserError, match=said):
        call(*arguments)
