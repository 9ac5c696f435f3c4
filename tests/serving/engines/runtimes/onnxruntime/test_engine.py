"""ONNX Runtime: what really runs is what was asked for, and every refusal is one clear message."""

import dataclasses
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from serving.contract.errors import UnavailableError, UserError
from serving.contract.manifest import InputSpec, OutputSpec
from serving.engines.predictor import Predictor
from serving.engines.runtimes.onnxruntime.engine import OnnxRuntime


def opened(path, manifest, **options):
    return OnnxRuntime.open(path, manifest, options, check_hash=manifest.sha256 is not None)


def test_it_says_what_runs(engine, manifest):
    with opened(engine, manifest, threads=1, spinning=False) as runtime:
        described = runtime.what_runs()
    assert described["provider"] == "CPUExecutionProvider"
    assert described["version"] == onnxruntime.__version__
    assert (described["threads"], described["spinning"]) == (1, False)


def test_it_says_where_the_nodes_are_and_what_they_compute_in(engine, manifest, models):
    with opened(engine, manifest) as runtime:
        described = runtime.what_runs()
        assert set(described["nodes"]) == {"CPUExecutionProvider"} and described["nodes_elsewhere"] == {}
        assert described["nodes"]["CPUExecutionProvider"] >= len(models["network"]().graph.node) - 2
        assert runtime.layer_precisions() == ({"fp32": 2}, "executed kernels of ONNX Runtime")
        assert runtime.computed_elsewhere() == []


def test_nodes_without_a_kernel_on_the_gpu_are_seen(engine, manifest, fake_cuda, monkeypatch):
    """They go to the CPU in silence, although the session's first provider is the GPU's."""

    def subgraph(provider, *operators):
        nodes = [SimpleNamespace(name="", op_type=operator) for operator in operators]
        return SimpleNamespace(ep_name=provider, get_nodes=lambda: nodes)

    with opened(engine, manifest, provider="cuda", io_binding=False) as runtime:
        placed = [
            subgraph("CUDAExecutionProvider", "Conv", "Relu", "Conv"),
            subgraph("CPUExecutionProvider", "Resize", "Shape"),
            subgraph("CPUExecutionProvider", "Resize"),
        ]
        monkeypatch.setattr(runtime._session, "get_provider_graph_assignment_info", lambda: placed, raising=False)
        described = runtime.what_runs()
        assert described["nodes"] == {"CUDAExecutionProvider": 3, "CPUExecutionProvider": 3}
        assert described["nodes_elsewhere"] == {"Resize": 2, "Shape": 1}
        # The stand-in runs on the CPU: every node that works on the image is found out by one run.
        assert len(runtime.computed_elsewhere()) >= 7
        assert any(re.match(r"Conv \(.+\) on CPUExecutionProvider", each) for each in runtime.computed_elsewhere())


def test_a_quantised_layer_counts_when_it_is_executed_so(tmp_path, models, manifest):
    """Q/DQ pairs around a convolution: ONNX Runtime makes one integer kernel of them, without optimisation none."""
    path = tmp_path / "model.onnx"
    onnx.save(models["quantised"](), path)
    with opened(path, manifest) as runtime:
        assert runtime.layer_precisions()[0] == {"int8": 1}
    with opened(path, manifest, optimization="none") as runtime:
        assert runtime.layer_precisions()[0] == {"fp32": 1}


def test_io_binding_gives_the_same_and_keeps_its_buffer_while_the_shape_stays(engine, manifest, photo):
    with opened(engine, manifest) as plain, opened(engine, manifest, io_binding=True) as bound:
        kept = []
        for seed, (count, height) in enumerate([(1, 32), (1, 32), (2, 32), (2, 64), (1, 32)]):
            batch = np.stack([photo(height, 64, seed + i) for i in range(count)])
            expected, got = plain.infer(batch)["mask"], bound.infer(batch)["mask"]
            np.testing.assert_array_equal(got, expected)
            kept.append((got, expected))
            assert set(bound.last_timings_ms) == {"upload", "enqueue", "download", "engine"}
        for got, expected in kept:  # later calls do not write into earlier results
            np.testing.assert_array_equal(got, expected)
        assert bound.what_runs()["io_binding"] is True


def test_a_bound_input_is_never_the_image_that_was_given(engine, photo):
    first, second = photo(64, 64, 1), photo(64, 64, 2)
    copies = first.copy(), second.copy()
    with Predictor(engine, options={"threads": 1, "io_binding": True}) as bound:
        mask = bound.predict(first)
        bound.predict(second)
        np.testing.assert_array_equal(first, copies[0])
        np.testing.assert_array_equal(bound.predict(first), mask)


def test_every_output_of_the_file_comes_back(tmp_path, models, manifest, photo):
    path = tmp_path / "model.onnx"
    onnx.save(models["network"](confidence=True), path)
    with opened(path, manifest) as runtime:
        assert set(runtime.infer(photo(32, 32)[None])) == {"mask", "confidence"}


def test_a_provider_that_is_not_there_is_refused_with_what_to_install(engine, manifest):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    cure = r"pip uninstall --yes onnxruntime && pip install 'onnxruntime-gpu\[cuda,cudnn\]==1"
    with pytest.raises(UserError, match=f"CUDAExecutionProvider is not in the installed.*{cure}"):
        opened(engine, manifest, provider="cuda")


@pytest.fixture
def on_the_cpu(monkeypatch):
    """A GPU build without a working GPU: it lists CUDA as available, then runs on the CPU and says nothing."""
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, settings, providers, **_: session(path, settings, ["CPUExecutionProvider"]),
    )
    # Where these libraries are there they are the machine's own.
    monkeypatch.setattr("serving.engines.runtimes.onnxruntime.engine.ctypes.CDLL", lambda name: None)


def test_a_silent_fallback_to_the_cpu_is_an_error(engine, manifest, on_the_cpu):
    expected = r"asked for CUDAExecutionProvider, which does not start.*\(it would run on CPUExecutionProvider\)"
    with pytest.raises(UnavailableError, match=expected) as caught:
        opened(engine, manifest, provider="cuda")
    assert "see by nvidia-smi" in str(caught.value) and "pip" not in str(caught.value)


def test_libraries_that_are_missing_are_in_the_error_and_not_on_the_output(
    engine, manifest, on_the_cpu, monkeypatch, capfd
):
    """ONNX Runtime prints them, four lines with the advice to follow a link."""

    def preload():
        print("Failed to load libcublas.so.13: libcublas.so.13: cannot open shared object file")  # noqa: T201
        print("Please follow https://onnxruntime.ai/docs/install to install CUDA.")  # noqa: T201

    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    monkeypatch.setattr("serving.engines.runtimes.onnxruntime.engine.ctypes.CDLL", missing)
    with pytest.raises(UnavailableError) as caught:
        opened(engine, manifest, provider="cuda")
    message = str(caught.value)
    assert "Failed to load libcublas.so.13" in message and "libcudnn.so.9: cannot open" in message
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]==" in message and "follow" not in message and "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def fake_cuda(monkeypatch):
    """CUDA sessions that run on the CPU; returns the provider options of each that was opened."""
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    session, given = onnxruntime.InferenceSession, []

    def open_session(path, settings, providers, **_):
        ((name, options),) = providers
        assert name == "CUDAExecutionProvider"
        given.append(options)
        opened = session(path, settings, ["CPUExecutionProvider"])
        opened.get_providers = lambda: listed
        return opened

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    return given


def test_single_precision_on_a_gpu_is_not_tensorfloat_32_unless_asked_for(engine, manifest, fake_cuda):
    with opened(engine, manifest, provider="cuda", io_binding=False) as runtime:
        assert runtime.told_precision() is None
    with opened(engine, manifest, provider="cuda", io_binding=False, tf32=True) as runtime:
        assert runtime.told_precision() == "tf32"
    with opened(engine, manifest, provider="cuda", io_binding=False, prefer_nhwc=True, fuse_conv_bias=True):
        pass
    assert [options["use_tf32"] for options in fake_cuda] == ["0", "1", "0"]
    assert [options["prefer_nhwc"] for options in fake_cuda] == ["0", "0", "1"]
    assert [options["fuse_conv_bias"] for options in fake_cuda] == ["0", "0", "1"]
    half = dataclasses.replace(manifest, precision="fp16")
    with pytest.raises(UserError, match="tf32: only for engines in fp32, this one is in fp16"):
        opened(engine, half, provider="cuda", tf32=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tf32": True}, "tf32: only with provider: cuda, got cpu"),
        ({"provider_options": {"use_tf32": 1}}, "provider_options.use_tf32: write `tf32: true`, or nothing"),
        ({"thread": 1}, "options of onnxruntime.thread: unknown key; did you mean 'threads'?"),
        ({"threads": 0}, "threads: expected 1 to 1024, got 0"),
        ({"threads": 5000}, "threads: expected 1 to 1024, got 5000"),
        ({"threads": "two"}, "expected a whole number"),
        ({"provider": "gpu"}, "expected one of cpu, cuda"),
    ],
)
def test_bad_options_are_refused(engine, manifest, options, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        OnnxRuntime.open(engine, manifest, options, check_hash=False)


def test_io_that_is_not_what_the_manifest_says_is_refused_all_at_once(engine, manifest):
    other = dataclasses.replace(
        manifest, input=InputSpec("pixels"), outputs=(OutputSpec("mask", "logits", "NCHW", "float32"),)
    )
    with pytest.raises(UserError) as caught:
        opened(engine, other)
    message = str(caught.value)
    assert "manifest names 'pixels', the engine has ['image']" in message
    assert "output 'mask': manifest says float32, the engine has uint8" in message
    assert "output 'mask': manifest says 4 axes, the engine has 3" in message
    other = dataclasses.replace(manifest, outputs=(OutputSpec("masks"),))
    with pytest.raises(UserError, match=r"output 'masks': not in the engine, which has \['mask'\]"):
        opened(engine, other)


def test_a_graph_that_onnxruntime_cannot_run_is_one_line(tmp_path, models, manifest):
    model = models["network"]()
    model.graph.node[0].op_type = "NoSuchOperator"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="ONNX Runtime cannot open it") as caught:
        opened(tmp_path / "model.onnx", manifest)
    assert "\n" not in str(caught.value)


def test_a_shape_that_the_engine_does_not_take_is_one_line(engine, manifest):
    with opened(engine, manifest) as runtime, pytest.raises(UserError, match=r"on an input of shape \[1, 32, 32, 4\]"):
        runtime.infer(np.zeros((1, 32, 32, 4), np.uint8))


def test_weights_outside_the_file_are_refused(tmp_path, models, manifest):
    path = tmp_path / "model.onnx"
    onnx.save(models["network"](), path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    with pytest.raises(UserError, match="weights in other files"):
        opened(path, manifest)


def test_a_fixed_batch_says_so(tmp_path, models, manifest):
    other = dataclasses.replace(
        manifest,
        input=InputSpec("pixels", "NCHW", "float32", mean=(0, 0, 0), std=(1, 1, 1)),
        outputs=(OutputSpec("result", "logits", "NCHW", "float32"),),
    )
    onnx.save(models["color"](batch=4), tmp_path / "model.onnx")
    with opened(tmp_path / "model.onnx", other) as runtime:
        assert runtime.batch_range == (4, 4)


CORRUPT = """
import sys, pathlib
from serving.contract.errors import UnavailableError, UserError
from serving.contract.manifest import read_manifest
from serving.engines.predictor import Predictor
from serving.engines.runtimes.onnxruntime.engine import OnnxRuntime
import numpy as np
path = pathlib.Path(sys.argv[1])
manifest = read_manifest(path.with_name("described.json"))
whole = path.read_bytes()
rng = np.random.default_rng(0)
refused = 0
for _ in range(60):
    content = bytearray(whole)
    for position in rng.integers(0, len(whole), 4):
        content[position] = rng.integers(256)
    damaged = path.with_name("damaged.onnx")
    damaged.write_bytes(content)
    try:
        with OnnxRuntime.open(damaged, manifest, {"threads": 1}, check_hash=False) as runtime:
            runtime.infer(np.zeros((1, 32, 32, 3), np.uint8))
    except UserError:
        refused += 1
print(refused)
"""


def test_an_input_that_names_no_rank_is_taken(tmp_path, models, manifest, photo):
    model = models["network"]()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    with opened(tmp_path / "model.onnx", manifest) as runtime:
        assert runtime.infer(photo(32, 64)[None])["mask"].shape == (1, 32, 64)
        assert runtime.layer_precisions() == ({"fp32": 2}, "executed kernels of ONNX Runtime")


def test_corrupt_files_never_take_the_process_down(engine, manifest):
    engine.with_name("described.json").write_text(manifest.to_json())
    done = subprocess.run([sys.executable, "-c", CORRUPT, str(engine)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_a_missing_package_is_one_line(engine, manifest, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"runtime onnxruntime: not installed.*pip install onnxruntime"):
        opened(engine, manifest)
