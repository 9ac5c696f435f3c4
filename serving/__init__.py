"""What a device needs: from image files to masks with an exported engine, without torch.

Its names are imported when they are first asked for, so that `import serving` costs nothing and brings in no engine
library; those are imported when an engine is opened.

Example:
    >>> from serving import Predictor, UserError, read_image
    >>> Predictor.open("gone.onnx")
    Traceback (most recent call last):
        ...
    serving.contract.errors.UserError: gone.onnx: no such file (exported engines lie under artifacts/; ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.contract.errors import EngineError, UserError
    from serving.contract.manifest import Manifest
    from serving.engines.predictor import Predictor, Segmentation, StreamedImage
    from serving.images.image_io import read_image, write_image, write_mask

__all__ = [
    "EngineError",
    "Manifest",
    "Predictor",
    "Segmentation",
    "StreamedImage",
    "UserError",
    "read_image",
    "write_image",
    "write_mask",
]

_MODULES = {
    "EngineError": "serving.contract.errors",
    "Manifest": "serving.contract.manifest",
    "Predictor": "serving.engines.predictor",
    "Segmentation": "serving.engines.predictor",
    "StreamedImage": "serving.engines.predictor",
    "UserError": "serving.contract.errors",
    "read_image": "serving.images.image_io",
    "write_image": "serving.images.image_io",
    "write_mask": "serving.images.image_io",
}


def __getattr__(name: str) -> object:
    """What `serving.NAME` is (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'serving' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
