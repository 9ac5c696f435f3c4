"""The search for layers to keep in float, on a trained network that is damaged where only INT8 notices."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch.nn import functional

from export.artifacts.onnx_int8.export import export
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.shared.exporter import ExportContext
from export.checks.examination.images import scene
from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo
from serving.contract.manifest import verify_sidecar

pytestmark = pytest.mark.slow

CLASS_NAMES = ("red", "green", "blue")
PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
LIMIT_POINTS = 1.0


def strongest_colour(image):
    """Labels `[H,W]`: which colour is the strongest around each pixel."""
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((width // 8, height // 8), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR)).argmax(axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def trained():
    """A network that has learnt something: of random weights, INT8 tells nothing."""
    config = ModelConfig(backbone="resnet18", pretrained=False, head="light", head_options={"width": 16})
    segmentor = build_segmentor(config, len(CLASS_NAMES), seed=0).train()
    optimizer = torch.optim.Adam(segmentor.parameters(), 3e-3)
    generator = np.random.default_rng(0)
    for _ in range(40):
        images = [scene(64, 64, generator) for _ in range(4)]
        labels = torch.from_numpy(np.stack([strongest_colour(image) for image in images])).long()
        logits = segmentor(segmentor.normalise(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)))
        logits = functional.interpolate(logits, labels.shape[1:], mode="bilinear")
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels).backward()
        optimizer.step()
    return segmentor.eval()


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """The dataset that it has learnt."""
    root = tmp_path_factory.mktemp("colours")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    generator = np.random.default_rng(1)
    for index in range(12):
        image = scene(96, 128, generator)
        Image.fromarray(image).save(root / "images" / f"{index:02}.png")
        Image.fromarray(strongest_colour(image)).save(root / "labels" / f"{index:02}.png")
    folder = root / "prepared"
    prepare(PrepareConfig(dataset="folder", root=str(root)), folder)
    return load_prepared(folder, root)


@pytest.fixture
def quantise(colours, tmp_path):
    """Exports in INT8; gives the graph and what the manifest says of it."""

    def quantise(segmentor):
        info = SegmentorInfo(segmentor.config, len(CLASS_NAMES), CLASS_NAMES, PALETTE, ignore_index=255)
        context = ExportContext("onnx_int8", tmp_path, info, lambda: colours)
        options = OnnxInt8Options(images=4, held_out=4, probes=1, max_miou_drop_points=LIMIT_POINTS)
        path = export(segmentor, context, options)
        return onnx.load(path), verify_sidecar(path).details["quantisation"]

    return quantise


def last_layers(model):
    """The classifier, and the layer that feeds it."""
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    return layers[-1], layers[-2]


def last_norm(segmentor):
    """The batch norm of the layer that feeds the classifier: it scales what a channel gives."""
    modules = segmentor.head.refinements[0].modules()
    return [module for module in modules if isinstance(module, torch.nn.BatchNorm2d)][-1]


def spoil_weights(segmentor):
    """A weight a thousand times larger than the others, of an input channel that is always zero."""
    weight = segmentor.head.classifier.weight
    norm = last_norm(segmentor)
    norm.weight[0] = norm.bias[0] = 0
    weight[:, 0] = 1000 * weight.abs().max()


def spoil_activations(segmentor):
    """A channel a thousand times stronger, and weights as much smaller that read it: the same answers."""
    norm = last_norm(segmentor)
    channel = norm.bias.argmax()  # one that a rectifier lets through
    norm.weight[channel] *= 1024
    norm.bias[channel] *= 1024
    segmentor.head.classifier.weight[:, channel] /= 1024


def test_an_undamaged_network_keeps_nothing_and_is_not_searched(trained, quantise):
    _, found = quantise(trained)
    assert found["kept_in_float"] == [] and found["sensitivities"] == {} and found["within_limit"]
    assert found["miou_drop_points"] == found["miou_drop_points_without_kept"] <= LIMIT_POINTS


@pytest.mark.parametrize(("spoil", "culprits"), [(spoil_weights, 1), (spoil_activations, 2)])
def test_the_layers_that_hurt_are_kept_in_float_and_no_others(trained, quantise, spoil, culprits):
    """Weights spoil one layer; activations both that make them and that read them, for either rounds them."""
    damaged = copy.deepcopy(trained)
    with torch.no_grad():
        spoil(damaged)
    model, found = quantise(damaged)
    names = [node.name for node in last_layers(model)[:culprits]]
    assert found["miou_drop_points_without_kept"] > 10 * LIMIT_POINTS
    assert found["miou_drop_points"] <= LIMIT_POINTS and found["within_limit"]
    assert sorted(found["kept_in_float"]) == sorted(names)
    ranked = sorted(found["sensitivities"], key=found["sensitivities"].get, reverse=True)
    assert set(ranked[:culprits]) == set(names) and len(ranked) == found["layers"]
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in last_layers(model)[:culprits]:
        assert node.input[1] not in dequantised, "its weights are as they were trained"
