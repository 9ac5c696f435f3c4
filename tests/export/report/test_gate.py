"""The gate: a good report opens it, and every single thing that may be wrong closes it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from export.pages.document import to_markdown
from export.report.blocks import left_out_blocks
from export.report.cards.branch import branch_report
from export.report.cards.card import model_card
from export.report.config import GateConfig
from export.report.evidence.quantisation import quantisation_blocks
from export.report.gate import findings_table, judge, passed, rules_judged
from export.report.page import report_page

CONFIG = GateConfig(required=("ort_fp32",))
GOLDEN = Path(__file__).parent / "golden" / "report.json"


@pytest.fixture
def report():
    return json.loads(GOLDEN.read_text())


def fatal(report, config=CONFIG):
    findings = judge(report, config)
    assert passed(findings) == (not any(finding.fatal for finding in findings))
    return [finding for finding in findings if finding.fatal]


def test_good_report_opens_and_notes_what_was_skipped(report):
    findings = judge(report, CONFIG)
    assert passed(findings)
    assert [(finding.severity, finding.subject) for finding in findings] == [
        ("SKIPPED", "pixel_contrast-s0/tensorrt_fp16")
    ]
    assert rules_judged(report) == 4 + 6 + 1 + 2 + 2


def test_brief_measurements_are_no_release(report):
    report["profile"] = "release"
    assert [(each.subject, each.rule) for each in fatal(report)] == [
        ("benchmark", "went by the report's profile, release"),
        ("certificate", "went by the report's profile, release"),
    ]


def target(report, name="ort_fp32", method="pixel_contrast"):
    return next(row for row in report["targets"] if (row["target"], row["method"]) == (name, method))


def certificate(report):
    return report["certificate"]["methods"]["pixel_contrast"]


def break_status(report):
    target(report).update(status="failed", reason="the file is cut short")


def break_drop(report):
    target(report, "openvino_int8").update(miou_drop_points=0.51)


def break_precision(report):
    target(report, "openvino_int8").update(precision="int4")


def break_miou(report):
    target(report).update(miou=None)


def break_latency(report):
    target(report).update(latency_ms={"p50": None, "p90": None, "p99": None})


def break_check(report):
    report["checks"][0].update(status="fail", detail="another file")


def break_stopwatch(report):
    report["benchmark"]["self_test"][1].update(passed=False, measured_ms=0.6)


def break_stopwatch_absent(report):
    report["benchmark"]["self_test"] = []


def break_certificate(report):
    certificate(report).update(verdict="fail", reasons=["structure: not the same graph"])


def break_certificate_absent(report):
    del report["certificate"]["methods"]["pixel_contrast"]


def break_accuracy(report):
    certificate(report)["accuracy"].update(difference=-0.031)


def break_accuracy_absent(report):
    certificate(report)["accuracy"] = {"reason": "evaluated on other images"}


def break_training(report):
    report["training"][1].update(contrast_steps=0)


def break_anchors(report):
    report["training"][1].update(mean_anchors=0.0)


def test_a_loss_term_without_anchors_is_no_failure(report):
    report["training"][1].update(mean_anchors=None)
    assert not fatal(report)


def break_data(report):
    report["dataset"]["warnings"] = ["unused class: bar: no pixel in any split"]


@pytest.fixture
def quantised(report):
    """A report with an engine in INT8 of as many images as were asked for, and what its row says of them."""
    parts = {name: {"images": 24, "asked": 24} for name in ("calibration", "held_out")}
    found = parts | {"miou_drop_points": 0.1, "limit_points": 0.3, "within_limit": True}
    next(row for row in report["targets"] if row["target"] == "openvino_int8")["quantisation"] = found
    return found


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        ({"calibration": {"images": 7, "asked": 24}}, "ranges are measured", "7 training images (24 were asked for)"),
        ({"held_out": {"images": 5, "asked": 24}}, "layers are chosen by", "5 other training images (24 were asked"),
        ({"miou_drop_points": 0.41, "within_limit": False}, "INT8 loses at most 0.3 points", "0.410 points lost"),
    ],
)
def test_less_than_was_asked_for_in_quantising_is_noted_and_shown(report, quantised, change, rule, words):
    said = to_markdown(quantisation_blocks(report))
    assert "ranges from 24 training images, layers chosen by 24 other training images" in said and "asked" not in said
    assert not [finding for finding in judge(report, GateConfig()) if rule in finding.rule]
    quantised.update(change)
    (finding,) = (finding for finding in judge(report, GateConfig()) if rule in finding.rule)
    assert (finding.severity, finding.subject, finding.fatal) == ("WARNING", "pixel_contrast-s0/openvino_int8", False)
    assert words in finding.found
    shown = to_markdown(quantisation_blocks(report))
    assert ("asked for" in shown) == ("asked" in words) and ("**more** than the limit" in shown) == ("lost" in words)
    assert shown in to_markdown(report_page(report))


def test_an_engine_of_an_older_version_does_not_say_what_was_asked_for(report, quantised):
    quantised.update({name: {"images": 7, "asked": None} for name in ("calibration", "held_out")})
    assert "7 training images," in to_markdown(quantisation_blocks(report))
    assert not [each for each in judge(report, GateConfig()) if each.severity == "WARNING"]


def break_engines(report):
    report["unexamined"] = ["artifacts/pixel_contrast-s0/onnx_old/model.onnx"]


def break_pictures(report):
    report["pictures"] = {"differing": ["a", "b"]}


def break_rows(report):
    report["targets"] = [row for row in report["targets"] if row["target"] != "ort_fp32"]


@pytest.mark.parametrize(
    ("damage", "subject", "words"),
    [
        (break_status, "pixel_contrast-s0/ort_fp32", "cut short"),
        (break_drop, "pixel_contrast-s0/openvino_int8", "0.510 points lost"),
        (break_precision, "pixel_contrast-s0/openvino_int8", "int4"),
        (break_miou, "pixel_contrast-s0/ort_fp32", "missing"),
        (break_latency, "pixel_contrast-s0/ort_fp32", "missing"),
        (break_check, "cross_entropy-s0/ort_fp32", "another file"),
        (break_stopwatch, "benchmark", "0.600 ms"),
        (break_stopwatch_absent, "benchmark", "no self-test"),
        (break_certificate, "pixel_contrast", "not the same graph"),
        (break_certificate_absent, "pixel_contrast", "no entry"),
        (break_accuracy, "pixel_contrast", "-3.10 points"),
        (break_accuracy_absent, "pixel_contrast", "evaluated on other images"),
        (break_training, "pixel_contrast-s0", "no training step"),
        (break_anchors, "pixel_contrast-s0", "max_views"),
        (break_rows, "pixel_contrast/ort_fp32", "no such row"),
        (break_engines, "pixel_contrast-s0/onnx_old/model.onnx", "no target of params.yaml runs it"),
        (break_pictures, "pictures", "other masks of 2 of the drawn images: a, b"),
        (break_data, "data/streets", "bar: no pixel in any split"),
    ],
)
def test_each_thing_that_is_wrong_closes_the_gate_and_is_named(report, damage, subject, words):
    damage(report)
    findings = fatal(report)
    assert [finding.subject for finding in findings] == [subject]
    assert words in findings[0].found and findings[0].severity == ("WARNING" if damage is break_data else "FAIL")


def test_everything_wrong_is_listed_at_once(report):
    for damage in (break_status, break_drop, break_check, break_stopwatch, break_certificate, break_training):
        damage(report)
    assert len(fatal(report)) == 6


def test_warnings_of_the_data_are_accepted_by_kind(report):
    break_data(report)
    report["dataset"]["warnings"].append("split overlap: a.png (train) and b.png (val) are the same image")
    config = GateConfig(accepted_warnings=("unused class",))
    findings = [finding for finding in judge(report, config) if finding.severity == "WARNING"]
    assert [(finding.found[:5], finding.fatal) for finding in findings] == [("a.png", True), ("bar: ", False)]
    assert "gate.accepted_warnings: [unused class, split overlap]" in findings[0].rule
    assert passed(judge(report, GateConfig(accepted_warnings=("unused class", "split overlap"))))


def test_classes_that_a_split_lacks_are_named_and_fail_nothing(report):
    report["dataset"]["warnings"] = ["absent class: bar: no pixel in val, and no part in its mIoU"]
    findings = [finding for finding in judge(report, CONFIG) if finding.severity == "WARNING"]
    assert [(finding.found, finding.fatal) for finding in findings] == [
        ("bar: no pixel in val, and no part in its mIoU", False)
    ]


def test_pairs_that_a_training_left_out_are_named_and_fail_nothing(report):
    report["training"][1]["left_out"] = ["drive/0007"]
    findings = [finding for finding in judge(report, CONFIG) if finding.severity == "WARNING"]
    assert [(finding.subject, finding.found, finding.fatal) for finding in findings] == [
        ("pixel_contrast-s0", "1 could not be read: drive/0007", False)
    ]
    (said,) = left_out_blocks(report["training"])
    assert (
        "pairs that `pixel_contrast` seed 0 was trained without" in said.items[0] and "1: drive/0007" in said.items[0]
    )
    assert said in report_page(report) and not left_out_blocks(report["training"][:1])
    cards = [model_card(branch_report(report, findings, method, 0), {}, {}, ("road",)) for method in report["losses"]]
    assert ["Training pairs left out because they could not be read: drive/0007." in card for card in cards] == [
        method == "pixel_contrast" for method in report["losses"]
    ]


def test_target_that_failed_by_its_checks_is_listed_once(report):
    break_status(report)
    check = next(check for check in report["checks"] if check["method"] == "pixel_contrast")
    check.update(status="fail", detail="x" * 1000)
    findings = fatal(report)
    assert [finding.rule for finding in findings] == ["check hash"]
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(findings_table(findings))
    assert console.export_text().count("x") < 250


def test_required_target_may_not_be_skipped(report):
    config = GateConfig(required=("ort_fp32", "tensorrt_fp16"))
    assert [(finding.severity, finding.found) for finding in fatal(report, config)] == [("SKIPPED", "no CUDA device")]


@pytest.mark.parametrize(
    ("profile", "allow", "opens"), [("quick", True, True), ("quick", False, False), ("release", True, False)]
)
@pytest.mark.parametrize("where", ["certificate", "check"])
def test_undecided_passes_only_in_quick_and_where_allowed(report, profile, allow, opens, where):
    report["profile"] = report["benchmark"]["profile"] = report["certificate"]["profile"] = profile
    if where == "certificate":
        certificate(report).update(verdict="inconclusive", reasons=["latency: the control did not pass"])
    else:
        report["checks"][0].update(status="inconclusive", detail="could not tell")
    config = GateConfig(required=("ort_fp32",), allow_inconclusive=allow)
    findings = judge(report, config)
    assert passed(findings) == opens
    assert any(finding.severity == "INCONCLUSIVE" for finding in findings)


def test_release_must_reach_the_minima(report):
    report["benchmark"]["targets"][0].update(complete=False, queries=12, seconds=3.0)
    assert not fatal(report)
    report["profile"] = report["benchmark"]["profile"] = report["certificate"]["profile"] = "release"
    assert fatal(report)[0].found == "12 queries in 3.0 s"


def test_unstable_warm_up_is_noted(report):
    report["benchmark"]["targets"][0]["stable"] = False
    findings = judge(report, CONFIG)
    assert passed(findings) and any("stable" in finding.rule for finding in findings)


def test_limits_are_those_of_params(report):
    break_accuracy(report)
    break_drop(report)
    config = GateConfig(max_method_drop_points=None, max_miou_drop_points={"fp32": 0.1, "int8": 1.0})
    assert not fatal(report, config)


def test_table_shows_every_finding_as_it_is(report):
    break_status(report)
    target(report)["reason"] = "[red]not markup[/red]"
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(findings_table(judge(report, CONFIG)))
    text = console.export_text()
    assert "FAIL" in text and "skipped (allowed)" in text
    assert "[red]not markup[/red]" in text


def test_a_throttled_gpu_and_others_on_it_are_noted(report):
    report["benchmark"]["machine"] = {
        "throttled": ["GPU 0: power cap in 40 % of 90 samples"],
        "gpu_processes": [{"pid": 7, "name": "train", "memory_mib": 100.0}],
    }
    findings = [finding for finding in judge(report, CONFIG) if finding.subject == "benchmark"]
    assert [(finding.severity, finding.fatal, finding.found) for finding in findings] == [
        ("INCONCLUSIVE", False, "GPU 0: power cap in 40 % of 90 samples"),
        ("INCONCLUSIVE", False, "train (7)"),
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"located": {"tensor": "t", "layer": "backbone.stem", "error": 0.05}, "located_reason": None},
            "first wrong at backbone.stem (tensor 't', off by 5.00e-02); ",
        ),
        (
            {"located": {"tensor": "t", "layer": "backbone.stem", "error": None}, "located_reason": None},
            "first wrong at backbone.stem (tensor 't', not finite); ",
        ),
        ({"located": None, "located_reason": "stale file"}, "not located: stale file; "),
    ],
    ids=["a_number", "not_finite", "nowhere"],
)
def test_a_failed_check_of_values_says_where_it_goes_wrong(report, keys, words):
    row = target(report)
    row.update(keys)
    failed = {"name": "logits", "status": "fail", "detail": "too far", "measured": 1.0}
    report["checks"].append({key: row[key] for key in ("method", "seed", "target")} | failed)
    assert f"{words}too far" in [finding.found for finding in fatal(report)]
