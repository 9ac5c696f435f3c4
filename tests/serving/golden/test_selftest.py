"""A sound engine passes in every runtime; what computes something else is caught, also where every hash is right."""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from benchmarks.serving import false_alarms
from benchmarks.serving import main as benchmark_main
from serving.contract.errors import UserError
from serving.contract.manifest import read_sidecar, write_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes.onnxruntime.engine import OnnxRuntime
from serving.engines.runtimes.openvino.engine import OpenVino
from serving.golden.golden import golden_folder
from serving.golden.selftest import lines, self_test
from serving.infer import main as infer_main
from serving.selftest import main


def examined(engine, runtime="onnxruntime", **options):
    with Predictor(engine, runtime=runtime, options={"threads": 1, **options}) as predictor:
        return self_test(predictor)


def change_weights(engine, change):
    model = onnx.load(engine)
    for tensor in model.graph.initializer:
        if tensor.name in ("w1", "w2"):
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(model, engine)


def to_bfloat16(values):
    """Rounded to eight bits of mantissa, as a driver's fast mathematics does."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).view(np.float32)


@pytest.mark.parametrize(
    ("runtime", "options"),
    [
        ("onnxruntime", {}),
        ("onnxruntime", {"optimization": "none"}),
        ("onnxruntime", {"io_binding": True}),
        ("openvino", {}),
        ("openvino", {"mode": "throughput", "threads": 2, "streams": 2}),
    ],
)
def test_a_sound_engine_passes(sound, runtime, options):
    result = examined(sound, runtime, **options)
    assert result.passed, result.problems
    assert result.compared_with == "PyTorch" and result.precision == "fp32" and result.batch == 4
    assert result.runtime["runtime"] == runtime and result.latency_ms > 0
    assert [(each.height, each.width) for each in result.inputs] == [(96, 128), (96, 128), (64, 64), (61, 93)]


def test_the_golden_files_of_another_engine_are_refused(sound):
    change_weights(sound, lambda weights: weights)  # another file, even if it computes the same
    model = onnx.load(sound)
    model.producer_name = "somebody else"
    onnx.save(model, sound)
    write_sidecar(dataclasses.replace(read_sidecar(sound), sha256=None), sound)
    (problem,) = examined(sound).problems
    assert problem.startswith("golden files of another engine: made with sha256")


def test_a_damaged_weight_is_caught_by_the_hash_and_where_that_is_right_by_the_masks(sound, sign, capsys):
    change_weights(sound, lambda weights: weights * np.float32(1.05))
    assert main([str(sound)]) == 1
    assert "FAIL: " in (text := capsys.readouterr().out) and "not the file its manifest describes" in text
    change_weights(sound, lambda weights: np.where(np.arange(weights.size).reshape(weights.shape) == 5, 0, weights))
    sign(sound)
    result = examined(sound)
    assert not result.passed and "where no rounding explains it" in result.problems[0]


def test_channels_in_the_wrong_order_are_caught(sound, sign, monkeypatch):
    infer = OnnxRuntime.infer
    monkeypatch.setattr(OnnxRuntime, "infer", lambda self, batch: infer(self, np.ascontiguousarray(batch[..., ::-1])))
    assert "no rounding explains it" in examined(sound).problems[0]


@pytest.mark.parametrize(
    "otherwise",
    [
        lambda mask: np.roll(mask, 1, axis=2),  # shifted by a pixel
        lambda mask: mask.transpose(0, 2, 1).reshape(mask.shape),  # memory read in another order
        lambda mask: np.where(mask == 2, 1, mask).astype(np.uint8),  # a class never wins
    ],
)
def test_a_build_of_openvino_that_computes_otherwise_is_caught(sound, monkeypatch, otherwise):
    infer = OpenVino.infer
    monkeypatch.setattr(OpenVino, "infer", lambda self, batch: {"mask": otherwise(infer(self, batch)["mask"])})
    result = examined(sound, "openvino")
    assert not result.passed and any("no rounding explains it" in problem for problem in result.problems)
    assert examined(sound, "onnxruntime").passed


def test_a_driver_that_rounds_more_than_it_says_is_caught(sound, sign):
    change_weights(sound, to_bfloat16)
    sign(sound)
    result = examined(sound)
    assert not result.passed and "no rounding explains it" in result.problems[0]


def test_slots_of_a_batch_that_are_mixed_up_are_caught(sound, monkeypatch):
    infer = OnnxRuntime.infer
    monkeypatch.setattr(OnnxRuntime, "infer", lambda self, batch: {"mask": np.roll(infer(self, batch)["mask"], 1, 0)})
    result = examined(sound)
    assert [problem.split(":")[0] for problem in result.problems] == [
        f"slot {slot} of a batch of 4" for slot in range(4)
    ]


def test_an_engine_that_fails_is_a_problem_and_no_traceback(sound, monkeypatch):
    def fail(self, batch):
        raise UserError("out of order")

    monkeypatch.setattr(OnnxRuntime, "infer", fail)
    (problem,) = examined(sound).problems
    assert problem.startswith("the engine failed: out of order")


@pytest.mark.parametrize(("shift", "passes"), [(0, True), (1, True), (9, False)])
def test_in_reduced_precision_the_lab_engines_masks_are_compared_within_the_limit_of_agreement(
    sound, sign, golden_for, monkeypatch, shift, passes
):
    """Of some 31,000 pixels, 2 in a thousand may differ; each row of a mask is 64 to 128."""
    sign(sound, precision="fp16")
    golden_for(sound, precision="fp16", error=3.0, max_disagreement=2e-3)
    infer = OnnxRuntime.infer

    def otherwise(self, batch):
        mask = infer(self, batch)["mask"].copy()
        mask[:, : 4 * shift, :4] = 9
        return {"mask": mask % 3}

    monkeypatch.setattr(OnnxRuntime, "infer", otherwise)
    result = examined(sound)
    assert result.compared_with == "onnxruntime fp16 in the lab" and result.allowed == 2e-3
    assert result.passed is passes, result.problems
    if not passes:
        assert "of the pixels differ from onnxruntime fp16 in the lab; at most 0.200 % may" in result.problems[0]


def test_a_runtime_that_was_not_in_the_lab_is_compared_with_what_was(sound, sign, golden_for, monkeypatch):
    path = golden_folder(sound) / "golden.json"
    values = json.loads(path.read_text())
    values["lab"] = values["lab"][:1]
    path.write_text(json.dumps(values))
    assert examined(sound, "openvino").compared_with == "PyTorch"
    golden_for(sound, precision="int8", max_disagreement=0.05)
    sign(sound, precision="int8")
    values = json.loads(path.read_text())
    values["lab"] = values["lab"][:1]
    path.write_text(json.dumps(values))
    result = examined(sound, "openvino")
    assert result.passed and result.compared_with == "onnxruntime int8 in the lab"


def test_fewer_layers_in_the_precision_than_in_the_lab_are_caught(sound, sign, golden_for, monkeypatch):
    golden_for(sound, precision="int8", max_disagreement=0.05)
    sign(sound, precision="int8")
    path = golden_folder(sound) / "golden.json"
    values = json.loads(path.read_text())
    values["lab"][1]["layers"] = {"int8": 60, "fp32": 2}
    path.write_text(json.dumps(values))
    (problem,) = examined(sound, "openvino").problems  # this file holds no quantised layer at all
    assert problem.startswith("computes 0 % of its layers in int8, in the lab 97 %: ")


@pytest.mark.slow
def test_two_hundred_runs_without_a_false_alarm(sound):
    found = false_alarms([sound], runs=200, threads=1)
    assert found["alarms"] == [] and len(found["seconds"]) == 2


def test_an_alarm_is_counted_with_its_reason(sound, sign, monkeypatch, capsys):
    change_weights(sound, to_bfloat16)
    sign(sound)
    monkeypatch.setattr("sys.argv", ["serving", "--engine", str(sound), "--selftests", "2", "--threads", "1"])
    assert benchmark_main() == 1
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == 2 and len(found["alarms"]) == 2
    assert all("no rounding explains it" in alarm for alarm in found["alarms"])


def test_the_command_gives_one_verdict(sound, capsys):
    assert main([str(sound), "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "pass" and report["problems"] == [] and len(report["inputs"]) == 4
    assert report["runtime"]["threads"] == 1
    assert main([str(sound), "--runtime", "openvino"]) == 0
    text = capsys.readouterr().out
    assert f"{sound}: pass" in text and "crop 1   96x128: 0 pixels differ from PyTorch" in text
    assert main([str(sound), "--runtime", "openvino", "--option", "device=NPU7", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "fail" and "no device NPU7" in report["problems"][0]
    (golden_folder(sound)).rename(sound.parent / "elsewhere")
    with pytest.raises(UserError, match=r"no golden\.json there"):
        main([str(sound)])
    assert main([str(sound), "--golden", str(sound.parent / "elsewhere")]) == 0
    with pytest.raises(UserError, match="no such file"):
        main([str(sound.parent / "gone.onnx")])
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        main([str(sound.parent / ("n" * 300))])


def test_the_lab_latency_stands_beside_the_devices(sound):
    (golden_folder(sound) / "latency.json").write_text('{"onnxruntime fp32": 12.5}')
    result = examined(sound)
    assert result.lab_latency_ms == 12.5
    assert any("(lab 12.5 ms)" in line for line in lines(result))


def test_the_lab_latency_is_that_of_the_golden_files_that_are_named(sound, tmp_path, capsys):
    shutil.copytree(golden_folder(sound), tmp_path / "other")
    (golden_folder(sound) / "latency.json").write_text('{"onnxruntime fp32": 12.5}')
    assert main([str(sound), "--golden", str(tmp_path / "other"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lab_latency_ms"] is None
    (tmp_path / "other" / "latency.json").write_text('{"onnxruntime fp32": 99.5}')
    assert main([str(sound), "--golden", str(tmp_path / "other"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lab_latency_ms"] == 99.5


def test_infer_tests_before_the_first_image(sound, tmp_path, photo, monkeypatch):
    Image.fromarray(photo(32, 32)).save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), "--engine", str(sound), "--output", str(tmp_path / "out"), "--selftest"]
    assert infer_main(arguments) == 0
    assert infer_main([*arguments, "--tile", "32x32", "--overlap", "8"]) == 0  # the golden images run whole
    infer = OnnxRuntime.infer
    monkeypatch.setattr(OnnxRuntime, "infer", lambda self, batch: infer(self, np.ascontiguousarray(batch[..., ::-1])))
    arguments[-2] = str(tmp_path / "other")
    with pytest.raises(UserError, match="the self-test failed, nothing was begun: crop 1: "):
        infer_main(arguments)
    assert not (tmp_path / "other").exists()
