"""OpenVINO: the masks of ONNX Runtime within rounding, and the precision that was asked for or none."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.engines.predictor import Predictor
from serving.engines.runtimes.openvino.engine import import_openvino, layers_by_precision, shared_core

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)
openvino = import_openvino()


def opened(engine, **options):
    return Predictor(engine, runtime="openvino", options=options)


@pytest.fixture
def reference(engine):
    with Predictor(engine, options={"threads": 1}) as predictor:
        yield predictor


def test_masks_equal_onnxruntimes_in_both_modes_and_at_any_size(engine, reference, photo):
    sizes = [(64, 64), (33, 70), (64, 64), (100, 20), (64, 64)]
    images = [photo(*size, seed) for seed, size in enumerate(sizes)]
    expected = reference.predict_batch(images)
    for options in ({"threads": 1}, {"mode": "throughput", "streams": 2}):
        with opened(engine, **options) as predictor:
            masks = predictor.predict_batch(images)
            for mask, other in zip(masks, expected, strict=True):
                assert (mask != other).mean() < 1e-3  # logits differ in the last bits; ties fall either way
            again = predictor.predict(images[1])
            np.testing.assert_array_equal(again, masks[1])
            assert predictor.runtime.what_runs()["mode"] == options.get("mode", "latency")


def test_results_belong_to_the_caller(engine, photo):
    with opened(engine, threads=1) as predictor:
        first = predictor.predict(photo(64, 64, 0))
        copy = first.copy()
        predictor.predict(photo(64, 64, 1))
        np.testing.assert_array_equal(first, copy)


def test_an_fp32_file_runs_in_fp32_unless_bf16_is_asked_for(engine):
    with opened(engine, threads=1) as predictor:
        assert predictor.runtime.what_runs()["precision"] == "f32"
        assert set(predictor.runtime.executed_precisions()["Convolution"]) == {"f32"}
    if "BF16" not in shared_core(openvino).get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16")
    with opened(engine, threads=1, precision="bf16") as predictor:
        assert predictor.runtime.what_runs()["precision"] == "bf16"
        assert "bf16" in predictor.runtime.executed_precisions()["Convolution"]


def test_a_precision_that_the_cpu_lacks_is_refused_not_replaced(engine):
    capabilities = shared_core(openvino).get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    lacking = [name for name, capability in (("bf16", "BF16"), ("f16", "FP16")) if capability not in capabilities]
    if not lacking:
        pytest.skip("this CPU has bf16 and f16")
    with pytest.raises(UserError, match=rf"does not compute in {lacking[0]}.*it has f32"):
        opened(engine, precision=lacking[0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"precission": "f32"}, "options of openvino.precission: unknown key; did you mean 'precision'?"),
        ({"precision": "int8"}, "expected one of f32, bf16, f16"),
        ({"threads": 0}, "threads: expected 1 to 1024, got 0"),
        ({"threads": 5000}, "threads: expected 1 to 1024, got 5000"),
        ({"streams": 2}, "streams: only with mode: throughput"),
        ({"device": "AUTO"}, "lets OpenVINO choose what runs; name one device"),
        ({"device": "TPU"}, "no device TPU; this machine has"),
    ],
)
def test_bad_options_are_refused(engine, options, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        opened(engine, **options)


def test_io_and_damage_are_refused_in_words(tmp_path, build_engine, models, manifest, photo):
    model = models["network"]()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(UserError, match="OpenVINO cannot open it") as caught:
        opened(build_engine(tmp_path / "a", model))
    assert "\n" not in str(caught.value)
    other = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, name="pixels"))
    with pytest.raises(UserError, match="manifest names 'pixels', the engine has"):
        opened(build_engine(tmp_path / "b", models["network"](), other))
    with (
        opened(build_engine(tmp_path / "c")) as predictor,
        pytest.raises(UserError, match=r"OpenVINO, on an input of shape \[1, 8, 8, 4\]"),
    ):
        predictor.runtime.infer(np.zeros((1, 8, 8, 4), np.uint8))


def test_a_fixed_batch_is_filled_in_both_modes(tmp_path, models, photo):
    import onnx

    from serving.engines.foreign.described import describe
    from serving.engines.foreign.onnx_file import read_onnx

    path = tmp_path / "model.onnx"
    onnx.save(models["color"](layout="NHWC", dtype="uint8", normalised=False, batch=2), path)
    manifest = describe(read_onnx(path), path, content="logits", classes="3")
    images = [photo(32, 32, seed) for seed in range(3)]
    for mode in ("latency", "throughput"):
        with Predictor(path, runtime="openvino", manifest=manifest, options={"mode": mode}) as predictor:
            for mask, image in zip(predictor.predict_batch(images), images, strict=True):
                np.testing.assert_array_equal(mask, image.argmax(2))


def test_a_missing_package_is_one_line(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"runtime openvino: not installed.*pip install openvino"):
        opened(engine)


QUIET = """
import sys
from serving.engines.predictor import Predictor
import numpy as np
Predictor(sys.argv[1], runtime="openvino").predict(np.zeros((32, 32, 3), np.uint8))
print([name for name in sys.modules if name.startswith("openvino_telemetry")])
"""


def test_it_reports_to_nobody(engine, tmp_path):
    """Left to itself, OpenVINO's import writes an identifier to the home folder and sends usage statistics."""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(engine)],
        env=os.environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "[]\n", done.stderr
    assert list(home.iterdir()) == []


def test_a_file_that_crashes_the_reader_does_not_take_the_process_down(tmp_path, models, manifest):
    """A convolution without weights is read past its inputs' end; no hash vouches for the file: a child tries it."""
    model = models["network"]()
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    del convolution.input[1:]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"OpenVINO crashed on it|OpenVINO cannot open it"):
        Predictor(path, runtime="openvino", manifest=manifest)


SIGNALLED = """
import os, signal, sys
from serving.engines.predictor import Predictor
signal.signal(signal.SIGINT, lambda *_: print("handled"))
engines = [Predictor(sys.argv[1], runtime="openvino") for _ in range(2)]
while engines:
    engines.pop(0).close()
os.kill(os.getpid(), signal.SIGINT)
"""


def test_signals_are_handled_after_engines_were_closed_in_the_order_of_their_opening(engine):
    """OpenVINO's CPU plugin leaves the thread a signal stack that is gone; the process then died of Ctrl-C."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED, str(engine)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_names_of_openvino_are_ours():
    executed = {"Convolution": {"u8": 3, "i8": 1, "f32": 2}, "Eltwise": {"bf16": 9}, "FullyConnected": {"bf16": 1}}
    assert layers_by_precision(executed) == {"int8": 4, "fp32": 2, "bf16": 1}
