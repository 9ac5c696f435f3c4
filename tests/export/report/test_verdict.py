"""The verdict: green only when everything is known and good."""

from __future__ import annotations

import copy

import pytest

from export.report.config import GateConfig
from export.report.gate import judge
from export.report.report import build_report
from export.report.verdict import seeds_note, verdict
from tests.export.report.test_report import inputs


@pytest.fixture
def report():
    """The golden report."""
    return copy.deepcopy(build_report(inputs()))


def judged(report):
    return verdict(report, judge(report, GateConfig(max_miou_drop_points={})))


def tile(report, name):
    (found,) = (each for each in judged(report).tiles if each.name.startswith(name))
    return found


def of_profile(report, profile):
    """As where everything was measured with it."""
    report["profile"] = report["benchmark"]["profile"] = report["certificate"]["profile"] = profile
    return report


def good(report):
    """Nothing failed, and the measurement was a long one."""
    report["targets"] = [row for row in report["targets"] if row["status"] == "ok"]
    report["checks"] = [check | {"status": "pass"} for check in report["checks"]]
    for row in report["benchmark"]["targets"]:
        row["complete"] = row["stable"] = True
    report["benchmark"]["self_test"] = [
        {"passed": True, "tolerance": 0.05, "expected_ms": 1, "measured_ms": 1.0, "deviation": 0.0}
    ]
    for entry in report["certificate"]["methods"].values():
        entry["verdict"] = entry["latency"]["verdict"] = entry["structure"]["verdict"] = "pass"
    of_profile(report, "release")
    report["dataset"]["warnings"] = []
    return report


def test_a_release_in_which_nothing_fails_may_be_released(report):
    found = judged(good(report))
    assert found.tone == "good" and found.headline == "pixel_contrast may be released", found.failed
    assert not found.failed and len(found.tiles) == 5


def test_a_quick_run_is_never_green(report):
    report = of_profile(good(report), "quick")
    found = judged(report)
    assert found.tone == "open" and "profile quick" in found.headline


def test_what_fails_is_on_top(report):
    report = good(report)
    report["checks"][0]["status"] = "fail"
    found = judged(report)
    assert found.tone == "bad" and found.headline == "Not to be released: one thing fails"
    assert [each.rule for each in found.failed] == [f"check {report['checks'][0]['name']}"]


def test_undecided_is_said(report):
    report = of_profile(good(report), "quick")
    report["certificate"]["methods"]["pixel_contrast"]["verdict"] = "inconclusive"
    assert "the certificate is undecided" in judged(report).headline
    assert tile(report, "Cost").value == "Undecided" and tile(report, "Cost").tone == "open"


def accuracy_of(seeds):
    each = {"miou": 0.53, "baseline_miou": 0.51, "difference": 0.02, "ci95": [0.01, 0.03]}
    return {
        "difference": 0.02,
        "ci95": [0.01, 0.03],
        "miou": 0.53,
        "baseline_miou": 0.51,
        "rests_on": "40 images" if seeds == 1 else f"40 images and {seeds} seeds",
        "seeds": [{"seed": number} | each for number in range(seeds)],
    }


def test_one_training_decides_nothing_about_a_method(report):
    report["certificate"]["methods"]["pixel_contrast"]["accuracy"] = accuracy_of(1)
    found = tile(report, "Accuracy")
    assert found.tone == "open", "an interval that excludes 0 over images of one training is no verdict"
    assert "+1.00 to +3.00 over 40 images of one training each (seed 0): it says nothing about another" in found.detail
    report["certificate"]["methods"]["pixel_contrast"]["accuracy"] = accuracy_of(3)
    found = tile(report, "Accuracy")
    assert found.tone == "good" and found.detail.endswith("over 40 images and 3 seeds")
    assert seeds_note({}) == ""


def test_a_baseline_that_ships_is_not_compared(report):
    report["deployed"] = report["baseline"]
    assert tile(report, "Cost").value == "Not compared" and "baseline itself" in tile(report, "Cost").detail
    assert tile(report, "Accuracy").tone == "open"


def test_without_a_sound_engine_there_is_none(report):
    for row in report["targets"]:
        row["status"] = "failed"
    assert tile(report, "Fastest").value == "none" and tile(report, "Parity").value.startswith("0 of")
