"""Lets torchvision, and timm which needs it, load beside a CPU-only torch. Import this before either.

The wheels of torchvision on the Python package index are linked against the CUDA build of torch: beside a CPU-only
torch their C++ library cannot be loaded, the operators `torchvision::nms` and `torchvision::qnms` stay undefined, and
the import fails when torchvision registers their meta kernels. Nothing in this project calls either operator, so
defining their schemas is enough. Where torchvision loads by itself this module changes nothing.
"""

from __future__ import annotations

import importlib
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_KEPT: list[torch.library.Library] = []  # a Library takes its definitions away again when it is collected


def _load() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        _KEPT.append(library)
        for schema in _SCHEMAS:
            library.define(schema)  # type: ignore[no-untyped-call]
        importlib.import_module("torchvision")


_load()
