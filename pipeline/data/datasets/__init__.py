"""Datasets by name, one room each: label files on disk -> train ids (uint8, 255 outside every class)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.registry import Registry

if TYPE_CHECKING:
    from pipeline.data.datasets.shared.dataset import Dataset

DATASETS: Registry[type[Dataset]] = Registry(
    "dataset",
    {
        "streets": "pipeline.data.datasets.streets.dataset:Streets",
        "camvid": "pipeline.data.datasets.camvid.dataset:CamVid",
        "camvid32": "pipeline.data.datasets.camvid32.dataset:CamVid32",
        "folder": "pipeline.data.datasets.folder.dataset:Folder",
        "cityscapes": "pipeline.data.datasets.cityscapes.dataset:Cityscapes",
        "ade20k": "pipeline.data.datasets.ade20k.dataset:ADE20K",
        "pascal_context": "pipeline.data.datasets.pascal_context.dataset:PascalContext",
        "coco_stuff": "pipeline.data.datasets.coco_stuff.dataset:CocoStuff",
    },
)
