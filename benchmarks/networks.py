"""The networks that benchmarks put through the export: the default, and one of every published architecture.

Of each architecture the smallest backbone, so that a run takes minutes; untrained, since neither structure nor speed
depends on what the weights are.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.models.network.config import ModelConfig

NETWORKS: Mapping[str, ModelConfig] = {
    "default": ModelConfig("tf_efficientnet_lite0", False, "light"),
    "deeplabv3": ModelConfig("resnet18", False, "deeplabv3", output_stride=16),
    "hrnet": ModelConfig("hrnet_w18_small_v2", False, "hrnet"),
    "ocr": ModelConfig("hrnet_w18_small_v2", False, "ocr"),
}
