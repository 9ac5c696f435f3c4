"""One timing cache for all builds of a structure on a machine: equal graphs get equal kernels, as the manifests say.

A stand-in for `tensorrt` builds (`tests/fake_gpu.py`): what it times comes out differently at every build.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from export.artifacts.onnx_fp32.export import export
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.plans.compilation import compile_plan
from export.plans.timing_cache import TimingCaches
from export.targets.plan_build import PlanBuild
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from serving.contract.manifest import verify_sidecar
from serving.engines.runtimes.tensorrt.plan import PlanDetails


@pytest.fixture
def build(fake_gpu, tmp_path):
    """Builds a plan; returns the kernels that were chosen, by their times, and the cache's hash in the manifest."""
    folders = iter(range(100))

    def built(source: Path, *, folder="shared", machine="a" * 64, version="11.1.0", gpu=b"Fake GPU"):
        _, library = fake_gpu(package="tensorrt", version=version, name=gpu)
        target = tmp_path / str(next(folders))
        target.mkdir()
        path = compile_plan(
            source,
            target,
            name="plan",
            build=PlanBuild(package="tensorrt"),
            sizes=lambda: [(96, 128)],
            timings=TimingCaches(tmp_path / folder, machine),
        )
        assert {each.name for each in target.iterdir()} == {"model.plan", "manifest.json", "inspection.json"}
        (builder,) = library.builders
        return builder.kernels, PlanDetails.of(verify_sidecar(path), path).extra["timing_cache_sha256"]

    return built


@pytest.fixture(scope="module")
def trained_otherwise(segmentor, info, tmp_path_factory):
    """An export of the same structure with other weights."""
    other = build_segmentor(segmentor.config, info.num_classes, seed=7).eval()
    return export(other, ExportContext("onnx_fp32", tmp_path_factory.mktemp("other"), info), OutputOptions())


def test_equal_graphs_get_equal_kernels_whatever_their_weights(build, exported, trained_otherwise, tmp_path):
    kernels, cache = build(exported)
    assert build(trained_otherwise) == (kernels, cache) == build(exported)
    (file,) = (tmp_path / "shared").iterdir()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == cache
    apart, other_cache = build(exported, folder="apart")
    assert apart != kernels and other_cache != cache, "the stand-in's measurements are noise"


@pytest.mark.parametrize(
    "changed", [{"machine": "b" * 64}, {"version": "11.2.0"}, {"gpu": b"Other GPU"}], ids=lambda each: next(iter(each))
)
def test_other_machines_versions_and_gpus_have_caches_of_their_own(build, exported, tmp_path, changed):
    kernels, _ = build(exported)
    assert build(exported, **changed)[0] != kernels
    assert build(exported)[0] == kernels
    assert len(list((tmp_path / "shared").iterdir())) == 2


def test_another_structure_has_a_cache_of_its_own(build, exported, info, tmp_path):
    config = ModelConfig("mobilenetv3_small_100", pretrained=False, head="light", head_options={"width": 24})
    wider = build_segmentor(config, info.num_classes, seed=0).eval()
    (tmp_path / "wider").mkdir()
    source = export(wider, ExportContext("onnx_fp32", tmp_path / "wider", info), OutputOptions())
    assert build(exported)[1] != build(source)[1]
    assert len(list((tmp_path / "shared").iterdir())) == 2


def test_a_damaged_cache_is_begun_anew(build, exported, tmp_path, monkeypatch):
    build(exported)
    (file,) = (tmp_path / "shared").iterdir()
    content: Any = file.read_text().replace("11.1.0", "10.0.0")  # of another version, under this one's name
    file.write_text(content)
    kernels, cache = build(exported)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == cache
    assert build(exported) == (kernels, cache)
