"""The networks that benchmarks put through the export (the default, one of every published architecture), and how.

Of each architecture the smallest backbone, so that a run takes minutes; untrained, since neither structure nor speed
depends on what the weights are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from export.artifacts import ARTIFACT_KINDS
from export.artifacts.shared.exporter import ExportContext
from export.targets.artifact_config import ArtifactConfig
from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import SegmentorInfo

NETWORKS: Mapping[str, ModelConfig] = {
    "default": ModelConfig("tf_efficientnet_lite0", False, "light"),
    "deeplabv3": ModelConfig("resnet18", False, "deeplabv3", output_stride=16),
    "hrnet": ModelConfig("hrnet_w18_small_v2", False, "hrnet"),
    "ocr": ModelConfig("hrnet_w18_small_v2", False, "ocr"),
    "hgnetv2": ModelConfig("hgnetv2_b0", False, "light"),
    "mobilenetv4": ModelConfig("mobilenetv4_conv_small", False, "light"),
    "repvit": ModelConfig("repvit_m1", False, "light"),
    "efficientvit": ModelConfig("efficientvit_b0", False, "light"),
    "segformer": ModelConfig("pvt_v2_b0", False, "segformer"),
}


def street_scenes(folder: Path, side: int, seed: int = 0) -> Prepared:
    """A few square scenes, prepared in `folder`: enough to calibrate and to run on."""
    options = {"train": 6, "val": 1, "test": 1, "height": side, "width": side, "seed": seed}
    prepare(PrepareConfig(dataset="streets", options=options), folder)
    return load_prepared(folder, None)


def exported(name: str, config: ArtifactConfig, segmentor: Segmentor, prepared: Prepared, folder: Path) -> Path:
    """The engine file of a network for the classes of `prepared`, written into an existing `folder`."""
    info = SegmentorInfo(segmentor.config, prepared.num_classes, prepared.class_names, prepared.palette, 255)
    context = ExportContext(name, folder, info, lambda: prepared)
    return ARTIFACT_KINDS.resolve(config.kind).exporter()(segmentor, context, config.exporter_options())
