"""Say what an engine file is: io, classes, precision, provenance; and verify it against its manifest.

Nothing is deserialised, unless `--open` asks for it: the file's bytes and its manifest are read. Exit status: 0 all
that was checked holds; 1 something does not, or there is no manifest with a hash to check against; 2 there is no such
file, runtime or option.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command, shown
from serving.contract.files import file_sha256, why_no_file
from serving.contract.manifest import METADATA_KEY, InputSpec, Manifest, read_manifest, sidecar_path
from serving.engines.foreign.onnx_file import OnnxFile, TensorInfo, read_onnx
from serving.engines.runtimes import RUNTIMES, default_runtime
from serving.engines.runtimes.arguments import add_runtime_arguments, runtime_options
from serving.engines.runtimes.runtime import check_io, parse_options


@dataclass(frozen=True)
class Observation:
    """One thing that was verified.

    Attributes:
        name: what.
        status: `skipped` where there was nothing to compare with.
        detail: what was found, in one line.
    """

    name: str
    status: Literal["pass", "fail", "skipped"]
    detail: str


@dataclass
class Inspection:
    """All that is known of an engine file without opening it in a runtime.

    Attributes:
        path, engine_bytes, sha256: of the file.
        manifest: of the file; None where there is none that can be read.
        file: what an ONNX file says itself; None for other kinds and where it cannot be read.
        checks: what was verified, in order.
        runtime: what its runtime says of the open engine; None where it was not opened.
    """

    path: Path
    engine_bytes: int
    sha256: str
    manifest: Manifest | None = None
    file: OnnxFile | None = None
    checks: list[Observation] = field(default_factory=list)
    runtime: Mapping[str, object] | None = None

    @property
    def holds(self) -> bool:
        """Whether the file has the hash that its manifest names, and nothing contradicts that manifest."""
        passed = {check.name for check in self.checks if check.status == "pass"}
        return "sha256" in passed and all(check.status != "fail" for check in self.checks)

    def add(self, name: str, problem: UserError | str | None, found: str) -> None:
        """Note one check: failed with `problem`, else passed with what was `found`."""
        lines = " ".join(str(problem).split()) if problem is not None else found
        self.checks.append(Observation(name, "pass" if problem is None else "fail", lines))

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "path": str(self.path),
            "engine_bytes": self.engine_bytes,
            "sha256": self.sha256,
            "verified": self.holds,
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "manifest": None if self.manifest is None else json.loads(self.manifest.to_json()),
            "file": None if self.file is None else dataclasses.asdict(self.file),
            "runtime": None if self.runtime is None else dict(self.runtime),
        }


def inspect_engine(path: Path) -> Inspection:
    """Read an engine file and its manifest, and compare them.

    Args:
        path: `model.onnx`, `model.plan`...; its manifest beside it.

    Raises:
        UserError: there is no such file.
    """
    why = why_no_file(path)
    if why is not None:
        raise UserError(f"{path}: {why}")
    result = Inspection(path, path.stat().st_size, file_sha256(path))
    _read_manifest(result)
    if result.manifest.kind == "onnx" if result.manifest is not None else path.suffix.lower() == ".onnx":
        _read_onnx(result)
    if result.manifest is not None:
        _read_details(result, result.manifest)
    return result


def open_engine(result: Inspection, runtime: str | None, options: Mapping[str, object]) -> None:
    """Open an engine that holds, and add what its runtime says of it: where its nodes run, for one.

    Args:
        result: of `inspect_engine`; what contradicts its manifest is not opened, and that is a failed check.
        runtime: name in `RUNTIMES`; None takes the usual one of the file's kind.
        options: of the runtime.

    Raises:
        UserError: there is no such runtime, or it has no such options.
    """
    usual = default_runtime("onnx" if result.manifest is None else result.manifest.kind)
    name = runtime or usual
    kind_of = RUNTIMES.resolve(name)
    parse_options(kind_of.Options, options, name)
    if not result.holds or result.manifest is None:
        result.add("runtime", "not opened: what is in the file was not verified", "")
        return
    try:
        with kind_of.open(result.path, result.manifest, options) as engine:
            result.runtime = engine.what_runs()
    except UserError as error:
        result.add("runtime", error, "")
    else:
        result.add("runtime", None, f"opened by {name}")


def _read_manifest(result: Inspection) -> None:
    sidecar = sidecar_path(result.path)
    if not os.path.lexists(sidecar):
        result.checks.append(
            Observation("manifest", "skipped", f"no {sidecar.name} beside the file: nothing to verify it with")
        )
        return
    try:
        result.manifest = read_manifest(sidecar)
    except UserError as error:
        result.add("manifest", error, "")
        return
    result.add("manifest", None, sidecar.name)
    named = result.manifest.sha256
    if named is None:
        result.checks.append(Observation("sha256", "skipped", "the manifest names none"))
    else:
        other = f"the file has {result.sha256}, its manifest says {named}: changed, cut short or replaced"
        result.add("sha256", None if named == result.sha256 else other, result.sha256)


def _read_onnx(result: Inspection) -> None:
    try:
        result.file = file = read_onnx(result.path)
    except UserError as error:
        result.add("file", error, "")
        return
    outside = ", ".join(map(repr, file.external))
    result.add("weights", f"kept in other files: {outside}" if outside else None, "all in this file")
    embedded = file.metadata.get(METADATA_KEY)
    if embedded is not None:
        try:
            inside = Manifest.from_json(embedded, source="the manifest inside the file")
        except UserError as error:
            result.add("manifest inside", error, "")
        else:
            same = result.manifest is None or inside == result.manifest.without_hash()
            result.add("manifest inside", None if same else "differs from the one beside the file", "the same")
            result.manifest = result.manifest or inside
    elif result.manifest is not None:
        result.checks.append(Observation("manifest inside", "skipped", "the file holds none"))
    if result.manifest is not None:
        try:
            check_io(result.path, result.manifest, _io(file.inputs), _io(file.outputs))
        except UserError as error:
            result.add("io", error, "")
        else:
            result.add("io", None, "as in the manifest")


def _read_details(result: Inspection, manifest: Manifest) -> None:
    """What only the runtime of this kind of file knows of it."""
    try:
        details = RUNTIMES.resolve(default_runtime(manifest.kind)).file_details(result.path, manifest)
    except UserError as error:
        result.add("plan", error, "")
        return
    if details is not None:
        result.add("plan", None, details)


def _io(tensors: Sequence[TensorInfo]) -> dict[str, tuple[str, int | None]]:
    return {each.name: (each.dtype, None if each.shape is None else len(each.shape)) for each in tensors}


def to_text(result: Inspection) -> str:
    """What the command prints without `--json`."""
    lines = [f"{result.path}  {result.engine_bytes:,} bytes"]
    manifest = result.manifest
    if manifest is not None:
        lines += ["", f"{manifest.name}: {manifest.kind}, {manifest.precision}"]
        lines += [f"  input   {_input(manifest.input)}"]
        for output in manifest.outputs:
            lines.append(f"  output  {output.name}: {output.content}, {output.dtype} {output.layout}")
        lines += ["", f"{manifest.num_classes} classes (ignore index {manifest.ignore_index})"]
        for index, (name, color) in enumerate(zip(manifest.class_names, manifest.palette, strict=True)):
            lines.append(f"  {index:3}  #{bytes(color).hex()}  {name}")
        for title, values in (("provenance", manifest.provenance), ("details", manifest.details)):
            if values:
                lines += ["", title]
                lines += [f"  {key}: {_compact(value)}" for key, value in sorted(values.items())]
    if result.file is not None:
        file = result.file
        lines += [
            "",
            f"ONNX file: opset {file.opset}, IR {file.ir_version}, made by {file.producer or 'nobody it names'}",
        ]
        for role, tensors in (("input", file.inputs), ("output", file.outputs)):
            for each in tensors:
                shape = "unknown shape" if each.shape is None else list(each.shape)
                lines.append(f"  {role:7} {each.name}: {each.dtype} {shape}")
    if result.runtime is not None:
        lines += ["", "runtime"]
        lines += [f"  {key}: {_compact(value)}" for key, value in result.runtime.items()]
    lines += ["", "verified" if result.holds else "NOT verified"]
    lines += [f"  {check.status:8} {check.name}: {check.detail}" for check in result.checks]
    return "".join(shown(line) + "\n" for line in lines)


def _input(spec: InputSpec) -> str:
    text = f"{spec.name}: {spec.dtype} {spec.layout} {spec.color}, sides multiples of {spec.stride}"
    if spec.resize is not None:
        text += f", resized to {spec.resize[0]}x{spec.resize[1]}"
    if spec.mean is not None or spec.std is not None:
        text += f", minus {list(spec.mean or (0, 0, 0))}, over {list(spec.std or (1, 1, 1))}"
    return text


def _compact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program_name("serving.inspect"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="model.onnx or model.plan")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--open", action="store_true", help="open it in its runtime as well, and say what runs where")
    add_runtime_arguments(parser)
    arguments = parser.parse_args(argv)
    result = inspect_engine(arguments.engine)
    options = runtime_options(arguments)
    if arguments.open:
        open_engine(result, arguments.runtime, options)
    elif arguments.runtime is not None or options:
        raise UserError("--runtime, --threads, --provider and --option: only with --open")
    sys.stdout.write(json.dumps(result.to_json(), indent=2) + "\n" if arguments.json else to_text(result))
    return 0 if result.holds else 1


if __name__ == "__main__":
    run_command(main)
