"""Comparing reports: latencies of different hardware never, everything else honestly."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from export.compare import main
from export.report.changes import hardware_differences, notes, target_changes
from export.report.report import load_report
from serving.contract.errors import UserError

GOLDEN = Path(__file__).parent / "report/golden/report.json"


@pytest.fixture
def before():
    return json.loads(GOLDEN.read_text())


@pytest.fixture
def after(before):
    return copy.deepcopy(before)


def row(rows, target="ort_fp32", method="pixel_contrast"):
    return next(each for each in rows if (each["target"], each["method"]) == (target, method))


def run(monkeypatch, capsys, tmp_path, before, after, *flags):
    paths = [tmp_path / "before.json", tmp_path / "after.json"]
    for path, report in zip(paths, (before, after), strict=True):
        path.write_text(json.dumps(report))
    monkeypatch.setattr("sys.argv", ["compare", *map(str, paths), *flags])
    status = main()
    return status, capsys.readouterr().out


def test_names_with_brackets_and_colons_are_printed_as_they_are(monkeypatch, capsys, tmp_path, before, after):
    after["dataset"]["warnings"] = ["odd: [/b] a[red]b.png :car: [link=x]y"]
    status, said = run(monkeypatch, capsys, tmp_path, before, after)
    assert status == 0 and "odd: [/b] a[red]b.png :car: [link=x]y" in " ".join(said.split())


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("targets",), {}, "damaged targets"),
        (("certificate",), [], "damaged certificate"),
        (("checks",), None, "damaged checks"),
        (("device",), {"hardware": {}}, "without device.software"),
        (("targets", 0), "x", "targets 0 lack columns"),
        (("targets", 1, "latency_ms"), None, "targets 1 lack columns"),
        (("targets", 1, "latency_ms", "p50"), "1.5", "targets 1 lack columns"),
        (("targets", 1, "miou"), "0.5", "targets 1 lack columns"),
    ],
)
def test_a_report_of_another_form_is_one_line(tmp_path, before, path, value, said):
    place = before
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "report.json").write_text(json.dumps(before))
    with pytest.raises(UserError, match=rf"report\.json: .*{said}"):
        load_report(tmp_path / "report.json")


def test_changes_are_those_of_the_numbers(before, after):
    after["targets"][1]["miou"] += 0.01
    after["targets"][1]["latency_ms"]["p50"] *= 1.25
    after["targets"][1]["sha256"] = "e" * 64
    changed = row(target_changes(before, after))
    assert changed["miou_points"] == pytest.approx(1.0)
    assert changed["p50_ratio"] == pytest.approx(1.25)
    assert not changed["same_file"]
    same = row(target_changes(before, after), method="cross_entropy")
    assert same["p50_ratio"] == 1.0 and same["same_file"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpu", "Other CPU"),
        ("usable_cpus", 4.0),
        ("cpu_flags", ["avx2"]),
        ("gpus", [{"name": "NVIDIA H100", "memory_mib": 81559, "compute_capability": "9.0"}]),
    ],
)
def test_other_hardware_is_refused_and_named(before, after, key, value):
    after["device"]["hardware"][key] = value
    assert [text.partition(":")[0] for text in hardware_differences(before, after)] == [key]
    with pytest.raises(UserError, match=rf"different hardware.*\n  {key}: ") as error:
        target_changes(before, after)
    assert "--no-latency" in str(error.value)


def test_accuracy_of_other_hardware_still_compares(before, after, monkeypatch, capsys, tmp_path):
    after["device"]["hardware"]["cpu"] = "Other CPU"
    after["targets"][1]["miou"] += 0.01
    status, text = run(monkeypatch, capsys, tmp_path, before, after, "--no-latency", "--json")
    content = json.loads(text)
    assert status == 0
    assert row(content["targets"])["miou_points"] == pytest.approx(1.0)
    assert all(each["p50_ms"] == [None, None] and each["p50_ratio"] is None for each in content["targets"])


def test_other_software_compares_with_a_note(before, after):
    after["device"]["software"]["packages"]["onnxruntime"] = "2.0"
    after["profile"] = "release"
    assert target_changes(before, after)
    told = notes(before, after)
    assert any(text.startswith("profile: quick against release") for text in told)
    assert any("onnxruntime" in text and "2.0" in text for text in told)


def test_other_certificates_and_other_ways_to_measure_are_told(before, after):
    assert notes(before, after) == []
    after["certificate"].update(margin=0.5, target="openvino_bf16", baseline="contextrast")
    after["benchmark"]["settings"]["pairs"] = 99
    row = after["benchmark"]["targets"][0]
    row["runtime"] = {"threads": 8}
    told = "\n".join(notes(before, after))
    for said in (
        "certificate, margin: 0.02 against 0.5",
        "target: ort_fp32 against openvino_bf16",
        "against contextrast",
    ):
        assert said in told
    assert "benchmark, pairs: " in told and " against 99" in told
    assert f"{row['method']}, seed {row['seed']}, {row['target']}, runtime: " in told


def test_latencies_of_other_input_sizes_have_no_ratio(before, after):
    after["benchmark"]["targets"][1]["input_shape"] = [1, 384, 512, 3]
    changed = row(target_changes(before, after))
    assert changed["p50_ratio"] is None and not changed["same_input"]


def test_target_of_one_report_only_is_shown(before, after, monkeypatch, capsys, tmp_path):
    del after["targets"][2]
    alone = row(target_changes(before, after), "openvino_int8")
    assert alone["status"] == ["ok", None] and alone["miou_points"] is None
    status, text = run(monkeypatch, capsys, tmp_path, before, after)
    assert status == 0 and "openvino_int8" in text and "certificate of pixel_contrast: pass -> pass" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a report.json"),
        ("{}", "without schema"),
        ("nonsense", "expected JSON"),
        (
            '{"schema": 99, "targets": [], "device": {}, "certificate": {}, "benchmark": {}, "profile": "quick"}',
            "schema 99",
        ),
        (
            '{"schema": 1, "targets": [{}], "device": {}, "certificate": {}, "benchmark": {}, "profile": "quick"}',
            "targets 0 lack columns",
        ),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, content, message):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_report(path)
    with pytest.raises(UserError, match="no such file"):
        load_report(tmp_path / "other.json")


def test_nobody_is_told_to_delete_what_is_no_report(tmp_path):
    picture = tmp_path / "picture.jpg"
    picture.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"picture\.jpg: expected JSON as `report` writes it") as error:
        load_report(picture)
    assert "delete" not in str(error.value).partition("picture.jpg")[2]
