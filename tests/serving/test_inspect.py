"""Engines that say what they are, and say so when they are not."""

import dataclasses
import json
import subprocess
import sys

import onnx
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import OutputSpec, sidecar_path, write_sidecar
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile
from serving.inspect import main


def inspected(capsys, path):
    status = main([str(path), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["verified"] is (status == 0)
    return status, report, {check["name"]: check for check in report["checks"]}


def test_an_exported_engine_is_verified(engine, manifest, capsys):
    status, report, checks = inspected(capsys, engine)
    assert status == 0
    assert {name: check["status"] for name, check in checks.items()} == dict.fromkeys(
        ["manifest", "sha256", "weights", "manifest inside", "io"], "pass"
    )
    assert report["manifest"]["class_names"] == list(manifest.class_names)
    assert report["manifest"]["provenance"] == {"method": "cross_entropy", "seed": 0}
    assert report["file"]["inputs"] == [{"name": "image", "dtype": "uint8", "shape": ["B", "H", "W", 3]}]
    assert report["sha256"] == report["manifest"]["sha256"]
    assert report["engine_bytes"] == engine.stat().st_size


def test_the_text_says_it_all(engine, capsys):
    assert main([str(engine)]) == 0
    text = capsys.readouterr().out
    for part in (
        "onnx_fp32: onnx, fp32",
        "image: uint8 NHWC RGB, sides multiples of 32",
        "mask: mask, uint8 NHW",
        "3 classes (ignore index 255)",
        "0  #c80000  red",
        "method: cross_entropy",
        "opset 18",
        "\nverified\n",
    ):
        assert part in text


def test_a_changed_file_fails_and_is_still_described(engine, capsys):
    engine.write_bytes(engine.read_bytes() + b"\x12\x00")
    status, report, checks = inspected(capsys, engine)
    assert status == 1 and checks["sha256"]["status"] == "fail"
    assert "changed, cut short or replaced" in checks["sha256"]["detail"]
    assert report["file"]["opset"] == 18


def test_a_truncated_file_fails_in_words(engine, capsys):
    engine.write_bytes(engine.read_bytes()[:500])
    status, report, checks = inspected(capsys, engine)
    assert status == 1 and checks["sha256"]["status"] == checks["file"]["status"] == "fail"
    assert report["file"] is None


def test_the_manifest_of_another_file_fails(engine, manifest, capsys):
    other = dataclasses.replace(manifest, precision="int8", outputs=(OutputSpec("masks"),))
    write_sidecar(other, engine)
    status, _, checks = inspected(capsys, engine)
    assert status == 1 and checks["sha256"]["status"] == "pass"
    assert checks["manifest inside"]["detail"] == "differs from the one beside the file"
    assert "output 'masks': not in the engine" in checks["io"]["detail"]


def test_an_unreadable_manifest_fails_and_a_missing_one_does_not_pass(engine, capsys):
    sidecar_path(engine).write_text("{")
    status, _, checks = inspected(capsys, engine)
    assert status == 1 and checks["manifest"]["status"] == "fail"
    sidecar_path(engine).unlink()
    status, report, checks = inspected(capsys, engine)
    assert status == 1 and checks["manifest"]["status"] == "skipped"
    assert report["manifest"]["name"] == "onnx_fp32"  # the one inside


def test_a_manifest_without_a_hash_verifies_nothing(engine, manifest, capsys):
    sidecar_path(engine).write_text(manifest.to_json())
    status, _, checks = inspected(capsys, engine)
    assert status == 1 and checks["sha256"] == {
        "name": "sha256",
        "status": "skipped",
        "detail": "the manifest names none",
    }


def test_a_model_from_elsewhere_is_described_and_not_verified(tmp_path, models, capsys):
    path = tmp_path / "other.onnx"
    onnx.save(models["color"](size=(64, 64)), path)
    status, report, _ = inspected(capsys, path)
    assert status == 1 and report["manifest"] is None
    assert report["file"]["inputs"][0]["shape"] == ["B", 3, 64, 64]
    assert main([str(path)]) == 1
    assert "NOT verified" in capsys.readouterr().out


def test_a_plan_says_what_it_was_built_for(tmp_path, manifest, capsys):
    path = tmp_path / "model.plan"
    path.write_bytes(b"a plan")
    details = PlanDetails("tensorrt_rtx", "1.7.1.116", ("8.9",), Profile((1,) * 4, (1,) * 4, (1,) * 4))
    write_sidecar(dataclasses.replace(manifest, kind="tensorrt", details=details.to_details()), path)
    status, _, checks = inspected(capsys, path)
    assert status == 0
    assert checks["plan"]["detail"] == "tensorrt_rtx 1.7.1.116, compute capability 8.9"
    write_sidecar(dataclasses.replace(manifest, kind="tensorrt"), path)
    status, _, checks = inspected(capsys, path)
    assert status == 1 and "details.tensorrt: missing" in checks["plan"]["detail"]


def test_names_in_a_file_cannot_steer_the_terminal(tmp_path, models, capsys):
    model = models["color"]()
    model.producer_name = "evil\x1b[2J\nverified"
    model.graph.input[0].name = "pix\x07els"
    (tmp_path / "evil.onnx").write_bytes(model.SerializeToString())
    main([str(tmp_path / "evil.onnx")])
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\x07" not in text
    assert "\\x1b[2J\\nverified" in text


def test_a_missing_file_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        main([str(tmp_path / ("n" * 300))])
    with pytest.raises(UserError, match="no such file"):
        main([str(tmp_path / "gone.onnx")])
    done = subprocess.run(
        [sys.executable, "-m", "serving.inspect", "gone.onnx"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and done.stderr == "error: gone.onnx: no such file\n"


def test_an_open_engine_says_where_its_nodes_run(engine, capsys):
    assert main([str(engine), "--open", "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["runtime"]["provider"] == "CPUExecutionProvider" and report["runtime"]["threads"] == 1
    assert list(report["runtime"]["nodes"]) == ["CPUExecutionProvider"]
    assert report["checks"][-1] == {"name": "runtime", "status": "pass", "detail": "opened by onnxruntime"}
    assert main([str(engine), "--open", "--option", "spinning=false"]) == 0
    text = capsys.readouterr().out
    assert '  nodes: {"CPUExecutionProvider": ' in text and "  spinning: false" in text
    assert main([str(engine), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runtime"] is None


def test_an_engine_that_does_not_hold_is_not_opened(engine, capsys, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    engine.write_bytes(engine.read_bytes() + b"\0")
    assert main([str(engine), "--open"]) == 1
    assert "fail     runtime: not opened: what is in the file was not verified" in capsys.readouterr().out


def test_an_engine_that_cannot_be_opened_fails(engine, capsys):
    assert main([str(engine), "--open", "--runtime", "tensorrt"]) == 1
    assert "fail     runtime: " in capsys.readouterr().out


@pytest.mark.parametrize("changed", [False, True])
def test_a_runtime_or_option_that_there_is_not_is_no_finding_about_the_engine(engine, changed):
    if changed:
        engine.write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"unknown runtime 'nope'; known: onnxruntime, openvino, tensorrt"):
        main([str(engine), "--open", "--runtime", "nope"])
    with pytest.raises(UserError, match=r"options of onnxruntime\.turbo: unknown key"):
        main([str(engine), "--open", "--option", "turbo=true"])


def test_options_of_a_runtime_need_an_open_engine(engine):
    with pytest.raises(UserError, match=r"--runtime, --threads, --provider and --option: only with --open"):
        main([str(engine), "--provider", "cuda"])
