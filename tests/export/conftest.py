"""One small real network, its export, and labelled images that it mostly gets right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from export.artifacts.onnx_fp32.export import export
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.checks.examination.config import VerifyConfig
from export.checks.examination.context import CheckContext
from export.checks.examination.images import scene
from export.checks.examination.reference import Reference
from export.report.config import GateConfig
from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.network.weights import SegmentorInfo, save_segmentor, tensors_sha256

CLASS_NAMES = ("road", "sky", "car", "tree", "sign")
PALETTE = ((128, 64, 128), (70, 130, 180), (0, 0, 142), (107, 142, 35), (220, 220, 0))


def wake(segmentor: Segmentor, seed: int) -> Segmentor:
    """Give an untrained network answers worth comparing: settled batch norms and logits of several units that vary."""
    generator = np.random.default_rng(seed)
    for module in segmentor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    segmentor.train()
    with torch.no_grad():
        for _ in range(2):
            images = np.stack([scene(96, 128, generator) for _ in range(4)])
            segmentor(segmentor.normalise(torch.from_numpy(images).permute(0, 3, 1, 2)))
        segmentor.eval()
        classifier = segmentor.head.classifier
        assert isinstance(classifier, nn.Conv2d)
        weights = torch.randn(classifier.weight.shape, generator=torch.Generator().manual_seed(seed))
        classifier.weight.copy_(weights - weights.mean(dim=0))
        logits = segmentor(segmentor.normalise(torch.from_numpy(images).permute(0, 3, 1, 2)))
        classifier.bias.copy_(-logits.mean(dim=(0, 2, 3)))
    return segmentor


@pytest.fixture(scope="session")
def segmentor() -> Segmentor:
    """A small network in evaluation mode."""
    config = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="light", head_options={"width": 16})
    return wake(build_segmentor(config, len(CLASS_NAMES), seed=0), seed=0)


@pytest.fixture(scope="session")
def info(segmentor: Segmentor) -> SegmentorInfo:
    """What it is."""
    return SegmentorInfo(
        model=segmentor.config,
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=PALETTE,
        ignore_index=255,
        provenance={"method": "pixel_contrast", "seed": 0, "weights_sha256": tensors_sha256(segmentor.state_dict())},
    )


@pytest.fixture(scope="session")
def stripped(segmentor: Segmentor, info: SegmentorInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, as the stage strip writes it."""
    folder = tmp_path_factory.mktemp("branch") / "stripped"
    save_segmentor(segmentor, info, folder)
    return folder


@pytest.fixture(scope="session")
def exported(segmentor: Segmentor, info: SegmentorInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine file, its manifest beside it. Not to be changed: see `engine`."""
    folder = tmp_path_factory.mktemp("onnx_fp32")
    return export(segmentor, ExportContext("onnx_fp32", folder, info), OutputOptions())


@pytest.fixture
def engine(exported: Path, tmp_path: Path) -> Path:
    """A copy of the engine and its manifest, to be damaged."""
    folder = tmp_path / "engine"
    shutil.copytree(exported.parent, folder)
    return folder / exported.name


@pytest.fixture(scope="session")
def reference(segmentor: Segmentor, info: SegmentorInfo) -> Reference:
    """The network in PyTorch."""
    return Reference(segmentor, info)


@pytest.fixture(scope="session")
def dataset_root(segmentor: Segmentor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose labels are the network's own masks, spoilt in places, in the layout of `folder`."""
    root = tmp_path_factory.mktemp("dataset")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    predict = segmentor_predictor(segmentor, torch.device("cpu"))
    generator = np.random.default_rng(1)
    for index in range(10):
        image = scene(90, 125, generator)
        label = predict(image).copy()
        top, left = generator.integers(0, 60), generator.integers(0, 80)
        label[top : top + 20, left : left + 30] = generator.integers(0, len(CLASS_NAMES))
        label[:3] = 255
        Image.fromarray(image).save(root / "images" / f"{index:02}.png")
        Image.fromarray(label).save(root / "labels" / f"{index:02}.png")
    return root


@pytest.fixture(scope="session")
def prepared_folder(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as the stage prepare leaves it."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare(PrepareConfig(dataset="folder", root=str(dataset_root)), folder)
    return folder


@pytest.fixture(scope="session")
def prepared(dataset_root: Path, prepared_folder: Path) -> Prepared:
    """The dataset."""
    return load_prepared(prepared_folder, dataset_root)


@pytest.fixture
def examine(reference: Reference, prepared: Prepared) -> Callable[..., CheckContext]:
    """Makes the context of an engine file, on a small budget."""

    def make(path: Path, **changes: object) -> CheckContext:
        settings: dict[str, object] = {
            "runtime": "onnxruntime",
            "options": {"threads": 1},
            "reference": reference,
            "split": prepared.split("val"),
            "config": VerifyConfig(images=2, max_side=128, resamples=100),
            "max_miou_drop_points": GateConfig().max_miou_drop_points,
        }
        return CheckContext(path, **(settings | changes))

    return make
