"""Providers in packages of their own: ONNX Runtime's CPU device serves as one, and the real plugin where it is."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from serving.contract.errors import UnavailableError, UserError
from serving.contract.files import file_sha256
from serving.engines.runtimes.onnxruntime import plugins
from serving.engines.runtimes.onnxruntime.contexts import SUFFIX, ContextCache
from serving.engines.runtimes.onnxruntime.engine import OnnxRuntime

CPU = "CPUExecutionProvider"
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)


def opened(path, manifest, **options):
    signed = dataclasses.replace(manifest, sha256=file_sha256(path))
    return OnnxRuntime.open(path, signed, {"provider": "plugin", "plugin": "openvino", **options})


@pytest.fixture
def plugin(monkeypatch):
    """A package whose library is the CPU provider that is there: its device is real, and so are its sessions."""
    package = SimpleNamespace(get_ep_name=lambda: CPU, get_library_path=lambda: "libplugin.so")
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", package)
    loaded = []
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda *names: loaded.append(names))
    monkeypatch.setattr(plugins, "_registered", set())
    return loaded


@pytest.fixture
def compiler(monkeypatch):
    """A compiler of ONNX Runtime's interface that leaves the graph as it is; counts what it compiled."""
    compiled = []

    class Compiler:
        def __init__(self, settings, path, *, embed_compiled_data_into_model, flags):
            assert embed_compiled_data_into_model and settings.has_providers()
            self.path = path

        def compile_to_bytes(self):
            compiled.append(self.path)
            return Path(self.path).read_bytes()

    monkeypatch.setattr(onnxruntime, "ModelCompiler", Compiler)
    return compiled


def contexts(engine):
    return sorted(engine.parent.glob(f"*{SUFFIX}"))


def test_an_engine_runs_on_the_plugins_device(engine, manifest, plugin):
    with OnnxRuntime.open(engine, manifest, {}, check_hash=False) as plain:
        expected = plain.infer(IMAGE)["mask"]
    for _ in range(2):
        with opened(engine, manifest, plugin_device="cpu") as runtime:
            assert np.array_equal(runtime.infer(IMAGE)["mask"], expected)
            assert runtime.what_runs()["provider"] == CPU
            assert runtime.computed_elsewhere() == []
    assert plugin == [(CPU, "libplugin.so")], "loaded once"
    assert contexts(engine) == [], "the CPU provider compiles nothing ahead of time"


def test_without_a_device_it_is_unavailable_and_what_is_offered_is_named(engine, manifest, plugin):
    with pytest.raises(UnavailableError, match=r"ep-openvino offers no npu device on this .*offered: CPUExecutionProv"):
        opened(engine, manifest, plugin_device="npu")
    with pytest.raises(UnavailableError, match="offers no device with device_id 3 on this machine"):
        opened(engine, manifest, device_id=3)


def test_a_package_that_is_not_there_or_does_not_load_is_one_line(engine, manifest, plugin, monkeypatch):
    def refuse(*_names):
        raise RuntimeError("libtbb.so.12: cannot open\nshared object file")

    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", refuse)
    with pytest.raises(
        UnavailableError, match=r"onnxruntime-ep-openvino cannot be loaded: libtbb.so.12: cannot open"
    ) as it:
        opened(engine, manifest)
    assert "\n" not in str(it.value)
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", None)
    with pytest.raises(UnavailableError, match="pip install onnxruntime-ep-openvino"):
        opened(engine, manifest)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"plugin": None}, "plugin: named with provider: plugin, and only there"),
        ({"provider": "cpu"}, "plugin: named with provider: plugin, and only there"),
        ({"plugin": "openvin"}, "expected one of openvino, nv_tensorrt_rtx"),
        ({"io_binding": True}, "io_binding: not with provider: plugin"),
        ({"provider": "cpu", "plugin": None, "plugin_device": "cpu"}, "plugin_device: only with provider: plugin"),
    ],
)
def test_options_that_do_not_go_together_are_refused(engine, manifest, options, expected):
    with pytest.raises(UserError, match=expected):
        opened(engine, manifest, **options)


def test_what_was_compiled_is_kept_beside_the_engine_and_opened_again(engine, manifest, plugin, compiler):
    masks = []
    for _ in range(2):
        with opened(engine, manifest) as runtime:
            masks.append(runtime.infer(IMAGE)["mask"])
    assert len(compiler) == 1 and np.array_equal(*masks)
    (kept,) = contexts(engine)
    assert kept.name.startswith(f"{engine.name}.{file_sha256(engine)[:16]}.")
    with opened(engine, manifest, optimization="basic"):
        assert len(compiler) == 2, "compiled for other options"
    with opened(engine, manifest, context_cache=False):
        assert len(compiler) == 2
    assert len(contexts(engine)) == 2


def test_another_engine_is_compiled_anew_and_what_was_kept_of_the_first_goes(engine, manifest, plugin, compiler):
    opened(engine, manifest).close()
    before = contexts(engine)
    engine.write_bytes(engine.read_bytes() + b"\x72\x00")  # an empty doc string: another hash, the same graph
    opened(engine, manifest).close()
    assert len(compiler) == 2 and len(contexts(engine)) == 1 and contexts(engine) != before


@pytest.mark.parametrize("spoil", [lambda content: content[:-9], lambda content: content[65:], lambda content: b""])
def test_a_damaged_context_is_not_opened(engine, manifest, plugin, compiler, spoil):
    opened(engine, manifest).close()
    (kept,) = contexts(engine)
    whole = kept.read_bytes()
    kept.write_bytes(spoil(whole))
    opened(engine, manifest).close()
    assert len(compiler) == 2 and kept.read_bytes() == whole


def test_a_context_that_the_provider_refuses_gives_way_to_the_engine(engine, manifest, plugin, compiler):
    opened(engine, manifest).close()
    (kept,) = contexts(engine)
    with opened(engine, manifest) as runtime:
        made_for = runtime._open_session.__closure__  # what the session was compiled for, as the runtime sees it
    chosen = next(cell.cell_contents for cell in made_for if isinstance(cell.cell_contents, plugins.Plugin))
    parsed = OnnxRuntime.Options(provider="plugin", plugin="openvino")
    cache = ContextCache(engine, file_sha256(engine), chosen._compiled_for(parsed))
    assert cache.path == kept
    cache.write(b"of another driver")
    with opened(engine, manifest) as runtime:
        assert runtime.infer(IMAGE)["mask"].shape == (1, 32, 64)
    assert not kept.exists(), "the next open compiles anew"


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime_ep_openvino") is None, reason="the plugin is not installed")
def test_the_real_plugin_runs_or_says_what_is_offered(engine, manifest):
    try:
        runtime = opened(engine, manifest)
    except UnavailableError as error:
        assert "onnxruntime-ep-openvino offers no device on this machine; offered: CPUExecutionProvider" in str(error)
        return
    with runtime, OnnxRuntime.open(engine, manifest, {}, check_hash=False) as plain:
        assert runtime.what_runs()["provider"] == "OpenVINOExecutionProvider"
        assert np.array_equal(runtime.infer(IMAGE)["mask"], plain.infer(IMAGE)["mask"])
