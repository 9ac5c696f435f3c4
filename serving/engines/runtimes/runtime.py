"""What every runtime does: refuse what cannot run, open an engine, infer, say what really runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from numpy.typing import NDArray

from serving.contract.errors import UserError
from serving.contract.limits import PrecisionLimits
from serving.contract.manifest import METADATA_KEY, SIDECAR_NAME, Manifest, verify_hash
from serving.contract.schema import Problems, build
from serving.contract.timings import LastTimings
from serving.engines.foreign.onnx_file import OnnxFile, require_single_file

Array = NDArray[Any]

MOST_THREADS = 1024  # libraries take any number, start that many, and with thousands are seen no more
Options = TypeVar("Options")


class Runtime(ABC):
    """An open engine. Use as a context manager; several threads may call `infer` at once.

    Where the library takes calls from several threads they run side by side, else they wait for each other.

    Attributes:
        name: in the registry.
        kinds: of engine files that it opens.
        Options: its options, the dataclass that params.yaml and the command line are checked against.
        compiled: whether it runs engines that an exported artefact is compiled to first.
        precisions: that it can be told to compute a file of another precision in -> what an engine may then lose.
        packages: distributions whose versions decide how fast its engines run.
        last_timings_ms: parts of the calling thread's last `infer`, in milliseconds; `engine` is the whole of it.
        batch_range: images that one `infer` takes, at least and at most (None: any number).
        size_range: height and width of the input, at least and at most (None: any that the network takes).
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    Options: ClassVar[type[Any]]
    compiled: ClassVar[bool] = False
    precisions: ClassVar[Mapping[str, PrecisionLimits]] = {}
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._timings = LastTimings()
        self.batch_range: tuple[int, int | None] = (1, None)
        self.size_range: tuple[tuple[int, int], tuple[int, int]] | None = None

    @property
    def last_timings_ms(self) -> dict[str, float]:
        """See the class."""
        return self._timings.parts

    @last_timings_ms.setter
    def last_timings_ms(self, parts: dict[str, float]) -> None:
        self._timings.parts = parts

    @classmethod
    def open(
        cls, engine_path: Path, manifest: Manifest, options: Mapping[str, object], *, check_hash: bool = True
    ) -> Self:
        """Open an engine.

        Nothing is deserialised before the file was compared with the hash that the manifest names and, for ONNX, found
        to hold all of its weights and, where it holds a manifest, the same one.

        Args:
            engine_path: the engine file.
            manifest: what it says of itself.
            options: of this runtime, as in params.yaml; unknown ones are refused.
            check_hash: False opens a file whatever its hash and the manifest inside it are, or where nothing names one:
                a model from elsewhere, or an engine under examination.

        Raises:
            UserError: of another kind, changed, corrupt, not fitting its manifest, or the runtime is not installed.
        """
        if manifest.kind not in cls.kinds:
            raise UserError(
                f"{engine_path}: an engine of kind {manifest.kind}; runtime {cls.name} opens {'/'.join(cls.kinds)}"
            )
        if check_hash:
            verify_hash(engine_path, manifest)
        if manifest.kind == "onnx":
            file = require_single_file(engine_path)
            if check_hash:
                _require_same_manifest(engine_path, manifest, file)
        return cls._load(engine_path, manifest, options, vouched=check_hash)

    @classmethod
    @abstractmethod
    def _load(cls, engine_path: Path, manifest: Manifest, options: Mapping[str, object], *, vouched: bool) -> Self:
        """Deserialise a file that passed the refusals of `open`; `vouched`: it has the hash that its manifest names."""

    @abstractmethod
    def infer(self, batch: Array) -> dict[str, Array]:
        """Run one batch.

        Args:
            batch: in the layout and dtype of the manifest's input; ours: `[B,h,w,3]` uint8 RGB.

        Returns:
            Every output of the engine by name, on the host, owned by the caller.

        Raises:
            UserError: the engine does not take this shape, or its runtime failed.
        """

    @abstractmethod
    def what_runs(self) -> dict[str, object]:
        """What really runs: provider, threads, version, precision."""

    @classmethod
    def options_for(cls, calls: int, threads: int) -> dict[str, object]:
        """Options with which several calls at once share the CPU; empty where nothing can be set.

        Args:
            calls: how many there are at once.
            threads: of the CPU, for all of them together.
        """
        return {}

    def told_precision(self) -> str | None:
        """The precision that the runtime was told to compute in, as manifests name it; None: the file's own."""
        return None

    def computes_in(self, precision: str) -> bool:
        """Whether the runtime has kernels for `precision`; where not, it computes such layers in fp32 instead."""
        return True

    def layer_precisions(self) -> tuple[dict[str, int], str] | None:
        """What runs, nearest to the hardware that the runtime tells: layers with weights by the precision computed in.

        Returns:
            (precision -> number of layers, where that is from); None where the runtime tells nothing beyond its file.
        """
        return None

    def computed_elsewhere(self) -> list[str]:
        """Nodes that compute on images or features elsewhere than on the device asked for, each in words."""
        return []

    @classmethod
    def file_details(cls, engine_path: Path, manifest: Manifest) -> str | None:
        """What the manifest tells of a file of this runtime's own kind, in a line; None where there is nothing.

        Raises:
            UserError: what the runtime needs to know of the file is missing or wrong.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Free the engine; closing twice does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def parse_options(cls: type[Options], options: Mapping[str, object], runtime: str) -> Options:
    """Build a runtime's options from what params.yaml or a command line names.

    Raises:
        UserError: unknown or mistyped options; all at once.
    """
    problems = Problems()
    parsed = build(cls, options, f"options of {runtime}", problems)
    if parsed is None:
        raise UserError("\n".join(problems))
    return parsed


def _require_same_manifest(engine_path: Path, manifest: Manifest, file: OnnxFile) -> None:
    """Refuse a manifest that is not the one inside the file: the hash vouches for the file alone."""
    inside, outside = file.metadata.get(METADATA_KEY), manifest.without_hash()
    if inside is None or inside == outside.to_json():  # as text it costs next to nothing
        return
    embedded = Manifest.from_json(inside, source=f"{engine_path}: the manifest inside it")
    differing = [each.name for each in fields(Manifest) if getattr(embedded, each.name) != getattr(outside, each.name)]
    if differing:
        raise UserError(
            f"{engine_path}: its {SIDECAR_NAME} contradicts the manifest inside the file ({', '.join(differing)}): it "
            "was changed, or is of another engine; copy both again, or rebuild them with `dvc repro`"
        )


def one_line(error: BaseException, limit: int = 300) -> str:
    """A library's message without its line breaks, cut to a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def fixed_sides(shape: Sequence[object], layout: str) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The `size_range` of an input of this shape whose height and width are fixed; None of any other.

    >>> fixed_sides(["B", 3, 64, 96], "NCHW"), fixed_sides(["B", 3, 64, "W"], "NCHW")
    (((64, 96), (64, 96)), None)
    """
    height, width = [*shape, None, None, None, None][layout.index("H") :][:2]
    if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
        return (height, width), (height, width)
    return None


def check_io(
    engine_path: Path,
    manifest: Manifest,
    inputs: Mapping[str, tuple[str, int | None]],
    outputs: Mapping[str, tuple[str, int | None]],
) -> None:
    """Compare the io that a runtime found with what the manifest says.

    Args:
        engine_path: for messages.
        manifest: of the engine.
        inputs: name -> (dtype as numpy names it, rank or None when unknown).
        outputs: likewise.

    Raises:
        UserError: every difference, at once.
    """
    problems: list[str] = []
    if set(inputs) != {manifest.input.name}:
        problems.append(f"inputs: manifest names {manifest.input.name!r}, the engine has {sorted(inputs)}")
    expected: list[tuple[str, str, str, int, Mapping[str, tuple[str, int | None]]]] = [
        ("input", manifest.input.name, manifest.input.dtype, 4, inputs)
    ]
    expected += [("output", each.name, each.dtype, len(each.layout), outputs) for each in manifest.outputs]
    for role, name, dtype, rank, found in expected:
        if name not in found:
            if role == "output":
                problems.append(f"output {name!r}: not in the engine, which has {sorted(found)}")
            continue
        got_dtype, got_rank = found[name]
        if got_dtype != dtype:
            problems.append(f"{role} {name!r}: manifest says {dtype}, the engine has {got_dtype}")
        if got_rank is not None and got_rank != rank:
            problems.append(f"{role} {name!r}: manifest says {rank} axes, the engine has {got_rank}")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"{engine_path}: does not fit its manifest:{listed}")
