"""TensorRT plans: really built where TensorRT-RTX is installed, refused with every reason where they cannot be."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from export.artifacts.onnx_fp16.export import export as export_fp16
from export.artifacts.onnx_int8.export import export as export_int8
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.plans.compilation import compile_plan, import_package, network_precisions
from export.plans.timing_cache import TimingCaches
from export.targets.config import TargetConfig
from export.targets.plan_build import PlanBuild
from serving.contract.errors import UnavailableError, UserError
from serving.contract.files import file_sha256
from serving.contract.manifest import read_sidecar, verify_sidecar, write_sidecar
from serving.engines.runtimes.tensorrt.plan import PlanDetails

BUILD = PlanBuild(
    package="tensorrt_rtx", compute_capabilities=("8.9",), min=(1, 64, 64), opt=(1, 64, 96), max=(2, 128, 128)
)


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra tensorrt-rtx)")


def no_sizes():
    raise AssertionError("every shape is named")


def compiled(source: Path, folder: Path, name: str, build: PlanBuild = BUILD) -> Path:
    # TensorRT-RTX times nothing when it builds.
    return compile_plan(source, folder, name=name, build=build, sizes=no_sizes, timings=TimingCaches(folder, ""))


def build_int8(segmentor, info, prepared, folder, scheme):
    options = OnnxInt8Options(scheme=scheme, images=2, held_out=1, max_miou_drop_points=100)
    return export_int8(segmentor, ExportContext(folder.name, folder, info, lambda: prepared), options)


def test_a_plan_says_what_it_is(rtx, exported, tmp_path):
    path = compiled(exported, tmp_path, "tensorrt_fp32")
    manifest = verify_sidecar(path)
    source = read_sidecar(exported)
    plan = PlanDetails.of(manifest, path)
    assert (manifest.kind, manifest.precision, manifest.name) == ("tensorrt", "fp32", "tensorrt_fp32")
    assert (plan.package, plan.version, plan.compute_capabilities) == ("tensorrt_rtx", rtx.__version__, ("8.9",))
    assert (plan.profile.min, plan.profile.opt, plan.profile.max) == ((1, 64, 64, 3), (1, 64, 96, 3), (2, 128, 128, 3))
    assert plan.extra["onnx_sha256"] == file_sha256(exported)
    assert list(plan.extra["layers"]) == ["fp32"] and plan.extra["timing_cache_sha256"] is None
    assert manifest.provenance == source.provenance and manifest.class_names == source.class_names
    assert "fp32" in json.loads((tmp_path / "inspection.json").read_text())["layers"]


@pytest.fixture
def configured(rtx, monkeypatch):
    """The real builder configurations that were made, as they were left."""
    made = []
    create = rtx.Builder.create_builder_config

    def kept(self):
        made.append(create(self))
        return made[-1]

    monkeypatch.setattr(rtx.Builder, "create_builder_config", kept)
    return made


def test_single_precision_is_not_computed_in_tensorfloat_32(rtx, configured, exported, tmp_path):
    manifest = read_sidecar(compiled(exported, tmp_path, "full"))
    (config,) = configured
    assert not config.get_flag(rtx.BuilderFlag.TF32)
    assert manifest.precision == "fp32" and list(PlanDetails.of(manifest, "plan").extra["layers"]) == ["fp32"]


def test_tensorfloat_32_is_a_precision_of_its_own(rtx, configured, exported, tmp_path):
    build = dataclasses.replace(BUILD, tf32=True)
    manifest = read_sidecar(compiled(exported, tmp_path, "tf32", build))
    (config,) = configured
    assert config.get_flag(rtx.BuilderFlag.TF32)
    assert manifest.precision == "tf32" and list(PlanDetails.of(manifest, "plan").extra["layers"]) == ["tf32"]


def test_tensorfloat_32_is_for_single_precision_only(engine, tmp_path):
    write_sidecar(dataclasses.replace(read_sidecar(engine), precision="fp16"), engine)
    with pytest.raises(UserError, match=r"build\.tf32: only for artifacts in fp32, .* is in fp16"):
        compiled(engine, tmp_path, "x", dataclasses.replace(BUILD, tf32=True))


def test_half_graphs_give_half_plans(rtx, segmentor, info, tmp_path):
    source = export_fp16(segmentor, ExportContext("onnx_fp16", tmp_path, info), OutputOptions())
    (tmp_path / "plan").mkdir()
    manifest = read_sidecar(compiled(source, tmp_path / "plan", "half"))
    assert manifest.precision == "fp16"
    assert list(PlanDetails.of(manifest, "plan").extra["layers"]) == ["fp16"]


@pytest.mark.slow
def test_symmetric_int8_gives_an_int8_plan(rtx, segmentor, info, prepared, tmp_path):
    source = build_int8(segmentor, info, prepared, tmp_path, "symmetric")
    (tmp_path / "plan").mkdir()
    manifest = read_sidecar(compiled(source, tmp_path / "plan", "int8"))
    layers: Any = PlanDetails.of(manifest, "plan").extra["layers"]
    assert manifest.precision == "int8" and layers["int8"] >= 0.9 * sum(layers.values())


@pytest.mark.slow
def test_quantised_biases_are_refused_with_the_parsers_own_words(rtx, segmentor, info, prepared, tmp_path):
    source = build_int8(segmentor, info, prepared, tmp_path, "asymmetric")
    with pytest.raises(UserError, match=r"does not take this graph, \d+ errors?:\n  node .*DequantizeLinear.*Int32"):
        compiled(source, tmp_path, "int8")


def test_a_changed_onnx_file_is_refused_before_it_is_parsed(engine, tmp_path):
    engine.write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"(?i)sha-?256"):
        compiled(engine, tmp_path, "changed")


def test_every_error_of_the_parser_is_shown(rtx, engine, tmp_path):
    model = onnx.load(engine)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "NonMaxSuppression"
    engine.write_bytes(model.SerializeToString())
    write_sidecar(read_sidecar(engine), engine)
    with pytest.raises(UserError, match=r"does not take this graph, \d+ errors?:\n  node .*NonMaxSuppression"):
        compiled(engine, tmp_path, "broken")


def test_a_capability_that_rtx_does_not_know_is_named(rtx, exported, tmp_path):
    build = dataclasses.replace(BUILD, compute_capabilities=("9.0",))
    with pytest.raises(UnavailableError, match=r"compute capability 9\.0; it knows 7\.5, 8\.0"):
        compiled(exported, tmp_path, "hopper", build)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UnavailableError,
        match=r"tensorrt or tensorrt-rtx is not installed \(.*\): on a machine with an NVIDIA GPU, make install "
        r"EXTRA=gpu,tensorrt$",
    ):
        import_package("auto")


def test_the_extra_to_install_keeps_the_onnx_runtime_that_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    for there, extra in ((False, "cpu"), (True, "gpu")):
        monkeypatch.setattr("export.plans.compilation._is_installed", lambda name, there=there: there)
        with pytest.raises(UnavailableError, match=rf"make install EXTRA={extra},tensorrt-rtx$"):
            import_package("tensorrt_rtx")


@pytest.fixture
def built_by_tensorrt(fake_gpu, exported, tmp_path):
    """Builds with a stand-in for `tensorrt`; returns its builder and the plan's details."""

    def built(version, build=None, device_id=0, **gpu):
        _, library = fake_gpu(package="tensorrt", version=version, **gpu)
        path = compile_plan(
            exported,
            tmp_path,
            name="plan",
            build=build or PlanBuild(package="tensorrt"),
            sizes=lambda: [(96, 128)],
            timings=TimingCaches(tmp_path / "timings", "0" * 64),
            device_id=device_id,
        )
        (builder,) = library.builders
        return builder, PlanDetails.of(verify_sidecar(path), path)

    return built


@pytest.mark.parametrize(("version", "flags"), [("10.3.0", 2), ("10.13.2.6", 2), ("11.0.0.114", 0), ("11.1.0", 0)])
def test_tensorrt_10_is_told_to_type_strongly(built_by_tensorrt, version, flags):
    """JetPack's TensorRT 10 would otherwise compute an fp32 graph in what it likes; later ones know nothing else."""
    builder, plan = built_by_tensorrt(version)
    assert builder.network.flags == flags
    assert (plan.package, plan.version) == ("tensorrt", version)


def test_a_tensorrt_that_is_too_old_is_refused(built_by_tensorrt):
    with pytest.raises(UnavailableError, match=r"tensorrt 10\.2\.0 is too old: 10\.3 or newer is needed"):
        built_by_tensorrt("10.2.0")


def test_tensorrt_builds_on_the_chosen_gpu_without_tensorfloat_32(built_by_tensorrt):
    assert built_by_tensorrt("11.1.0", devices=2)[0].device == 0
    builder, _ = built_by_tensorrt("11.1.0", devices=2, device_id=1)
    assert builder.device == 1 and builder.config.flags == set()
    with pytest.raises(UserError, match=r"device_id 2: this machine has 2 CUDA device\(s\)"):
        built_by_tensorrt("11.1.0", devices=2, device_id=2)


def test_auto_takes_the_one_that_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", SimpleNamespace(__name__="tensorrt_rtx"))
    assert import_package("auto").__name__ == "tensorrt_rtx"


def test_bad_builds_are_refused_when_params_are_read():
    with pytest.raises(ValueError, match=r"0 < min <= opt <= max.*\n.*compute_capabilities: .*'8,9'"):
        PlanBuild(min=(2, 64, 64), opt=(1, 64, 64), compute_capabilities=("8,9",))
    with pytest.raises(ValueError, match=r"0 < min <= opt <= max on every axis, got \[0, 64, 64\]"):
        PlanBuild(max=(0, 64, 64))
    with pytest.raises(ValueError, match="build: the runtime onnxruntime compiles nothing"):
        TargetConfig("onnx_fp32", build=PlanBuild(package="tensorrt"))


def test_a_product_with_an_unpacked_weight_counts_as_int8_also_where_the_parser_reshapes_the_weight(rtx, tmp_path):
    # Attention's projections: TensorRT's parser broadcasts [K,N] to [1,K,N] between unpacking and product.
    weight = onnx.numpy_helper.from_array(np.ones((8, 8), np.int8), "packed")
    scale = onnx.numpy_helper.from_array(np.array(0.5, np.float32), "scale")
    zero = onnx.numpy_helper.from_array(np.array(0, np.int8), "zero")
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["tokens", "scale", "zero"], ["rounded"]),
        onnx.helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["activations"]),
        onnx.helper.make_node("DequantizeLinear", ["packed", "scale", "zero"], ["weight"]),
        onnx.helper.make_node("MatMul", ["activations", "weight"], ["product"]),
        onnx.helper.make_node("MatMul", ["product", "product"], ["scores"]),  # of two activations: no layer
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8, 8]) for name in ("tokens", "scores")
    ]
    graph = onnx.helper.make_graph(nodes, "attention", values[:1], values[1:], [weight, scale, zero])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    log = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(log)
    network = builder.create_network(0)
    assert rtx.OnnxParser(network, log).parse(model.SerializeToString())
    assert network_precisions(network, tf32=False) == {"int8": 1}
