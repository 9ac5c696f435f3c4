"""The report: the promised rows, one file per row, and pages that say what the numbers say.

After an intended change of a page: `python tests/export/report/test_report.py` writes the golden files anew; read the
diff.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest

from export.certificate.page import certificate_page
from export.pages.document import Table, to_markdown
from export.pages.formatting import duration, interval, large, milliseconds, number, percent, signed, signed_interval
from export.records.expected import ExpectedTarget
from export.report.blocks import classes_blocks
from export.report.encoding import png
from export.report.page import FIGURES, readme_page, report_page
from export.report.plots import classes_plot, plots, training_plot, training_time_plot
from export.report.report import TARGET_KEYS, ReportInputs, build_report
from export.report.series import accuracy_series
from export.report.web.markdown import to_html
from export.report.web.tables import seeds_blocks
from tests.export.report.hostile import HOSTILE, SHOWN, Markup, spoil

GOLDEN = Path(__file__).parent / "golden"
PNG = b"\x89PNG\r\n\x1a\n"
TARGETS = (
    "method seed target artifact path runtime precision status reason profile sha256 miou miou_drop_points agreement "
    "latency_ms engine_bytes"
)


def inputs(**changes):
    values = json.loads((GOLDEN / "report_inputs.json").read_text())
    values["expected"] = [ExpectedTarget(*row) for row in values["expected"]]
    values["verified"] = {(method, seed, row["target"]): row for method, seed, row in values["verified"]}
    values["training"] = {(method, seed): row for method, seed, row in values["training"]}
    return ReportInputs(**values | changes)


def pages():
    report = build_report(inputs())
    assert "curves" not in report
    return {
        "report.json": json.dumps(report, indent=1, sort_keys=True) + "\n",
        "report.md": to_markdown(report_page(report)),
        "readme_block.md": to_markdown(readme_page(report)),
        "certificate.md": to_markdown(certificate_page(report["certificate"])),
    }


@pytest.mark.parametrize("name", ["report.json", "report.md", "readme_block.md", "certificate.md"])
def test_page_is_the_golden_one(name):
    assert pages()[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_rows_have_exactly_the_promised_keys():
    report = build_report(inputs())
    assert list(TARGET_KEYS) == TARGETS.split()
    for row in report["targets"]:
        assert set(row) == set(TARGETS.split())
        assert set(row["latency_ms"]) == {"p50", "p90", "p99"}
    for row in report["training"]:
        assert set(row) == {"method", "seed", "contrast_steps", "mean_anchors", "seconds", "miou"}


def test_where_the_time_of_a_training_went_is_said_where_it_is_known():
    training = inputs().training
    (first, *_) = training
    parts = {"data_wait": 1.0, "upload": 0.0, "forward": 4.0, "backward": 4.0, "validation": 1.0}
    machine = {"device": "cpu", "precision": "fp32", "threads": 2}
    training[first]["time"] = {
        "seconds_per_part": parts,
        "images_per_second": 12.34,
        "peak_memory_bytes": 900 * 10**6,
    } | machine
    report = build_report(inputs(training=training))
    assert [("time" in row) for row in report["training"]] == [True] + [False] * (len(training) - 1)
    text = to_markdown(report_page(report))
    header = "| method | seed | images/s | peak memory, MB | forward, % | backward, % | data wait, % | validation, % |"
    assert header in text, "the longest part first, and none that took no time"
    assert f"| `{first[0]}` | {first[1]} | 12.3 | 900.0 | 40.0 | 40.0 | 10.0 | 10.0 |" in text
    assert "on cpu in fp32, 2 threads" in text


def test_times_of_another_training_are_left_out_and_the_pages_say_so():
    training = inputs().training
    (first, *_) = training
    training[first]["time_reason"] = "reports/timing/a.json is of another training"
    report = build_report(inputs(training=training))
    assert ["time_reason" in row for row in report["training"]] == [True] + [False] * (len(training) - 1)
    said = f"No times of `{first[0]}` seed {first[1]}: reports/timing/a.json is of another training."
    assert said in to_markdown(report_page(report))


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ((1, 1), "**One training each"),
        ((1, 3), "Of `pixel_contrast`: **One training each"),
        ((3, 1), "Of `contextrast`: **One training each"),
        ((3, 3), None),
        ((1, 0), "**One training each"),
    ],
)
def test_one_training_is_said_of_the_methods_that_have_one(seeds, said):
    certificate = copy.deepcopy(dict(inputs().certificate))
    methods = certificate["methods"]
    methods["contextrast"] = copy.deepcopy(methods["pixel_contrast"])
    for name, count in zip(("pixel_contrast", "contextrast"), seeds, strict=True):
        accuracy = methods[name]["accuracy"]
        (one,) = accuracy.pop("seeds")
        accuracy |= {"seeds": [one | {"seed": seed} for seed in range(count)]} if count else {"reason": "no labels"}
    report = build_report(inputs(certificate=certificate))
    (control,) = (line for line in to_markdown(certificate_page(certificate)).splitlines() if "(control)" in line)
    assert ("81.42 (seed 0)" in control and "81.42 (seeds 0 to 2)" in control) == (sorted(seeds) == [1, 3])
    pages = certificate_page(certificate), report_page(report), readme_page(report), seeds_blocks(report)
    for page in pages:
        found = [line for line in to_markdown(page).splitlines() if "One training each" in line]
        assert len(found) == (said is not None) and all(line.startswith(said) for line in found)


def test_the_baseline_stands_beside_methods_once_for_each_set_of_seeds():
    certificate = copy.deepcopy(dict(inputs().certificate))
    methods = certificate["methods"]
    assert [(each.method, each.seeds) for each in accuracy_series(build_report(inputs()))] == [
        ("cross_entropy", ""),
        ("pixel_contrast", ""),
    ]
    methods["contextrast"] = copy.deepcopy(methods["pixel_contrast"])
    accuracy = methods["contextrast"]["accuracy"]
    accuracy["seeds"] = [accuracy["seeds"][0] | {"seed": seed} for seed in range(3)]
    for row in accuracy["per_class"]:
        row["baseline_iou"] = 0.125
    report = build_report(inputs(certificate=certificate))
    (page,) = (block for block in classes_blocks(report) if isinstance(block, Table))
    assert page.header[1:] == [
        "`cross_entropy` seed 0, IoU %",
        "`pixel_contrast` seed 0, IoU %",
        "`cross_entropy` seeds 0 to 2, IoU %",
        "`contextrast` seeds 0 to 2, IoU %",
    ]
    assert {row[3] for row in page.rows[:-2]} == {"12.5"} and page.rows[0][1] != "12.5"
    figure = classes_plot(report)
    assert figure is not None
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == [f"{each.method}{each.seeds}" for each in accuracy_series(report)]


def test_rows_name_their_seeds_where_there_are_several():
    values = inputs()
    benchmark = copy.deepcopy(dict(values.benchmark))
    row = next(row for row in benchmark["targets"] if row["target"] == "ort_fp32")
    benchmark["targets"].append(row | {"seed": 1})
    expected = [*values.expected, dataclasses.replace(values.expected[0], seed=1)]
    text = to_markdown(report_page(build_report(inputs(benchmark=benchmark, expected=expected))))
    lines = text.partition("## Benchmark")[2].splitlines()
    assert [line.split("|")[1].strip() for line in lines if "| `ort_fp32`" in line][-1] == f"`{row['method']}` seed 1"


def test_rows_keep_what_verify_adds():
    verified = inputs().verified
    key = ("pixel_contrast", 0, "openvino_int8")
    verified[key]["precision_measured"], verified[key]["miou_drop_ci95"] = "int8", [0.1, 0.3]
    row = build_report(inputs(verified=verified))["targets"][2]
    assert row["precision_measured"] == "int8" and row["miou_drop_ci95"] == [0.1, 0.3]


def row_of(target="ort_fp32", method="pixel_contrast", **changes):
    report = build_report(inputs(**changes))
    return next(row for row in report["targets"] if (row["method"], row["target"]) == (method, target))


def test_skipped_target_has_its_reason_and_no_number():
    row = row_of("tensorrt_fp16")
    assert (row["status"], row["reason"]) == ("skipped", "no CUDA device")
    assert row["miou"] is None and row["latency_ms"] == {"p50": None, "p90": None, "p99": None}


def test_latency_of_another_file_than_the_accuracy_is_refused():
    benchmark = json.loads(json.dumps(inputs().benchmark))
    benchmark["targets"][1]["sha256"] = "d" * 64
    row = row_of(benchmark=benchmark)
    assert (
        row["status"] == "failed" and "accuracy is of the file bbbbbbbbbbbb, latency of dddddddddddd" in row["reason"]
    )
    assert row["latency_ms"]["p50"] is None


@pytest.mark.parametrize(("there", "words"), [("d" * 64, "is dddddddddddd"), (None, "is missing")])
def test_another_file_than_the_one_that_was_verified_is_refused(there, words):
    path = "artifacts/pixel_contrast-s0/onnx_fp32/model.onnx"
    engines = {name: sha256 for name, sha256 in inputs().engine_sha256.items() if name != path}
    report = build_report(inputs(engine_sha256=engines | ({path: there} if there else {})))
    (row,) = (row for row in report["targets"] if row["path"] == path)
    assert {check["target"] for check in report["checks"] if check["method"] == row["method"]} == {"openvino_int8"}
    said = f"{path} {words}, verify examined bbbbbbbbbbbb: run verify again"
    assert (row["status"], row["reason"]) == ("failed", said)


@pytest.mark.parametrize(("drop", "reason"), [("verified", "verify has no row"), ("benchmark", "benchmark has no row")])
def test_row_that_a_stage_did_not_give_is_failed(drop, reason):
    values = inputs()
    if drop == "verified":
        verified = {key: row for key, row in values.verified.items() if key[:2] != ("pixel_contrast", 0)}
        row = row_of(verified=verified)
    else:
        row = row_of(benchmark=dict(values.benchmark) | {"targets": []})
    assert row["status"] == "failed" and reason in row["reason"]


def test_failed_measurement_gives_its_reason():
    benchmark = json.loads(json.dumps(inputs().benchmark))
    failed = {"method": "pixel_contrast", "seed": 0, "target": "ort_fp32", "sha256": "b" * 64}
    benchmark["targets"][1] = failed | {"status": "failed", "reason": "out of memory"}
    assert row_of(benchmark=benchmark)["reason"] == "benchmark: out of memory"


def test_percentile_that_was_not_measured_is_null():
    benchmark = json.loads(json.dumps(inputs().benchmark))
    benchmark["targets"][1]["latency_ms"]["p99"] = None
    row = row_of(benchmark=benchmark)
    assert row["status"] == "ok" and row["latency_ms"]["p99"] is None and row["latency_ms"]["p50"] is not None


def test_quick_is_labelled_in_every_page():
    for name in ("report.md", "readme_block.md", "certificate.md"):
        assert "quick" in pages()[name]


def test_hostile_names_do_not_become_markup():
    training = {("<script>alert(1)</script>|x", 0): {"contrast_steps": 1, "mean_anchors": 1, "miou": 0.5}}
    report = build_report(inputs(training=training))
    line = next(line for line in to_markdown(report_page(report)).splitlines() if "alert" in line)
    assert line.replace("\\|", "").count("|") == 7


def test_no_text_from_outside_becomes_markup():
    report = spoil(copy.deepcopy(build_report(inputs())))
    for page in (report_page(report), readme_page(report), certificate_page(report["certificate"])):
        text = to_markdown(page)
        found = Markup(to_html(text, "page"))
        assert found.found == [] and SHOWN in found.text and "&lt;" in found.text and "\n# q" not in text
    certificate = {"methods": {"a": {"accuracy": {"reason": HOSTILE}}}}
    assert Markup(to_html(to_markdown(seeds_blocks({"certificate": certificate})), "page")).found == []
    plain = "no file a_b.png in c: run `dvc repro`"
    text = to_markdown(report_page(spoil(copy.deepcopy(build_report(inputs())), plain)))
    assert text.count(plain) > 10, "what holds no markup is as it was, and what we mean as code is code"


def test_hostile_classes_do_not_become_markup():
    values = inputs()
    for method in values.certificate["methods"].values():
        method["accuracy"]["per_class"][0]["class"] = "<img src=x onerror=alert(1)> *a* `b` [c](d) e|f"
    text = to_markdown(classes_blocks(build_report(values)))
    assert r"| \<img src=x onerror=alert(1)> \*a\* \`b\` [c\](d) e\|f |" in text


def test_plots_are_images_of_what_there_is():
    report = build_report(inputs())
    images = {name: png(figure) for name, figure in plots(report).items()}
    assert set(images) == set(FIGURES) - {"plots/training.png", "plots/training_time.png"}, "no training ran here"
    assert all(image.startswith(PNG) and len(image) > 5000 for image in images.values())
    assert {name: png(figure) for name, figure in plots(report).items()} == images


def test_dollars_in_the_name_of_a_class_are_no_formula():
    values = inputs()
    for method in values.certificate["methods"].values():
        method["accuracy"]["per_class"][0]["class"] = "price $x^_{$ low"
    figure = classes_plot(build_report(values))
    assert png(figure).startswith(PNG)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "price $x^_{$ low"


@pytest.mark.filterwarnings("error")
def test_long_names_are_shortened_and_those_that_the_font_lacks_are_numbers():
    values = inputs()
    for method in values.certificate["methods"].values():
        for row, name in zip(
            method["accuracy"]["per_class"], ["a" * 125, "\N{CJK UNIFIED IDEOGRAPH-8DEF}"], strict=False
        ):
            row["class"] = name
    figure = classes_plot(build_report(values))
    assert png(figure).startswith(PNG)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == ["a" * 37 + "...", "class 1"]


def test_curves_of_all_branches_share_a_plot():
    points = [[10.0, 1.5], [20.0, 1.25]]
    curves = {"cross_entropy": {"pixel_contrast-s0": points, "cross_entropy-s0": points}}
    report = build_report(inputs(curves=curves))
    assert report["curves"] == curves
    figure = training_plot(report)
    (axes,) = figure.axes
    assert len(axes.lines) == 2 and list(axes.lines[0].get_xdata()) == [10.0, 20.0]
    assert len({line.get_color() for line in axes.lines}) == 2
    assert "plots/training.png" in plots(report)
    assert "plots/training.png" in to_markdown(report_page(report))
    assert "training.png" not in to_markdown(report_page(build_report(inputs())))


def test_the_time_of_a_training_is_drawn_epoch_by_epoch():
    training = inputs().training
    parts = ("data_wait", "forward", "validation")
    epochs = [
        {"iteration": 10, "seconds": {"data_wait": 1.0, "forward": 2.0}},
        {"iteration": 14, "seconds": {"forward": 2.0, "validation": 4.0}},
    ]
    time = {"seconds_per_part": dict.fromkeys((*parts, "upload"), 1.0), "images_per_second": 1.0, "epochs": epochs}
    time |= {"peak_memory_bytes": 1, "device": "CPU", "precision": "fp32", "threads": 1}
    for row in list(training.values())[:2]:
        row["time"] = time
    report = build_report(inputs(training=training))
    figure = training_time_plot(report)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [len(axes.collections) for axes in shown] == [3, 3], "a layer for each part that took any time"
    top = shown[0].collections[-1].get_paths()[0].vertices
    assert {(0.0, 0.3), (10.0, 0.3), (10.0, 1.5), (14.0, 1.5)} <= {(x, round(y, 6)) for x, y in top.tolist()}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["data wait", "forward", "validation"]
    assert "plots/training_time.png" in plots(report)
    assert "plots/training_time.png" in to_markdown(report_page(report))
    assert "training_time.png" not in to_markdown(report_page(build_report(inputs())))


def test_report_without_any_result_still_has_pages():
    certificate = dict(inputs().certificate) | {"methods": {}, "control": {"ratio": None, "ci95": None, "pairs": 0}}
    report = build_report(
        inputs(verified={}, benchmark={"targets": []}, certificate=certificate, training={}, commit=None, created=None)
    )
    assert plots(report) == {}
    page = to_markdown(report_page(report, ()))
    assert "the stage verify has no row of it" in page
    assert to_markdown(readme_page(report))


def test_undecided_certificate_shows_its_reasons():
    certificate = json.loads(json.dumps(inputs().certificate))
    entry = certificate["methods"]["pixel_contrast"]
    entry["verdict"], entry["reasons"] = "inconclusive", ["latency: the control did not pass"]
    page = to_markdown(readme_page(build_report(inputs(certificate=certificate))))
    assert "- `pixel_contrast`: latency: the control did not pass" in page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (milliseconds(0.12345), "0.123"),
        (milliseconds(1.2345), "1.23"),
        (milliseconds(12.345), "12.3"),
        (milliseconds(1234.5), "1234"),
        (milliseconds(None), "\N{EN DASH}"),
        (signed(-0.001, 2), "0.00"),
        (signed(0.5, 1), "+0.5"),
        (signed(float("nan"), 1), "\N{EN DASH}"),
        (percent(0.98765, 2), "98.77"),
        (number(None, 2), "\N{EN DASH}"),
        (number(-0.0001, 3), "0.000"),
        (signed_interval([-0.0056, 0.012], 2, 100), "-0.56 to +1.20"),
        (interval([0.981, 1.02], 2), "0.98 to 1.02"),
        (interval(None, 2), "\N{EN DASH}"),
        (large(0), "0"),
        (large(1234567), "1.23 M"),
        (large(2.5e9), "2.50 G"),
        (duration(4.2), "4.2 s"),
        (duration(59.4), "59 s"),
        (duration(200), "3 min 20 s"),
        (duration(7500), "2 h 5 min"),
    ],
)
def test_numbers_as_text(text, expected):
    assert text == expected


if __name__ == "__main__":
    for golden_name, content in pages().items():
        (GOLDEN / golden_name).write_text(content, encoding="utf-8")
