"""What an engine file says of itself: io, preprocessing, classes, palette, precision and where it comes from.

The manifest travels inside an ONNX file (`metadata_props[METADATA_KEY]`) and beside every engine (`manifest.json`); the
copy beside it also holds the SHA-256 of the engine file, which is checked before anything deserialises that file.
Equal inputs give equal bytes: no time, commit, machine or absolute path belongs in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serving.contract.errors import UserError
from serving.contract.files import file_sha256, why_no_file, write_atomically
from serving.contract.schema import Problems, Require, build

METADATA_KEY = "contrail.manifest"
SIDECAR_NAME = "manifest.json"
SCHEMA_VERSION = 1
MAX_MANIFEST_BYTES = 16 * 2**20

Layout = Literal["NHWC", "NCHW"]
OutputLayout = Literal["NHW", "NCHW", "NHWC"]
InputDtype = Literal["uint8", "float32", "float16"]
OutputContent = Literal["mask", "logits", "probabilities", "sigmoid", "confidence"]

# What an output holds once per pixel (a class or one score), as against once per pixel and class.
_PER_PIXEL: tuple[OutputContent, ...] = ("mask", "sigmoid", "confidence")


@dataclass(frozen=True)
class InputSpec:
    """The image input of an engine. The defaults are Contrail's own contract: uint8 [B,H,W,3] RGB, nothing to prepare.

    Attributes:
        name: tensor name.
        layout: order of the axes.
        dtype: element type. `uint8` means that the graph normalises by itself.
        color: order of the channels.
        mean: subtracted per RGB channel, in 0..255 units; float inputs need it, 0 where nothing is subtracted.
        std: divided by per RGB channel, in 0..255 units; float inputs need it, 1 where nothing is divided.
        stride: height and width must be multiples of it; images are padded at the bottom and right.
        resize: (height, width) that every image is resized to first; None runs images at their own size.
    """

    name: str = "image"
    layout: Layout = "NHWC"
    dtype: InputDtype = "uint8"
    color: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    stride: int = 32
    resize: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require = Require()
        require(bool(self.name), "name: expected the input's tensor name, got an empty text")
        require(1 <= self.stride <= 4096, f"stride: expected in 1..4096, got {self.stride}")
        if self.resize is not None:
            require(
                all(1 <= side <= 65535 for side in self.resize),
                f"resize: expected height and width in 1..65535, got {list(self.resize)}",
            )
        for label, values in (("mean", self.mean), ("std", self.std)):
            if values is None:
                # Raw pixels where a network expects normalised ones give masks that are wrong and look right.
                require(
                    self.dtype == "uint8",
                    f"{label}: a {self.dtype} input needs it; [0, 0, 0] and [1, 1, 1] where the graph takes 0..255",
                )
                continue
            require(self.dtype != "uint8", f"{label}: a uint8 input is not normalised outside the graph; leave it out")
            require(all(map(math.isfinite, values)), f"{label}: expected finite numbers, got {list(values)}")
        if self.mean is not None and any(self.mean):
            require(
                not all(0 <= value <= 1 for value in self.mean),
                f"mean: expected in 0..255 units (0.485 of 0..1 images is 123.675), got {list(self.mean)}",
            )
        if self.std is not None:
            # Published values are often for 0..1 images: applied to 0..255 they would saturate the network in silence.
            require(
                all(value >= 1 for value in self.std),
                f"std: expected in 0..255 units (0.229 of 0..1 images is 58.395), got {list(self.std)}",
            )
        require.done()


@dataclass(frozen=True)
class OutputSpec:
    """One output of an engine.

    Attributes:
        name: tensor name.
        content: `mask` class indices; `logits` or `probabilities` per class (with one channel: foreground, cut at 0 or
            0.5); `sigmoid` probability of each foreground, background (class 0) where all are at most 0.5;
            `confidence` of the predicted class, 0..255 as whole numbers, else 0..1.
        layout: order of the axes; `NHW` only where there is one value per pixel.
        dtype: element type, as numpy names it.
    """

    name: str = "mask"
    content: OutputContent = "mask"
    layout: OutputLayout = "NHW"
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        require = Require()
        require(bool(self.name), "name: expected the output's tensor name, got an empty text")
        require(
            self.layout != "NHW" or self.content in _PER_PIXEL,
            f"layout: {self.content} have a class axis; expected NCHW or NHWC, got NHW",
        )
        require.done()


@dataclass(frozen=True)
class Manifest:
    """Everything a client needs to know of an engine file.

    Attributes:
        name: artefact or target name, as in params.yaml.
        kind: what the file is, `onnx` or `tensorrt` for instance: a runtime says which kinds it opens.
        precision: of the arithmetic inside: `fp32`, `fp16`, `bf16`, `int8`, or `unknown`.
        input: the image input.
        outputs: all outputs that clients may use; exactly one gives the mask.
        class_names: one per class, in order.
        palette: RGB colour per class, 0..255.
        ignore_index: label value outside every class (never predicted).
        provenance: method, seed, backbone, head and the hashes of params, dataset and weights.
        details: what only one kind of engine has (TensorRT version, compute capability, layers kept in float...).
        schema: version of this format.
        sha256: of the engine file; only in the copy beside it.
    """

    name: str
    kind: str
    precision: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    input: InputSpec = InputSpec()
    outputs: tuple[OutputSpec, ...] = (OutputSpec(),)
    ignore_index: int = 255
    provenance: Mapping[str, object] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION
    sha256: str | None = None

    def __post_init__(self) -> None:
        require = Require()
        names, count = self.class_names, len(self.class_names)
        require(bool(self.name) and self.name.isprintable(), f"name: expected printable text, got {self.name!r}")
        require(self.kind.isidentifier(), f"kind: expected a word such as onnx or tensorrt, got {self.kind!r}")
        require(self.precision.isidentifier(), f"precision: expected a word such as fp32, got {self.precision!r}")
        require(1 <= count <= 256, f"class_names: expected 1 to 256 names, got {count}")
        unfit = [name for name in names if not (name and name.isprintable())]
        require(not unfit, f"class_names: expected printable names, got {unfit[:3]}")
        repeated = sorted({name for name in names if names.count(name) > 1})
        require(not repeated, f"class_names: each name once; repeated: {', '.join(map(repr, repeated[:5]))}")
        require(
            len(self.palette) == count, f"palette: expected {count} colours (one per class), got {len(self.palette)}"
        )
        require(
            all(0 <= channel <= 255 for color in self.palette for channel in color),
            "palette: expected channels in 0..255",
        )
        require(0 <= self.ignore_index <= 255, f"ignore_index: expected in 0..255, got {self.ignore_index}")
        masks = [output.name for output in self.outputs if output.content != "confidence"]
        require(len(masks) == 1, f"outputs: expected exactly one that gives the mask, got {masks or 'none'}")
        require(
            count >= 2 or all(output.content != "sigmoid" for output in self.outputs),
            f"class_names: a sigmoid output tells foregrounds from a background; expected 2 names or more, got {count}",
        )
        output_names = [output.name for output in self.outputs]
        require(len(set(output_names)) == len(output_names), f"outputs: each name once, got {output_names}")
        sha256 = self.sha256
        require(
            sha256 is None or (len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")),
            f"sha256: expected 64 lowercase hex digits, got {sha256!r}",
        )
        require.done()

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def mask_output(self) -> OutputSpec:
        """The output that gives the mask."""
        return next(output for output in self.outputs if output.content != "confidence")

    @property
    def overlapping(self) -> bool:
        """Whether a pixel may belong to several classes: a sigmoid output of more than one foreground."""
        return self.mask_output.content == "sigmoid" and self.num_classes > 2

    @property
    def confidence_output(self) -> OutputSpec | None:
        """The output that gives the confidence, where the engine has one."""
        return next((output for output in self.outputs if output.content == "confidence"), None)

    def without_hash(self) -> Manifest:
        """The manifest as it stands inside its file, which cannot hold its own hash."""
        return dataclasses.replace(self, sha256=None)

    def to_json(self) -> str:
        """JSON text with sorted keys, the same bytes for the same manifest. `sha256` appears only where it is known.

        Raises:
            ValueError: `provenance` or `details` holds what JSON cannot (NaN among them).
        """
        values = dataclasses.asdict(self)
        if self.sha256 is None:
            del values["sha256"]
        try:
            return json.dumps(values, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        except TypeError as error:
            raise ValueError(f"manifest {self.name}: provenance and details must be JSON values: {error}") from error

    @staticmethod
    def from_json(text: str, source: str = "manifest") -> Manifest:
        """Read a manifest.

        Args:
            text: JSON.
            source: where the text is from, for messages.

        Raises:
            UserError: not JSON, of a newer schema, or invalid; all problems at once.
        """
        try:
            values = json.loads(text, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{source}: not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{source}: expected a JSON object, got {type(values).__name__}")
        schema = values.get("schema", SCHEMA_VERSION)
        if schema != SCHEMA_VERSION:
            raise UserError(
                f"{source}: manifest schema {schema!r}; this Contrail reads schema {SCHEMA_VERSION}; update it"
            )
        problems = Problems()
        manifest = build(Manifest, values, "manifest", problems)
        if manifest is None:
            listed = "".join(f"\n  {problem}" for problem in problems)
            raise UserError(f"{source}: not a valid manifest:{listed}")
        return manifest


def _finite(text: str) -> float:
    """A number of JSON, which knows no NaN and no infinity; Python reads them, and 1e999, all the same."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def sidecar_path(engine_path: Path) -> Path:
    """Where the manifest of `engine_path` lies."""
    return engine_path.with_name(SIDECAR_NAME)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file (ours or one written by hand).

    Raises:
        UserError: missing, unreadable, too large or invalid.
    """
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes are too many for a manifest; is it another file?")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a manifest: not UTF-8 text") from error
    return Manifest.from_json(text, source=str(path))


def read_sidecar(engine_path: Path) -> Manifest:
    """Read the manifest beside an engine, without comparing hashes.

    Raises:
        UserError: engine or manifest missing or unreadable, or the manifest is invalid.
    """
    why = why_no_file(engine_path)
    if why is not None:
        raise UserError(f"{engine_path}: {why} (exported engines lie under artifacts/; `dvc repro` builds them)")
    sidecar = sidecar_path(engine_path)
    if not os.path.lexists(sidecar):
        raise UserError(
            f"{engine_path}: no {SIDECAR_NAME} beside it; copy the one it was exported with, rebuild both with "
            "`dvc repro`, or describe a model from elsewhere with a manifest of your own"
        )
    return read_manifest(sidecar)


def write_sidecar(manifest: Manifest, engine_path: Path) -> Manifest:
    """Write the manifest beside a finished engine file, with that file's SHA-256.

    Returns:
        The manifest as written.

    Raises:
        UserError: the engine is unreadable or the folder not writable.
    """
    complete = dataclasses.replace(manifest, sha256=file_sha256(engine_path))
    write_atomically(sidecar_path(engine_path), complete.to_json().encode("utf-8"))
    return complete


def verify_hash(engine_path: Path, manifest: Manifest) -> None:
    """Compare an engine file with the hash its manifest names; reads bytes only, deserialises nothing.

    Raises:
        UserError: the manifest names no hash, or the file is another one.
    """
    if manifest.sha256 is None:
        raise UserError(
            f"{sidecar_path(engine_path)}: no sha256 in it, so it proves nothing of {engine_path.name}; rebuild both "
            "with `dvc repro`, or write what `sha256sum` says of the file into a hand-written manifest"
        )
    got = file_sha256(engine_path)
    if got != manifest.sha256:
        raise UserError(
            f"{engine_path}: not the file its manifest describes: sha256 {got[:16]}..., the manifest says "
            f"{manifest.sha256[:16]}...; the file was changed, cut short or replaced: rebuild it with `dvc repro`"
        )


def verify_sidecar(engine_path: Path) -> Manifest:
    """Read the manifest beside an engine and make sure that it is of this very file, before any deserialisation.

    Raises:
        UserError: anything missing, invalid or not matching.
    """
    manifest = read_sidecar(engine_path)
    verify_hash(engine_path, manifest)
    return manifest
