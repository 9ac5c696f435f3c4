"""What a kind of artefact is: its options, its precision and, loaded only when it runs, its exporter."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from serving.contract.limits import PrecisionLimits

if TYPE_CHECKING:
    from export.artifacts.shared.exporter import Exporter


@dataclass(frozen=True)
class ArtifactKind:
    """One kind of artefact. Light to import, so that params.yaml is checked without torch and onnx.

    Attributes:
        options: frozen dataclass of the exporter's settings.
        precision: of the arithmetic in the exported graph, as manifests name it.
        limits: what an engine of that precision may lose against PyTorch.
        exporter_path: `"package.module:function"` of the exporter.
    """

    options: type[Any]
    precision: str
    limits: PrecisionLimits
    exporter_path: str

    def exporter(self) -> Exporter:
        """Import and return the exporter."""
        module, _, name = self.exporter_path.partition(":")
        return cast("Exporter", getattr(importlib.import_module(module), name))
