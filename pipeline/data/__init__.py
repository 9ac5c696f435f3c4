"""Datasets: label files on disk -> train ids (uint8, 255 outside every class)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.data.interface import Dataset

DATASETS: Registry[type[Dataset]] = Registry(
    "dataset",
    {
        "streets": "pipeline.data.streets:Streets",
        "camvid": "pipeline.data.camvid:CamVid",
        "camvid32": "pipeline.data.camvid32:CamVid32",
        "folder": "pipeline.data.folder:Folder",
        "cityscapes": "pipeline.data.cityscapes:Cityscapes",
        "ade20k": "pipeline.data.ade20k:ADE20K",
        "pascal_context": "pipeline.data.pascal_context:PascalContext",
        "coco_stuff": "pipeline.data.coco_stuff:CocoStuff",
    },
)

# What a generated dataset's files are drawn by: used by `prepare` alone.
GENERATORS: Registry[Callable[[tuple[int, ...], int, int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]] = Registry(
    "generator",
    {"streets": "pipeline.data.street_scenes.render:render_street"},
)
