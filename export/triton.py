"""Write a model of a Triton model repository: the engine, its configuration and requests to warm it up with.

The model's tensors are the engine's own: clients pad images to multiples of its stride and normalise them where the
manifest says so. `contrail serve` does that for its clients.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract.command import program_name, require_at_least
from serving.contract.errors import UserError, run_command
from serving.contract.files import atomic_dir, why_no_file
from serving.contract.manifest import SIDECAR_NAME, Manifest, verify_sidecar
from serving.engines.foreign.onnx_file import TensorInfo, require_single_file
from serving.engines.runtimes.runtime import MOST_THREADS, check_io
from serving.engines.runtimes.tensorrt.plan import PlanDetails
from serving.engines.tensors import to_input
from serving.extras import require_extra
from serving.golden.golden import Golden, golden_folder
from serving.images.geometry import place

_TYPES = {"bool": "TYPE_BOOL", "bfloat16": "TYPE_BF16"}
_TYPES |= {f"float{bits}": f"TYPE_FP{bits}" for bits in (16, 32, 64)}
_TYPES |= {f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FILES = {
    "onnx": ("onnxruntime", "onnxruntime_onnx", "model.onnx"),
    "tensorrt": ("tensorrt", "tensorrt_plan", "model.plan"),
}
_FREE = -1
_MOST = {"max_batch": 1024, "delay_us": 60_000_000, "instances": 1024, "threads": MOST_THREADS}


@dataclass(frozen=True)
class TritonSettings:
    """How Triton is to run an engine.

    Attributes:
        name: of the model.
        max_batch: images in one call; less where the engine takes fewer.
        delay_us: microseconds that a batch that is not full waits for more.
        instances: of the engine at once.
        kind: where they run, `cpu` or `gpu`.
        threads: of one instance, on the CPU; None leaves it to ONNX Runtime.
    """

    name: str
    max_batch: int = 8
    delay_us: int = 1000
    instances: int = 1
    kind: str = "cpu"
    threads: int | None = None


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program_name("export.triton"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="model.onnx or model.plan, manifest.json beside it")
    parser.add_argument("--repository", type=Path, required=True, metavar="DIR", help="Triton's model repository")
    parser.add_argument("--name", help="of the model (default: the manifest's)")
    parser.add_argument("--max-batch", type=int, default=8, help="images in one call (default 8)")
    parser.add_argument("--delay-us", type=int, default=1000, help="that a batch waits for more (default 1000)")
    parser.add_argument("--instances", type=int, default=1, help="of the engine at once (default 1)")
    parser.add_argument("--kind", choices=("cpu", "gpu"), help="where they run (default: cpu, and gpu for plans)")
    parser.add_argument("--threads", type=int, help="of one instance on the CPU (default: ONNX Runtime's)")
    arguments = parser.parse_args()
    _require_in_range(arguments)
    require_extra("triton", ("tritonclient", "google.protobuf"))
    manifest = verify_sidecar(arguments.engine)
    settings = TritonSettings(
        name=arguments.name or manifest.name,
        max_batch=arguments.max_batch,
        delay_us=arguments.delay_us,
        instances=arguments.instances,
        kind=arguments.kind or ("gpu" if manifest.kind == "tensorrt" else "cpu"),
        threads=arguments.threads,
    )
    folder = write_model(arguments.engine, manifest, arguments.repository, settings)
    sys.stdout.write(f"{folder}\n")
    return 0


def _require_in_range(arguments: argparse.Namespace) -> None:
    """Raise UserError for numbers that are out of range: first those that are too small, then those too large."""
    require_at_least(arguments, {"max_batch": 1, "delay_us": 0, "instances": 1, "threads": 1})
    problems = [
        f"--{name.replace('_', '-')}: expected at most {largest}, got {value}"
        for name, largest in _MOST.items()
        if (value := getattr(arguments, name)) is not None and value > largest
    ]
    if problems:
        raise UserError("\n".join(problems))


def write_model(engine: Path, manifest: Manifest, repository: Path, settings: TritonSettings) -> Path:
    """Write `REPOSITORY/NAME`, whole or not at all; an older one of this name is replaced.

    Args:
        engine: the engine file; its golden files, where there are some, make the warm-up.
        manifest: of the engine.
        repository: folder of models.
        settings: how Triton is to run it.

    Returns:
        The model's folder: `config.pbtxt`, `1/` with engine, manifest and golden files, `warmup/`.

    Raises:
        UserError: Triton does not run such an engine, it does not fit its manifest, the name is no folder's, or it
            cannot be written.
    """
    from google.protobuf import text_format

    name = settings.name
    if not name.isprintable() or "/" in name or name in ("", ".", ".."):
        raise UserError(f"--name: expected the name of a folder, got {name!r}")
    folder = repository / name
    if os.path.lexists(folder) and why_no_file(folder / "config.pbtxt"):  # `Path.exists` raises for long names
        raise UserError(f"{folder}: there, and no model of Triton's; choose another --name or --repository")
    config, inputs = configuration(engine, manifest, settings)
    golden = golden_folder(engine)
    with atomic_dir(folder) as scratch:
        version = scratch / "1"
        version.mkdir()
        shutil.copyfile(engine, version / _FILES[manifest.kind][2])
        shutil.copyfile(engine.with_name(SIDECAR_NAME), version / SIDECAR_NAME)
        if golden.is_dir():
            shutil.copytree(golden, version / golden.name)
        if inputs:
            (scratch / "warmup").mkdir()
        for file, tensor in inputs.items():
            (scratch / "warmup" / file).write_bytes(tensor.tobytes())
        (scratch / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
    return folder


def configuration(engine: Path, manifest: Manifest, settings: TritonSettings) -> tuple[Any, dict[str, np.ndarray]]:
    """Triton's configuration of an engine.

    Returns:
        A `ModelConfig` of Triton's schema, and the tensors of its warm-up by the names of their files.

    Raises:
        UserError: Triton has no backend or no type for it, or the file is not what its manifest says.
    """
    from tritonclient.grpc import model_config_pb2 as schema

    if manifest.kind not in _FILES:
        raise UserError(f"{engine}: Triton runs {' and '.join(_FILES)} engines; this one is of kind {manifest.kind}")
    backend, platform, file = _FILES[manifest.kind]
    if manifest.kind == "tensorrt" and settings.kind != "gpu":
        raise UserError("--kind cpu: plans run on GPUs only")
    types = _types(engine, manifest)
    shape, most = _input_shape(engine, manifest)
    batched = shape[0] == _FREE
    config = schema.ModelConfig(name=settings.name, backend=backend, platform=platform, default_model_filename=file)
    config.max_batch_size = min(settings.max_batch, most or settings.max_batch) if batched else 0
    config.version_policy.latest.num_versions = 1
    skipped = 1 if batched else 0
    taken = config.input.add(name=manifest.input.name, dims=shape[skipped:])
    taken.data_type = schema.DataType.Value(types[manifest.input.name])
    for output in manifest.outputs:
        dims = [shape[0], *[_FREE] * (len(output.layout) - 1)]
        given = config.output.add(name=output.name, dims=dims[skipped:])
        given.data_type = schema.DataType.Value(types[output.name])
    kinds = schema.ModelInstanceGroup.Kind
    config.instance_group.add(
        count=settings.instances, kind=kinds.Value("KIND_GPU" if settings.kind == "gpu" else "KIND_CPU")
    )
    if batched:
        config.dynamic_batching.max_queue_delay_microseconds = settings.delay_us
    if settings.threads is not None and settings.kind == "cpu":
        config.parameters["intra_op_thread_count"].string_value = str(settings.threads)
    config.parameters["contrail.sha256"].string_value = manifest.sha256 or ""
    config.parameters["contrail.class_names"].string_value = ",".join(manifest.class_names)
    return config, _add_warm_up(config, engine, manifest, shape)


def _add_warm_up(config: Any, engine: Path, manifest: Manifest, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """One request per size of the golden images, alone, and one as large as a batch may be."""
    if not golden_folder(engine).is_dir() or shape[0] > 1:
        return {}
    tensors: dict[str, np.ndarray] = {}
    for each in Golden.load(golden_folder(engine)).inputs:
        placed, _ = place(each.image, stride=manifest.input.stride, resize=manifest.input.resize)
        tensor = to_input(placed[None], manifest.input)
        sides = zip(tensor.shape[1:], shape[1:], strict=True)
        if all(fixed in (side, _FREE) for side, fixed in sides) and all(
            tensor.shape != other.shape for other in tensors.values()
        ):
            tensors[each.name.replace(" ", "_")] = tensor
    for file, tensor in tensors.items():
        for batch in sorted({1, max(config.max_batch_size, 1)}):
            warm_up = config.model_warmup.add(name=f"{file}, batch of {batch}", count=1)
            warm_up.batch_size = batch if config.max_batch_size else 0
            entry = warm_up.inputs[manifest.input.name]
            entry.data_type = config.input[0].data_type
            entry.dims[:] = tensor.shape[1:] if config.max_batch_size else tensor.shape
            entry.input_data_file = file
    return tensors


def _types(engine: Path, manifest: Manifest) -> dict[str, str]:
    """Triton's type of every tensor, by name."""
    dtypes = {manifest.input.name: manifest.input.dtype} | {each.name: each.dtype for each in manifest.outputs}
    problems = [f"\n  {name!r}: {dtype}" for name, dtype in dtypes.items() if dtype not in _TYPES]
    if problems:
        raise UserError(f"{engine}: Triton has the types {', '.join(_TYPES)}; of another are:{''.join(problems)}")
    return {name: _TYPES[dtype] for name, dtype in dtypes.items()}


def _input_shape(engine: Path, manifest: Manifest) -> tuple[tuple[int, ...], int | None]:
    """Shape of the input, -1 where it is free, and the largest batch (None: any)."""
    if manifest.kind == "tensorrt":
        details = PlanDetails.of(manifest, engine)
        if details.package != "tensorrt":
            raise UserError(f"{engine}: built by {details.package}; Triton runs plans of tensorrt")
        low, high = details.profile.min, details.profile.max
        shape = tuple(side if side == other else _FREE for side, other in zip(low, high, strict=True))
        # A batch that the profile allows to grow from 1 is Triton's to fill; any other is part of the shape.
        return (_FREE, *shape[1:]) if low[0] == 1 else shape, high[0]
    file = require_single_file(engine)
    check_io(engine, manifest, _io(file.inputs), _io(file.outputs))
    sides = file.inputs[0].shape
    if sides is None:
        raise UserError(f"{engine}: input {manifest.input.name!r} has no shape, and Triton needs one; name its 4 axes")
    return tuple(side if isinstance(side, int) else _FREE for side in sides), None


def _io(tensors: Sequence[TensorInfo]) -> dict[str, tuple[str, int | None]]:
    return {each.name: (each.dtype, None if each.shape is None else len(each.shape)) for each in tensors}


if __name__ == "__main__":
    run_command(main)
