"""The files of `golden/`: a few images, PyTorch's masks and margins of them, and what the engine gave in the lab.

`golden.json` names the engine by its SHA-256 and `golden.npz` by its own; it holds everything but the arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UserError
from serving.contract.files import write_atomically
from serving.contract.schema import Problems, build

FOLDER_NAME = "golden"
SCHEMA = 1
MAX_BYTES = 1_000_000
# The lab's latencies, which differ from run to run: beside the rest, so that equal engines have equal golden files.
LATENCY_NAME = "latency.json"
_MOST_BYTES_READ = 16 * 2**20

UInt8 = NDArray[np.uint8]
Float16 = NDArray[np.float16]


@dataclass(frozen=True)
class GoldenInput:
    """One image and what the network in PyTorch says of it.

    Attributes:
        name: what it is, in a word.
        image: `[H,W,3]` uint8 RGB.
        mask: `[H,W]` uint8, PyTorch's classes.
        margin: `[H,W]` float16, PyTorch's largest logit less its second largest, rounded down.
    """

    name: str
    image: UInt8
    mask: UInt8
    margin: Float16


@dataclass(frozen=True)
class LabRun:
    """The engine itself on the golden images, in one runtime of the lab.

    Attributes:
        runtime: name in `RUNTIMES`.
        precision: that it computed in, as manifests name it.
        version: of the runtime.
        max_disagreement: largest share of pixels on which another machine may disagree (the check `agreement`).
        logit_error: largest difference of a logit from PyTorch's, in logits; None where the engine shows none.
        largest_logit: PyTorch's largest absolute logit.
        layers: layers with weights by precision, where the runtime tells; else empty.
        masks: `[H,W]` uint8 each, in the order of the inputs.
    """

    runtime: str
    precision: str
    version: str
    max_disagreement: float
    logit_error: float | None
    largest_logit: float
    layers: Mapping[str, int] = field(default_factory=dict)
    masks: tuple[UInt8, ...] = ()


@dataclass(frozen=True)
class Golden:
    """All of it.

    Attributes:
        engine_sha256: of the engine file that it was made with.
        inputs: the images.
        lab: what ran in the lab; at least one run.
    """

    engine_sha256: str
    inputs: tuple[GoldenInput, ...]
    lab: tuple[LabRun, ...]

    def save(self, folder: Path) -> None:
        """Write both files. The same bytes for the same content.

        Raises:
            UserError: the folder is not writable.
            ValueError: more than `MAX_BYTES`.
        """
        arrays: dict[str, NDArray[Any]] = {}
        for index, each in enumerate(self.inputs):
            arrays |= {f"image_{index}": each.image, f"mask_{index}": each.mask, f"margin_{index}": each.margin}
        for number, run in enumerate(self.lab):
            arrays |= {f"lab_{number}_{index}": mask for index, mask in enumerate(run.masks)}
        packed = _pack(arrays)
        text = json.dumps(
            {
                "schema": SCHEMA,
                "engine_sha256": self.engine_sha256,
                "arrays_sha256": hashlib.sha256(packed).hexdigest(),
                "inputs": [each.name for each in self.inputs],
                "lab": [_without(dataclasses.asdict(run), "masks") for run in self.lab],
            },
            indent=2,
            sort_keys=True,
        )
        if len(packed) + len(text) >= MAX_BYTES:
            raise ValueError(f"golden: {len(packed) + len(text)} bytes; expected less than {MAX_BYTES}")
        write_atomically(folder / "golden.npz", packed)
        write_atomically(folder / "golden.json", (text + "\n").encode())

    @staticmethod
    def load(folder: Path) -> Golden:
        """Read `golden/`.

        Raises:
            UserError: missing, changed or damaged.
        """
        described, packed = _read(folder / "golden.json"), _read(folder / "golden.npz")
        try:
            values = json.loads(described)
            if not isinstance(values, dict) or values.get("schema") != SCHEMA:
                raise ValueError(f"expected schema {SCHEMA}")
            if values["arrays_sha256"] != hashlib.sha256(packed).hexdigest():
                raise ValueError("golden.npz is not the file that golden.json names: it was changed or cut short")
            with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
                return _build(values, arrays)
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile, RecursionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{folder}: not readable: {reason}; copy it again, or export the engine anew") from error


def golden_folder(engine_path: Path) -> Path:
    """Where the golden files of an engine lie."""
    return engine_path.with_name(FOLDER_NAME)


def read_latencies(folder: Path) -> dict[str, float]:
    """Median milliseconds in the lab by runtime and precision (`onnxruntime fp32`); empty where none were kept."""
    try:
        values = json.loads(_read(folder / LATENCY_NAME))
        return {str(key): float(value) for key, value in values.items()}
    except (UserError, ValueError, TypeError, AttributeError):
        return {}


def _build(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Golden:
    """Raises ValueError or KeyError for what is incomplete."""
    names: Sequence[str] = values["inputs"]
    inputs = []
    for index, name in enumerate(names):
        image, mask, margin = (arrays[f"{kind}_{index}"] for kind in ("image", "mask", "margin"))
        if image.dtype != np.uint8 or image.shape != (*mask.shape, 3) or margin.shape != mask.shape:
            raise ValueError(f"input {name!r}: image, mask and margin do not fit each other")
        if mask.dtype != np.uint8 or margin.dtype != np.float16 or np.isnan(margin).any() or not mask.size:
            raise ValueError(f"input {name!r}: expected a mask of uint8 and margins of float16 that are numbers")
        inputs.append(GoldenInput(str(name), image, mask, margin))
    problems = Problems()
    lab = []
    for number, entry in enumerate(values["lab"]):
        run = build(LabRun, entry, f"lab[{number}]", problems)
        if run is not None:
            _require_sound(run, f"lab[{number}]")
            masks = tuple(arrays[f"lab_{number}_{index}"] for index in range(len(names)))
            if any(mask.shape != each.mask.shape for mask, each in zip(masks, inputs, strict=True)):
                raise ValueError(f"lab[{number}]: masks of other sizes than the images")
            if any(mask.dtype != np.uint8 for mask in masks):
                raise ValueError(f"lab[{number}]: expected masks of uint8")
            lab.append(dataclasses.replace(run, masks=masks))
    if problems or not inputs or not lab:
        raise ValueError("; ".join(problems) or "no inputs, or no run of the lab")
    return Golden(str(values["engine_sha256"]), tuple(inputs), tuple(lab))


def _require_sound(run: LabRun, where: str) -> None:
    """Raise ValueError for numbers with which no engine could fail the test, or none pass it."""
    if not 0 <= run.max_disagreement <= 1:
        raise ValueError(f"{where}.max_disagreement: expected in [0, 1], got {run.max_disagreement}")
    for name, value in (("logit_error", run.logit_error), ("largest_logit", run.largest_logit)):
        if value is not None and value < 0:
            raise ValueError(f"{where}.{name}: expected at least 0, got {value}")


def _pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """As `numpy.savez_compressed`, with the same bytes for the same arrays (no time of day in it)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES_READ:
            raise UserError(f"{path}: {path.stat().st_size} bytes are too many; is it another file?")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent}: no {path.name} there; export puts it beside an engine: copy the folder with the engine"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _without(values: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}
