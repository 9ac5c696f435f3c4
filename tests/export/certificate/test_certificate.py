"""The certificate: what passes, what fails and why, and that a network which kept its projection head is found out."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.certificate.certificate import (
    GraphPair,
    LatencyRule,
    MethodInputs,
    certify,
    certify_method,
    latency_section,
    ratio_section,
    structure_section,
)
from export.latency.engine_latency import Engine
from export.latency.latency import WarmUp
from export.latency.paired_latency import PairPlan, PairSamples, SessionComparison, measure_comparisons
from export.targets.config import CONTROL
from pipeline.evaluation.accuracy import PairedAccuracy
from serving.contract.manifest import Manifest, write_sidecar

RULE = LatencyRule(margin=0.02, resamples=2000)
SHAPE = (1, 64, 96, 3)
CHANNELS, CLASSES = 32, 5


def tiny_network(seed=0, *, embed=False, unused=False, channels=CHANNELS, axis=1):
    """uint8 image -> mask, two convolutions; `embed` keeps a projection head, as a further output."""
    generator = np.random.default_rng(seed)

    def weights(name, *shape):
        return numpy_helper.from_array(generator.normal(0, 0.1, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w0", "b0"], ["hidden"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["hidden"], ["features"]),
        helper.make_node("Conv", ["features", "w1", "b1"], ["logits"], kernel_shape=[1, 1]),
        helper.make_node("ArgMax", ["logits"], ["index"], axis=axis, keepdims=0),
        helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8),
    ]
    tensors = [
        weights("w0", channels, 3, 3, 3),
        weights("b0", channels),
        weights("w1", CLASSES, channels, 1, 1),
        weights("b1", CLASSES),
    ]
    outputs = [helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", "height", "width"])]
    if embed:
        nodes += [
            helper.make_node("Conv", ["features", "p0", "p0b"], ["projected"], kernel_shape=[1, 1]),
            helper.make_node("Relu", ["projected"], ["rectified"]),
            helper.make_node("Conv", ["rectified", "p1", "p1b"], ["raw"], kernel_shape=[1, 1]),
            helper.make_node("LpNormalization", ["raw"], ["embeddings"], axis=1, p=2),
        ]
        tensors += [weights("p0", channels, channels, 1, 1), weights("p0b", channels)]
        tensors += [weights("p1", 64, channels, 1, 1), weights("p1b", 64)]
        shape = ["batch", 64, "height", "width"]
        outputs.append(helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, shape))
    if unused:
        tensors.append(weights("left_over", 7, 7))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
    graph = helper.make_graph(nodes, "network", [image], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def tiny_engine(folder: Path, method, model):
    path = folder / method / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    manifest = Manifest(
        name="onnx_fp32",
        kind="onnx",
        precision="fp32",
        class_names=tuple(f"class {i}" for i in range(CLASSES)),
        palette=tuple((i, i, i) for i in range(CLASSES)),
    )
    manifest = write_sidecar(manifest, path)
    return Engine(method, 0, "ort_fp32", path, manifest.sha256, "onnxruntime", {"threads": 1})


def session_pairs(ratio, *, pairs=8, blocks=10, spread=0.002, seed=0, stable=True):
    generator = np.random.default_rng(seed)
    warm = WarmUp(15, 0.1, stable, 0.01)
    result = []
    for index in range(pairs):
        placement = generator.normal(0, spread)
        baseline = generator.normal(10e6, 5e4, (blocks, 2))
        other = generator.normal(10e6, 5e4, (blocks, 2)) * ratio * np.exp(placement)
        latencies = np.concatenate([baseline, other], axis=1).astype(np.int64)
        result.append(PairSamples(latencies, np.zeros(blocks, dtype=bool), bool(index % 2), 0, warm, warm))
    return result


def equal_graphs(seed=0):
    return [GraphPair(seed, tiny_network(1), tiny_network(2), SHAPE)]


def accuracy():
    confusions = np.random.default_rng(0).integers(1, 50, (1, 6, CLASSES, CLASSES))
    names = [f"class {i}" for i in range(CLASSES)]
    return PairedAccuracy(
        [0], confusions, confusions + np.eye(CLASSES, dtype=np.int64) * 20, names, None,
        np.ones((1, 6, CLASSES, 2), dtype=np.int64), np.ones((1, 6, CLASSES, 2), dtype=np.int64),
    )  # fmt: skip


def certificate(inputs, control=None, rule=RULE):
    control = session_pairs(1.0, seed=9) if control is None else control
    return certify({"contrast": inputs}, control, rule, baseline="cross_entropy", target="ort_fp32", profile="quick")


def test_equal_graphs_and_latencies_pass_with_every_promised_key():
    inputs = MethodInputs(equal_graphs(), session_pairs(1.001), accuracy())
    result = certificate(inputs)
    entry = result["methods"]["contrast"]
    assert entry["verdict"] == "pass" and entry["reasons"] == []
    assert entry["structure"]["identical"] is True
    assert {"identical", "nodes", "params", "flops", "weight_bytes"} <= set(entry["structure"])
    assert {"ratio", "ci95", "margin", "control_ratio", "verdict"} <= set(entry["latency"])
    assert {"miou", "baseline_miou", "difference", "ci95"} <= set(entry["accuracy"])
    assert entry["latency"]["margin"] == 0.02
    assert entry["latency"]["ci95"][0] < entry["latency"]["ratio"] < entry["latency"]["ci95"][1]
    assert entry["accuracy"]["difference"] > 0
    assert entry["structure"]["params"] == 32 * 27 + 32 + 5 * 32 + 5
    assert entry["structure"]["flops"] == 64 * 96 * (32 * 27 + 5 * 32)
    assert entry["structure"]["weight_bytes"] == 4 * entry["structure"]["params"]


@pytest.mark.parametrize(
    ("pairs", "verdict", "reason"),
    [
        (session_pairs(1.08), "fail", "lies outside 0.980 to 1.020"),
        (session_pairs(0.9), "fail", "lies outside"),
        (session_pairs(1.0, spread=0.03), "inconclusive", "reaches beyond"),
        (session_pairs(1.0)[:7], "inconclusive", "7 session pairs are too few; expected at least 8"),
        ([], "inconclusive", "nothing was measured"),
    ],
)
def test_latency_verdicts(pairs, verdict, reason):
    section = latency_section(pairs, ratio_section(session_pairs(1.0, seed=9), RULE), RULE)
    assert section["verdict"] == verdict
    assert reason in section["reasons"][0]
    entry = certify_method(MethodInputs(equal_graphs(), pairs), ratio_section(session_pairs(1.0), RULE), RULE)
    assert entry["verdict"] == verdict


@pytest.mark.parametrize("control", [session_pairs(1.1), session_pairs(1.0, spread=0.05), []])
def test_nothing_passes_when_the_control_does_not(control):
    entry = certificate(MethodInputs(equal_graphs(), session_pairs(1.0)), control)["methods"]["contrast"]
    assert entry["latency"]["verdict"] == "inconclusive"
    assert "control" in entry["latency"]["reasons"][0]
    assert entry["verdict"] == "inconclusive"


def test_failure_stays_a_failure_whatever_the_control():
    entry = certificate(MethodInputs(equal_graphs(), session_pairs(1.2)), session_pairs(1.1))["methods"]["contrast"]
    assert entry["verdict"] == "fail"


def test_more_looks_widen_the_interval():
    pairs = session_pairs(1.0, pairs=16)
    one, four = (ratio_section(pairs, dataclasses.replace(RULE, looks=looks))["ci95"] for looks in (1, 4))
    assert four[0] < one[0] < one[1] < four[1]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (tiny_network(2, embed=True), "graph outputs"),
        (tiny_network(2, channels=33), "constant"),
        (tiny_network(2, axis=-3), "attribute axis"),
        (tiny_network(2, unused=True), "initializers that no output needs, the first is 'left_over'"),
    ],
)
def test_every_structural_difference_fails_and_is_named(other, reason):
    section = structure_section([GraphPair(0, tiny_network(1), other, SHAPE)])
    assert section["verdict"] == "fail"
    assert any(reason in text for text in section["reasons"]), section["reasons"]
    entry = certify_method(
        MethodInputs([GraphPair(0, tiny_network(1), other, SHAPE)], session_pairs(1.0)),
        ratio_section(session_pairs(1.0), RULE),
        RULE,
    )
    assert entry["verdict"] == "fail"


def test_one_seed_that_differs_is_enough():
    graphs = [*equal_graphs(0), GraphPair(3, tiny_network(1), tiny_network(2, embed=True), SHAPE)]
    section = structure_section(graphs)
    assert not section["identical"] and "(seed 3)" in section["first_difference"]


def test_missing_inputs_are_inconclusive_and_says_why():
    inputs = MethodInputs(missing={"structure": "export failed", "latency": "skipped", "accuracy": "no labels"})
    entry = certificate(inputs)["methods"]["contrast"]
    assert entry["verdict"] == "inconclusive"
    assert entry["reasons"] == ["structure: export failed", "latency: skipped"]
    assert entry["accuracy"] == {"reason": "no labels"}
    assert entry["structure"]["params"] is None and entry["latency"]["ratio"] is None


def measured(engines, *, blocks, pairs=8):
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    baseline, other = engines
    comparisons = [
        SessionComparison(CONTROL, ((baseline.open, baseline.open),)),
        SessionComparison(other.method, ((baseline.open, other.open),)),
    ]
    return measure_comparisons(
        comparisons,
        list(images),
        PairPlan((pairs,), 0.0, blocks),
        decided=lambda _: False,
        generator=np.random.default_rng(0),
    )


def test_network_that_kept_its_projection_head_fails(tmp_path):
    """The negative control, on a small network: structure and latency must both find it."""
    models = tiny_network(1), tiny_network(2, embed=True)
    engines = [tiny_engine(tmp_path, name, model) for name, model in zip(("baseline", "kept"), models, strict=True)]
    pairs = measured(engines, blocks=8)
    rule = dataclasses.replace(RULE, margin=0.1)
    result = certify(
        {"kept": MethodInputs([GraphPair(0, *models, SHAPE)], pairs["kept"])},
        pairs[CONTROL],
        rule,
        baseline="baseline",
        target="ort_fp32",
        profile="quick",
    )
    entry = result["methods"]["kept"]
    assert entry["structure"]["verdict"] == "fail" and not entry["structure"]["identical"]
    assert "graph outputs" in entry["structure"]["first_difference"]
    assert entry["structure"]["params"] > entry["structure"]["baseline"]["params"]
    assert entry["latency"]["verdict"] == "fail" and entry["latency"]["ratio"] > 1.1
    assert entry["verdict"] == "fail"


@pytest.mark.slow
def test_trainee_shipped_whole_fails_where_the_stripped_one_passes(tmp_path):
    """The negative control on the default network: the trainee's own projection head, exported with the graph."""
    import torch
    from torch import nn

    from export.graph.deploy import DeployGraph
    from pipeline.models.network.config import ModelConfig
    from pipeline.models.network.head import Taps
    from pipeline.models.network.segmentor import build_segmentor
    from pipeline.models.training_heads.trainee import build_trainee, strip

    config = ModelConfig(pretrained=False)

    class KeptProjection(nn.Module):
        def __init__(self, trainee):
            super().__init__()
            self.trainee, self.deployed = trainee, DeployGraph(trainee.segmentor)

        def forward(self, image):
            images = ((image.to(torch.float32) - self.deployed.mean) / self.deployed.std).permute(0, 3, 1, 2)
            output = self.trainee(images, embed=True, everywhere=True)
            size = (image.shape[1], image.shape[2])
            logits = nn.functional.interpolate(output.logits.main, size, mode="bilinear", align_corners=False)
            return logits.argmax(dim=1).to(torch.uint8), output.embeddings[0]

    def exported(network, names):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own
            return torch.onnx.export(
                network,
                (torch.zeros((1, 96, 128, 3), dtype=torch.uint8),),
                dynamo=True,
                opset_version=18,
                external_data=False,
                input_names=["image"],
                output_names=names,
                verbose=False,
            ).model_proto

    def stripped(seed):
        trainee = build_trainee(
            build_segmentor(config, CLASSES, seed=seed),
            taps=Taps.HEAD_INPUT,
            embedding_dim=256,
            term_heads=nn.ModuleDict(),
            auxiliary=False,
            seed=seed,
        ).eval()
        images = torch.rand((1, 3, 96, 128), generator=torch.Generator().manual_seed(0)) * 255
        return trainee, strip(trainee, trainee.segmentor.normalise(images))

    trainee, segmentor = stripped(1)
    models = {
        "baseline": exported(DeployGraph(stripped(0)[1]), ["mask"]),
        "stripped": exported(DeployGraph(segmentor), ["mask"]),
        "kept": exported(KeptProjection(trainee), ["mask", "embeddings"]),
    }
    engines = {name: tiny_engine(tmp_path, name, model) for name, model in models.items()}
    baseline = engines["baseline"]
    shape = (1, 96, 128, 3)
    pairs = measure_comparisons(
        [
            SessionComparison(name, ((baseline.open, engine.open),))
            for name, engine in {CONTROL: baseline, "stripped": engines["stripped"], "kept": engines["kept"]}.items()
        ],
        list(np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)),
        PairPlan((12,), 0.3, 20),
        decided=lambda _: False,
        generator=np.random.default_rng(0),
    )
    inputs = {
        name: MethodInputs([GraphPair(0, models["baseline"], models[name], shape)], pairs[name])
        for name in ("stripped", "kept")
    }
    result = certify(inputs, pairs[CONTROL], RULE, baseline="baseline", target="ort_fp32", profile="quick")
    kept, good = result["methods"]["kept"], result["methods"]["stripped"]
    assert kept["structure"]["verdict"] == "fail" and kept["latency"]["verdict"] == "fail"
    assert kept["verdict"] == "fail" and kept["latency"]["ratio"] > 1.02
    assert good["structure"]["verdict"] == "pass", good["structure"]["reasons"]
    assert good["verdict"] != "fail", good["reasons"]  # undecided on a restless machine, but never a failure
