"""From an exported ONNX file to a TensorRT plan, with `tensorrt` or `tensorrt-rtx`, whichever is installed.

Both type networks strongly: a plan computes in the precisions of its graph, so that the artefact decides.
TensorFloat-32 is the exception: allowed by default, it is switched off here unless asked for. TensorRT-RTX builds
without GPU or driver for the compute capabilities it is told; TensorRT builds on the GPU that the plan is for.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from export.plans.profile import plan_profile
from export.plans.timing_cache import TimingCaches
from export.targets.plan_build import PlanBuild
from pipeline.layout.paths import PLAN_NAME
from serving.contract.errors import UnavailableError, UserError
from serving.contract.files import file_sha256, write_atomically
from serving.contract.manifest import verify_sidecar, write_sidecar
from serving.engines.runtimes.runtime import one_line
from serving.engines.runtimes.tensorrt.cuda import Cuda
from serving.engines.runtimes.tensorrt.plan import DISTRIBUTION, PlanDetails, Profile, error_log

INSPECTION_NAME = "inspection.json"
OLDEST_TENSORRT = (10, 3)  # JetPack 6 brings it; 10.x is accepted and untried
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")

# Layers that carry the arithmetic, as TensorRT's network names them.
_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8"}


def compile_plan(
    onnx_path: Path,
    folder: Path,
    *,
    name: str,
    build: PlanBuild,
    sizes: Callable[[], Collection[tuple[int, int]]],
    timings: TimingCaches,
    device_id: int = 0,
) -> Path:
    """Build a plan and its manifest.

    Args:
        onnx_path: an exported ONNX artefact with its manifest beside it.
        folder: an existing folder for the plan, its manifest and `inspection.json`.
        name: of the target.
        build: package, GPUs and input shapes.
        sizes: gives height and width of the dataset's images, in pixels, for the shapes that `build` does not name.
        timings: of this machine: what was timed for one graph is not timed again for another of equal structure.
        device_id: GPU that TensorRT builds on, counted from 0; the one that the plan is for.

    Returns:
        Path of the plan. Its bytes differ from build to build; the manifest names what it was made of.

    Raises:
        UnavailableError: the package or a GPU is missing.
        UserError: the ONNX file is not its manifest's, the parser does not take it (all of its errors are listed), or
            the builder fails.
    """
    source = verify_sidecar(onnx_path)
    if build.tf32 and source.precision != "fp32":
        raise UserError(f"build.tf32: only for artifacts in fp32, {onnx_path} is in {source.precision}")
    library = import_package(build.package)
    profile = plan_profile(build, source.input, sizes)
    capabilities, gpu = _capabilities(library.__name__, build, device_id)
    log = error_log(library)
    builder = library.Builder(log)
    network = builder.create_network(_network_flags(library))
    _parse(library, network, log, onnx_path)
    config = builder.create_builder_config()
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    if not build.tf32:
        config.clear_flag(library.BuilderFlag.TF32)
    if build.workspace_mebibytes is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, build.workspace_mebibytes * 2**20)
    _add_profile(builder, config, source.input.name, profile)
    timing_cache = None
    if library.__name__ == "tensorrt_rtx":
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            member = getattr(library.ComputeCapability, f"SM{capability.replace('.', '')}")
            config.set_compute_capability(member, index)
    else:
        structure = source.details.get("structure_sha256", source.sha256)
        timing_cache = timings.of(library, gpu, str(structure))
        timing_cache.attach(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError(f"{onnx_path}: {_title(library)} cannot build it:{_listed(log.errors)}")
    layers = network_precisions(network, tf32=config.get_flag(library.BuilderFlag.TF32))
    path = folder / PLAN_NAME
    write_atomically(path, bytes(plan))
    extra: dict[str, object] = {
        "onnx_sha256": file_sha256(onnx_path),
        "layers": layers,
        # TensorRT-RTX measures on the machine that runs the plan; it has no timing cache when building.
        "timing_cache_sha256": None if timing_cache is None else timing_cache.keep(config),
    }
    details = PlanDetails(library.__name__, library.__version__, capabilities, profile, extra)
    manifest = dataclasses.replace(
        source,
        name=name,
        kind="tensorrt",
        precision="tf32" if build.tf32 else source.precision,
        sha256=None,
        details=dict(source.details) | details.to_details(),
    )
    write_sidecar(manifest, path)
    summary = json.dumps(_inspection(library, log, bytes(plan), layers), indent=2, sort_keys=True) + "\n"
    write_atomically(folder / INSPECTION_NAME, summary.encode())
    return path


def import_package(package: str) -> Any:
    """The builder's Python module.

    Raises:
        UnavailableError: it is not there or not whole, with the command that installs it; or TensorRT is older than
            10.3, from which on ONNX graphs of uint8 images are taken and networks may be typed strongly.
    """
    names = ("tensorrt", "tensorrt_rtx") if package == "auto" else (package,)
    errors = []
    for name in names:
        try:
            library = importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: its shared libraries are there in part only
            errors.append(one_line(error))
            continue
        if name == "tensorrt" and _version(library) < OLDEST_TENSORRT:
            oldest = ".".join(map(str, OLDEST_TENSORRT))
            raise UnavailableError(f"{_title(library)} is too old: {oldest} or newer is needed")
        return library
    # TensorRT builds on GPUs alone, TensorRT-RTX anywhere; the extras `cpu` and `gpu` exclude each other.
    on_gpu = names[0] == "tensorrt" or _is_installed("onnxruntime-gpu")
    distributions = " or ".join(DISTRIBUTION[name] for name in names)
    extras = f"{'gpu' if on_gpu else 'cpu'},{DISTRIBUTION[names[0]]}"
    where = "on a machine with an NVIDIA GPU, " if names[0] == "tensorrt" else ""
    raise UnavailableError(
        f"{distributions} is not installed ({'; '.join(errors)}): {where}make install EXTRA={extras}"
    )


def _version(library: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in library.__version__.split(".")[:2])


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _network_flags(library: Any) -> int:
    """TensorRT 10 types a network strongly where it is told to; TensorRT 11 and TensorRT-RTX know nothing else."""
    if library.__name__ != "tensorrt" or _version(library) >= (11,):
        return 0
    return 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _capabilities(package: str, build: PlanBuild, device_id: int) -> tuple[tuple[str, ...], str]:
    """The GPUs to build for, those named or else the one here, and the name of the one that it builds on, or "".

    That GPU stays the calling thread's choice: TensorRT builds on it.
    """
    gpu = ""
    if package == "tensorrt_rtx" and build.compute_capabilities:
        named = build.compute_capabilities
    else:
        cuda = Cuda(device_id)
        try:
            named = (cuda.compute_capability,)
            gpu = cuda.gpu
        finally:
            cuda.close()
        if build.compute_capabilities and build.compute_capabilities != named:
            raise UserError(
                f"TensorRT builds for the GPU it runs on, {gpu} with compute capability {named[0]}; asked for "
                f"{', '.join(build.compute_capabilities)}: build there, or with package: tensorrt_rtx"
            )
    unknown = [each for each in named if package == "tensorrt_rtx" and each not in RTX_CAPABILITIES]
    if unknown:
        raise UnavailableError(
            f"TensorRT-RTX does not build for compute capability {', '.join(unknown)}; it knows "
            f"{', '.join(RTX_CAPABILITIES)}; use package: tensorrt"
        )
    return named, gpu


def _parse(library: Any, network: Any, log: Any, path: Path) -> None:
    parser = library.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        listed = [f"node {error.node()} ({error.node_operator()}): {error.desc()}" for error in errors]
        raise UserError(
            f"{path}: {_title(library)} does not take this graph, {len(listed)} error{'s' if len(listed) > 1 else ''}:"
            f"{_listed(listed or log.errors)}"
        )


def _listed(errors: list[str]) -> str:
    return "".join(f"\n  {' '.join(error.split())}" for error in errors) or " no reason given"


def _add_profile(builder: Any, config: Any, name: str, shapes: Profile) -> None:
    """The one optimisation profile. Raises UserError for shapes that the builder does not take."""
    profile = builder.create_optimization_profile()
    profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
    if config.add_optimization_profile(profile) < 0:
        raise UserError(f"build: the builder refused the profile {shapes}")


def network_precisions(network: Any, *, tf32: bool) -> dict[str, int]:
    """Layers with weights by the precision they compute in: precision -> number. Plans keep to it: they are typed.

    Products of two activations, as in attention, have none.

    Args:
        network: parsed.
        tf32: whether the builder may use TensorFloat-32 for layers in single precision.
    """
    producers = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for output in range(layer.num_outputs):
            producers[layer.get_output(output).name] = layer
    counts: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name not in _LAYERS:
            continue
        inputs = [layer.get_input(position) for position in range(layer.num_inputs)]
        if layer.type.name == "MATRIX_MULTIPLY" and not any(_is_weight(each, producers) for each in inputs):
            continue
        feeding = [_maker(each, producers, ("SHUFFLE",)) for each in inputs[:2] if each is not None]
        quantised = bool(feeding) and all(each is not None and each.type.name == "DEQUANTIZE" for each in feeding)
        name = "int8" if quantised else _NAMES.get(inputs[0].dtype.name, inputs[0].dtype.name.lower())
        counts["tf32" if tf32 and name == "fp32" else name] += 1
    return dict(sorted(counts.items()))


def _is_weight(tensor: Any, producers: Mapping[str, Any]) -> bool:
    """Whether a tensor of the network is a constant, as it is stored or unpacked."""
    layer = _maker(tensor, producers, ("CAST", "DEQUANTIZE", "IDENTITY", "QUANTIZE", "SHUFFLE"))
    return layer is not None and layer.type.name == "CONSTANT"


def _maker(tensor: Any, producers: Mapping[str, Any], through: Collection[str]) -> Any:
    """The layer that makes a tensor, seen through layers of some kinds; None for an input of the network."""
    layer = producers.get(tensor.name)
    while layer is not None and layer.type.name in through:
        layer = producers.get(layer.get_input(0).name)
    return layer


def _inspection(library: Any, log: Any, plan: bytes, layers: Mapping[str, int]) -> dict[str, object]:
    """What TensorRT's inspector says of the plan; without a GPU, which opening it needs, the network's own layers."""
    engine = library.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:
        return {"source": "network: no GPU here to open the plan on", "layers": layers}
    text = engine.create_engine_inspector().get_engine_information(library.LayerInformationFormat.JSON)
    return {"source": "inspector", "layers": layers, "engine": json.loads(text)}


def _title(library: Any) -> str:
    return f"{DISTRIBUTION[library.__name__]} {library.__version__}"
