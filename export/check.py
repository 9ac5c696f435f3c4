"""`python -m export.check ENGINE`: run every check on one engine file; exit 1 when one fails.

The engine runs as the options say: `--runtime openvino --option precision=bf16` checks what that computes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from export.checks.examination.config import VerifyConfig
from export.checks.examination.context import CheckContext, CheckResult
from export.checks.examination.reference import Reference
from export.checks.locating.location import locate
from export.checks.locating.minimising import minimise
from export.checks.verification import run_checks
from export.report.config import GateConfig
from pipeline.compute.devices import select_device
from pipeline.data.datasets.shared.prepared import PreparedSplit, load_prepared, resolve_root
from pipeline.evaluation.config import EvaluateConfig
from pipeline.layout.paths import PREPARED_DIR, stripped_dir
from pipeline.models.network.weights import load_segmentor
from pipeline.params import PARAMS_PATH, load_params
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from serving.contract.files import file_sha256
from serving.contract.manifest import Manifest, read_sidecar, sidecar_path
from serving.engines.runtimes import RUNTIMES, default_runtime
from serving.engines.runtimes.arguments import add_runtime_arguments, runtime_options
from serving.engines.runtimes.runtime import parse_options

_SUFFIXES = (".onnx", ".plan", ".engine")  # what is called so is an engine, even where its manifest is missing
_STYLES = {"pass": "green", "fail": "bold red", "skipped": "yellow", "inconclusive": "yellow"}


@dataclasses.dataclass(frozen=True)
class CheckSettings:
    """Sections of params.yaml that the checks use; the defaults where there is none in the working directory."""

    verify: VerifyConfig
    gate: GateConfig
    evaluate: EvaluateConfig
    root: str | None


def main() -> int:
    """Check one engine."""
    parser = argparse.ArgumentParser(prog=program_name("export.check"), description=__doc__.partition("\n")[0])
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="the engine file, its manifest.json beside it")
    parser.add_argument("--reference", type=Path, metavar="STRIPPED", help="folder of the stripped segmentor; "
                        "default: that of the manifest's method and seed under artifacts/")  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"prepared dataset; default: {PREPARED_DIR}, if there")
    parser.add_argument("--root", metavar="DIR", help="folder of the dataset's own files, where they lie elsewhere; "
                        "default: prepare.root of params.yaml")  # fmt: skip
    add_runtime_arguments(parser)
    parser.add_argument("--locate", action="store_true", help="where a check of values fails, name the first tensor of "
                        "the graph that leaves its tolerance, and the layer that makes it")  # fmt: skip
    parser.add_argument("--minimise", type=Path, metavar="FILE.onnx", help="locate, and where the runtime does not "
                        "compute what the file says, write the smallest part that shows it, for others")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="write the results as JSON")
    arguments = parser.parse_args()
    if arguments.engine.is_dir():
        raise UserError(f"{arguments.engine}: is a folder; expected an engine, such as artifacts/.../model.onnx")
    if not arguments.engine.is_file():
        raise UserError(f"{arguments.engine}: no such file; expected an engine, such as artifacts/.../model.onnx")
    if not sidecar_path(arguments.engine).exists() and arguments.engine.suffix.lower() not in _SUFFIXES:
        raise UserError(
            f"{arguments.engine}: expected an engine, such as artifacts/.../model.onnx; got a file that does not end "
            f"in {' or '.join(_SUFFIXES)} and has no manifest beside it"
        )
    if arguments.minimise:
        there = [path for path in (arguments.minimise, arguments.minimise.with_suffix(".npz")) if path.exists()]
        if arguments.minimise.suffix != ".onnx" or there:
            got = f", got {' and '.join(map(str, there))}, already there" if there else ""
            raise UserError(
                f"--minimise {arguments.minimise}: expected the name of a new file that ends in .onnx, with no .npz "
                f"beside it{got}"
            )
    options = runtime_options(arguments)
    settings = _settings()
    manifest = _manifest(arguments.engine)
    runtime = arguments.runtime or default_runtime(manifest.kind if manifest else "onnx")
    parse_options(RUNTIMES.resolve(runtime).Options, options, runtime)
    reference = _reference(arguments.reference, manifest)
    with CheckContext(
        arguments.engine,
        runtime=runtime,
        options=options,
        reference=reference,
        split=_split(arguments, settings, manifest),
        config=settings.verify,
        max_miou_drop_points=settings.gate.max_miou_drop_points,
        boundary_ratio=settings.evaluate.boundary_ratio,
    ) as context:
        results = run_checks(context)
        location = locate(context, results) if arguments.locate or arguments.minimise else None
        minimised = minimise(context, location, arguments.minimise) if location and arguments.minimise else None
    if arguments.json:
        found = {
            "engine": arguments.engine.as_posix(),
            "sha256": file_sha256(arguments.engine),
            "passed": not any(result.status == "fail" for result in results),
            "checks": [dataclasses.asdict(result) for result in results],
        }
        if location is not None:
            found["located"] = dataclasses.asdict(location.located) if location.located else None
            if location.located is None:
                found["reason"] = location.reason
        if minimised is not None:
            found["minimised"] = dataclasses.asdict(minimised.minimised) if minimised.minimised else None
            if minimised.minimised is None:
                found["not_minimised"] = minimised.reason
        sys.stdout.write(json.dumps(found, indent=2, allow_nan=False, default=str) + "\n")
    else:
        _show(results)
        if location is not None:
            Console().print(Text(location.in_words()))
        if minimised is not None:
            Console().print(Text(minimised.in_words()))
    return 1 if any(result.status == "fail" for result in results) else 0


def _settings() -> CheckSettings:
    if not PARAMS_PATH.exists():
        return CheckSettings(VerifyConfig(), GateConfig(), EvaluateConfig(), None)
    params = load_params()
    return CheckSettings(params.verify, params.gate, params.evaluate, params.prepare.root)


def _manifest(engine: Path) -> Manifest | None:
    """The manifest, or None where the checks will say what is wrong with it."""
    try:
        return read_sidecar(engine)
    except UserError:
        return None


def _reference(path: Path | None, manifest: Manifest | None) -> Reference | None:
    if path is None:
        if manifest is None:
            return None
        method, seed = manifest.provenance.get("method"), manifest.provenance.get("seed")
        if not isinstance(method, str) or not isinstance(seed, int):
            raise UserError(
                "the manifest names no method and seed, so the network to compare with is not known; "
                "name its folder with --reference"
            )
        path = stripped_dir(method, seed)
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; name that of the stripped segmentor with --reference")
    segmentor, info = load_segmentor(path)
    return Reference(segmentor, info, select_device("auto"))


def _split(arguments: argparse.Namespace, settings: CheckSettings, manifest: Manifest | None) -> PreparedSplit | None:
    if arguments.data is None and not PREPARED_DIR.exists():
        return None
    prepared = load_prepared(arguments.data or PREPARED_DIR, resolve_root(arguments.root or settings.root))
    if manifest is not None:
        prepared.require_classes(manifest.class_names, arguments.engine)
    return prepared.split(settings.evaluate.split)


def _show(results: list[CheckResult]) -> None:
    table = Table("check", "status", "measured", "allowed", "detail")
    for result in results:
        unit = f" {result.unit}" if result.unit else ""
        measured = "" if result.measured is None else f"{result.measured:.4g}{unit}"
        threshold = "" if result.threshold is None else f"{result.threshold:.4g}"
        style = _STYLES[result.status]
        table.add_row(result.name, Text(result.status, style), measured, threshold, Text(result.detail))
    counts = {status: sum(result.status == status for result in results) for status in _STYLES}
    console = Console()
    console.print(table)
    console.print(", ".join(f"{count} {status}" for status, count in counts.items() if count))


if __name__ == "__main__":
    run_command(main)
