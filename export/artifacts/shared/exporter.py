"""The one interface of every exporter, and the manifest that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from export.graph.deploy import CONFIDENCE_NAME, MASK_NAME, OutputKind
from pipeline.data.prepared import Prepared
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import SegmentorInfo, tensors_sha256
from serving.contract.manifest import InputSpec, Manifest, OutputSpec


@dataclass(frozen=True)
class ExportContext:
    """Where an artefact goes and what it is made of.

    Attributes:
        name: of the artefact, as in params.yaml.
        folder: an existing folder for the engine file and its manifest.
        info: what the segmentor is and where it comes from.
        prepared: opens the prepared dataset, for exporters that calibrate; None where there is none.
    """

    name: str
    folder: Path
    info: SegmentorInfo
    prepared: Callable[[], Prepared] | None = None


class Exporter(Protocol):
    """Exports a segmentor. Equal inputs give equal bytes, in any process."""

    def __call__(self, segmentor: Segmentor, context: ExportContext, options: Any) -> Path:
        """Write the engine file and, beside it, its manifest.

        Args:
            segmentor: in evaluation mode, on the CPU; left as it is.
            context: where to and what of.
            options: an instance of the kind's own options class.

        Returns:
            Path of the engine file.

        Raises:
            UserError: this network cannot be exported so.
        """


def engine_manifest(
    context: ExportContext,
    segmentor: Segmentor,
    *,
    kind: str,
    precision: str,
    output: OutputKind,
    details: Mapping[str, object],
) -> Manifest:
    """The manifest of an engine with Contrail's own contract, without the hash of the file."""
    info = context.info
    outputs = [OutputSpec(MASK_NAME, "mask", "NHW", "uint8")]
    if output == "mask+confidence":
        outputs.append(OutputSpec(CONFIDENCE_NAME, "confidence", "NHW", "uint8"))
    provenance = dict(info.provenance) | {
        "backbone": info.model.backbone,
        "head": info.model.head,
        "weights_sha256": tensors_sha256(segmentor.state_dict()),
    }
    return Manifest(
        name=context.name,
        kind=kind,
        precision=precision,
        class_names=info.class_names,
        palette=info.palette,
        input=InputSpec(stride=segmentor.stride, resize=info.resize),
        outputs=tuple(outputs),
        ignore_index=info.ignore_index,
        provenance=provenance,
        details=dict(details),
    )
