"""The benchmark on real, tiny engines: what it records, what it refuses, and that one bad engine spoils no other."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.latency import benchmark
from export.latency.benchmark import representative_images, run_benchmark
from export.latency.config import (
    BenchmarkConfig,
    CertifyConfig,
    QuickProfileConfig,
    ReleaseProfileConfig,
)
from export.latency.engine_latency import Engine, input_batches
from export.targets.config import CONTROL
from serving.contract.errors import UserError
from serving.contract.files import write_json
from serving.contract.manifest import InputSpec, Manifest, read_sidecar, write_sidecar
from serving.contract.schema import Problems, build
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile

BRIEF = QuickProfileConfig(
    sessions=3,
    min_seconds=0.01,
    min_queries=12,
    max_seconds=2.0,
    pair_seconds=0.001,
    min_blocks=2,
    throughput_seconds=0.01,
    warm_up_seconds=0.05,
)
CONFIG = BenchmarkConfig(batch_sizes=(1, 2), images=2, optimization_levels=(), quick=BRIEF)
CERTIFY = CertifyConfig(baseline="plain", target="ort", resamples=1000)
IMAGES = list(np.random.default_rng(0).integers(0, 256, (3, 30, 40, 3), dtype=np.uint8))


def save_engine(folder: Path, method: str, *, seed=0, target="ort", batch: str | int = "batch", runtime="onnxruntime"):
    """A network of one convolution, as an engine with its manifest."""
    generator = np.random.default_rng(seed)
    weights = numpy_helper.from_array(generator.normal(size=(4, 3, 3, 3)).astype(np.float32), "weights")
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "weights"], ["logits"], pads=[1, 1, 1, 1]),
        helper.make_node("ArgMax", ["logits"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, "height", "width", 3])
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, [batch, "height", "width"])
    graph = helper.make_graph(nodes, "network", [image], [mask], [weights])
    path = folder / f"{method}-s{seed}" / target / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    names = tuple("abcd")
    manifest = Manifest("ort", "onnx", "fp32", names, tuple((i, i, i) for i in range(4)), InputSpec(stride=16))
    sha256 = write_sidecar(manifest, path).sha256
    return Engine(method, seed, target, path, sha256, runtime, {"threads": 1} if runtime == "onnxruntime" else {})


@pytest.fixture
def engines(tmp_path):
    return [save_engine(tmp_path, "plain"), save_engine(tmp_path, "contrast")]


def run(engines, config=CONFIG, profile="quick", **options):
    return run_benchmark(
        engines, IMAGES, config=config, profile_name=profile, certify=CERTIFY, hardware_sha256="0" * 64, **options
    )


def test_everything_that_was_measured_is_recorded(engines, tmp_path):
    result = run(engines)
    write_json(tmp_path / "benchmark.json", result.summary)
    summary = json.loads((tmp_path / "benchmark.json").read_text())
    assert summary["profile"] == "quick" and all(test["passed"] for test in summary["self_test"])
    assert summary["clock"]["monotonic"] and summary["clock"]["resolution_ns"] <= 1000
    assert summary["settings"]["sessions"] == 3 and summary["settings"]["looks"] == [8]
    assert {"before", "after", "preemptions"} <= set(summary["machine"])
    for row, engine in zip(summary["targets"], engines, strict=True):
        assert (row["status"], row["sha256"]) == ("ok", engine.sha256)
        assert row["input_shape"] == [1, 32, 48, 3]  # 30x40 padded to multiples of 16
        assert row["queries"] >= 12 and row["complete"] and len(row["sessions"]) == 3
        assert row["latency_ms"]["p50"]["low"] <= row["latency_ms"]["p50"]["value"] <= row["latency_ms"]["p50"]["high"]
        assert [entry["batch_size"] for entry in row["throughput"]] == [1, 2]
        assert all(entry["images_per_second"]["value"] > 0 for entry in row["throughput"])
        assert set(row["split_ms"]) == {"preprocess", "engine", "postprocess"}
        assert row["runtime"]["provider"] == "CPUExecutionProvider" and row["runtime"]["threads"] == 1
        assert sum(len(samples) for samples in result.samples[engine.name]) == row["queries"]
    assert {name: len(pairs) for name, pairs in result.pairs.items()} == {CONTROL: 8, "contrast": 8}
    assert summary["comparisons"]["contrast"]["engines"][0]["baseline_sha256"] == engines[0].sha256
    assert summary["comparisons"][CONTROL]["engines"][0]["sha256"] == engines[0].sha256
    assert summary["optimization"] == {}


def test_percentiles_are_those_of_the_raw_samples(engines):
    result = run(engines)
    pooled = np.concatenate(result.samples["plain-s0/ort"]) / 1e6
    row = result.summary["targets"][0]
    assert row["latency_ms"]["p50"]["value"] == pytest.approx(np.median(pooled))
    if len(pooled) >= 100:
        assert row["latency_ms"]["p99"]["value"] == pytest.approx(np.percentile(pooled, 99))


def test_plans_whose_kernels_were_timed_apart_are_not_compared(tmp_path, fake_gpu):
    """Their kernels may differ although their graphs are equal: a certificate would compare two draws of TensorRT's."""
    fake_gpu(package="tensorrt", version="11.1.0")

    def plan(method, timings):
        engine = save_engine(tmp_path / timings, method)
        path = engine.path.with_name("model.plan")
        path.write_bytes(b"PLAN" + engine.path.read_bytes())
        profile = Profile((1, 16, 16, 3), (1, 32, 48, 3), (2, 32, 48, 3))
        details = PlanDetails("tensorrt", "11.1.0", ("8.9",), profile, {"timing_cache_sha256": timings})
        manifest = dataclasses.replace(read_sidecar(engine.path), kind="tensorrt", details=details.to_details())
        sha256 = write_sidecar(manifest, path).sha256
        return dataclasses.replace(engine, path=path, sha256=sha256, runtime="tensorrt", options={})

    apart = run([plan("plain", "a" * 64), plan("contrast", "b" * 64)])
    entry = apart.summary["comparisons"]["contrast"]
    assert entry["status"] == "failed" and "chose their kernels by different measurements" in entry["reason"]
    assert "contrast" not in apart.pairs and len(apart.pairs[CONTROL]) == 8
    together = run([plan("plain", "c" * 64), plan("contrast", "c" * 64)])
    assert together.summary["comparisons"]["contrast"]["status"] == "ok" and len(together.pairs["contrast"]) == 8


def test_wrong_stopwatch_gives_no_latency_at_all(engines):
    start = time.perf_counter_ns()
    result = run(engines, clock=lambda: start + round(1.2 * (time.perf_counter_ns() - start)))
    assert not result.summary["self_test"][0]["passed"]
    assert not result.samples and not result.pairs
    for row in result.summary["targets"]:
        assert row["status"] == "failed" and "stopwatch" in row["reason"] and "latency_ms" not in row


def test_engine_that_changed_since_its_accuracy_was_measured_is_refused(engines):
    engines[1] = dataclasses.replace(engines[1], sha256="f" * 64)
    summary = run(engines).summary
    plain, contrast = summary["targets"]
    assert plain["status"] == "ok" and plain["latency_ms"]["p50"]
    assert contrast["status"] == "failed" and "run verify again" in contrast["reason"]
    assert list(summary["comparisons"]) == [CONTROL]


def test_file_that_was_replaced_behind_its_manifest_is_refused(engines):
    engines[1].path.write_bytes(engines[0].path.read_bytes() + b" ")
    rows = run(engines).summary["targets"]
    assert rows[0]["status"] == "ok"
    assert rows[1]["status"] == "failed" and "sha256" in rows[1]["reason"]


def test_baseline_that_does_not_work_leaves_nothing_to_compare(engines):
    engines[0].path.write_bytes(b"damaged")
    result = run(engines)
    assert result.summary["comparisons"] == {} and result.pairs == {}
    assert result.summary["targets"][1]["status"] == "ok"


def test_batch_that_an_engine_does_not_take_is_null_with_a_reason(tmp_path):
    row = run([save_engine(tmp_path, "plain", batch=1)]).summary["targets"][0]
    assert row["status"] == "ok"
    assert row["throughput"][0]["images_per_second"]["value"] > 0
    assert row["throughput"][1]["images_per_second"] is None and "batches of 1 to 1" in row["throughput"][1]["reason"]


def test_engine_of_a_fixed_batch_is_measured_at_that_batch(tmp_path):
    row = run([save_engine(tmp_path, "plain", batch=3)]).summary["targets"][0]
    assert row["input_shape"][0] == 3


def test_seeds_are_compared_with_their_own_baseline(tmp_path):
    engines = [save_engine(tmp_path, method, seed=seed) for method in ("plain", "contrast") for seed in (0, 1)]
    result = run(engines)
    assert [entry["seed"] for entry in result.summary["comparisons"]["contrast"]["engines"]] == [0, 1]
    assert [pair.variant for pair in result.pairs["contrast"]] == [0, 1] * 4


def test_only_the_certified_target_is_compared(tmp_path):
    engines = [save_engine(tmp_path, "plain"), save_engine(tmp_path, "contrast", target="other")]
    assert list(run(engines).summary["comparisons"]) == [CONTROL]


@pytest.mark.parametrize(("verdict", "pairs"), [("inconclusive", 16), ("pass", 8), ("fail", 8)])
def test_release_goes_on_until_decided(engines, monkeypatch, verdict, pairs):
    """The verdicts are given: what real engines of one speed are found to be is noise on a busy machine."""
    asked = []

    def equivalence(ratio, margin):
        asked.append((ratio.low <= ratio.value <= ratio.high, margin))
        return verdict

    monkeypatch.setattr(benchmark, "equivalence", equivalence)
    config = dataclasses.replace(CONFIG, quick=dataclasses.replace(BRIEF, max_pairs=16))
    result = run(engines, config)
    assert {name: len(samples) for name, samples in result.pairs.items()} == {CONTROL: pairs, "contrast": pairs}
    assert set(asked) == {(True, CERTIFY.margin)}


def test_progress_is_told(engines):
    told = []
    run(engines, progress=lambda *what: told.append(what))
    assert told[0] == ("engines", 1, 3) and told[-1] == ("session pairs", 8, 8)


def test_each_target_is_also_timed_at_other_optimisation_levels(engines):
    told = []
    config = dataclasses.replace(CONFIG, optimization_levels=("basic", "all"))
    found = run(engines, config, progress=lambda *what: told.append(what)).summary["optimization"]
    assert list(found) == ["ort"] and told[-1] == ("optimisation levels", 3, 3)
    entry = found["ort"]
    assert (entry["status"], entry["used"], entry["sha256"]) == ("ok", "all", engines[0].sha256)
    ratio = entry["ratios"]["basic"]
    assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"] and entry["rounds"] >= 6


def test_input_size_and_batches(tmp_path):
    engine = save_engine(tmp_path, "plain")
    manifest = read_sidecar(engine.path)
    batches = input_batches(manifest, IMAGES, input_size=(50, 70), batch_size=2)
    assert len(batches) == 3 and all(batch.shape == (2, 64, 80, 3) for batch in batches)
    assert np.array_equal(batches[0][1], batches[1][0])
    resized = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, resize=(16, 32)))
    assert input_batches(resized, IMAGES, input_size=None, batch_size=1)[0].shape == (1, 16, 32, 3)


def test_images_are_spread_over_the_split():
    def read_image(index):
        return np.uint8(index)

    assert representative_images(read_image, 100, 4) == [0, 33, 66, 99]
    assert representative_images(read_image, 2, 8) == [0, 1]
    assert representative_images(read_image, 5, 1) == [0]
    with pytest.raises(UserError, match="at least one"):
        representative_images(read_image, 0, 4)


def built(values):
    problems = Problems()
    return build(BenchmarkConfig, values, "benchmark", problems), problems


def test_profiles_keep_their_own_defaults():
    config, problems = built({"quick": {"pairs": 9, "max_pairs": 9}, "release": {"pairs": 24}})
    assert not problems
    assert config.profile("quick").sessions == QuickProfileConfig().sessions
    assert config.profile("release").min_seconds == 10 and config.profile("release").min_queries == 100
    assert config.profile("release").looks == (24, 48, 96, 128)
    assert ReleaseProfileConfig().looks[-1] == 128 and QuickProfileConfig().looks == (8,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"release": {"min_seconds": 5}}, "at least 10 s"),
        ({"release": {"min_queries": 50}}, "at least 100 queries"),
        ({"release": {"max_seconds": 60}}, "never cut short"),
        ({"quick": {"pairs": 7}}, "expected at least 8, got 7"),
        ({"quick": {"sessions": 1}}, "one has no interval"),
        ({"batch_sizes": [1, 1]}, "distinct"),
        ({"batch_sizes": []}, "at least one batch size"),
        ({"input_size": [0, 10]}, "input_size"),
        ({"quick": {"pair": 9}}, "did you mean 'pairs'?"),
        ({"optimization_levels": ["most"]}, "optimization_levels"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    config, problems = built(values)
    assert config is None and message in "\n".join(problems)
