"""TensorRT and TensorRT-RTX engines, without torch: pinned buffers, one stream, CUDA events, CUDA graphs on request."""

from __future__ import annotations

import importlib
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from serving.contract.errors import UnavailableError, UserError
from serving.contract.limits import TF32, PrecisionLimits
from serving.contract.manifest import Manifest
from serving.contract.schema import Require
from serving.engines.runtimes.runtime import Array, Runtime, check_io, one_line, parse_options
from serving.engines.runtimes.tensorrt.cuda import Buffer, Cuda
from serving.engines.runtimes.tensorrt.plan import (
    DISTRIBUTION,
    PlanDetails,
    error_log,
    install_command,
    require_capability,
    require_version,
)
from serving.engines.runtimes.tensorrt.runtime_cache import RuntimeCache


@dataclass(frozen=True)
class TensorRTOptions:
    """Options of TensorRT.

    Attributes:
        device_id: GPU, counted from 0.
        cuda_graph: replay the engine as one CUDA graph per shape: less time on the host, for small engines above all.
        specialization: TensorRT-RTX only: whether kernels for a new shape are compiled before it first runs (`eager`),
            while a slower fallback runs (`lazy`), or never (`none`).
    """

    device_id: int = 0
    cuda_graph: bool = False
    specialization: Literal["eager", "lazy", "none"] = "eager"

    def __post_init__(self) -> None:
        require = Require()
        require(self.device_id >= 0, f"device_id: expected at least 0, got {self.device_id}")
        require.done()


class TensorRT(Runtime):
    """A TensorRT plan with its execution context.

    `last_timings_ms` holds `upload`, `enqueue` and `download` by CUDA events, and `engine`: all of it, on the host's
    clock. In the call that records a CUDA graph, or fails to, `capture` is the host's time for that.
    """

    name: ClassVar[str] = "tensorrt"
    kinds: ClassVar[frozenset[str]] = frozenset({"tensorrt"})
    Options: ClassVar[type[TensorRTOptions]] = TensorRTOptions
    compiled: ClassVar[bool] = True
    precisions: ClassVar[Mapping[str, PrecisionLimits]] = {"tf32": TF32}
    packages: ClassVar[tuple[str, ...]] = ("tensorrt", "tensorrt-rtx", "cuda-python")

    def __init__(
        self,
        cuda: Cuda,
        library: Any,
        engine: Any,
        context: Any,
        plan: PlanDetails,
        cache: RuntimeCache | None,
        layout: str,
        options: TensorRTOptions,
    ) -> None:
        super().__init__()
        self._cuda, self._library, self._engine, self._context = cuda, library, engine, context
        self._plan, self._cache, self._options = plan, cache, options
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == library.TensorIOMode.INPUT]
        self._input_name: str = inputs[0]
        self._output_names: list[str] = [name for name in names if name not in inputs]
        self._buffers: dict[str, Buffer] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._failed_captures = 0
        self._records = options.cuda_graph  # whether this shape may be recorded
        self._marks = [cuda.event() for _ in range(4)]
        self._running = threading.Lock()  # one context, one stream, one set of buffers: one thread at a time
        least, most = plan.profile.min, plan.profile.max
        row = layout.index("H")
        self.batch_range = (least[0], most[0])
        self.size_range = ((least[row], least[row + 1]), (most[row], most[row + 1]))

    @classmethod
    def _load(cls, engine_path: Path, manifest: Manifest, options: Mapping[str, object], *, vouched: bool) -> Self:
        parsed = parse_options(TensorRTOptions, options, cls.name)
        plan = PlanDetails.of(manifest, engine_path)
        library = _import(plan)
        require_version(plan, library.__version__, engine_path)
        cuda = Cuda(parsed.device_id)
        require_capability(plan, cuda.compute_capability, cuda.gpu, engine_path)
        cuda.open_stream()
        try:
            engine, context, cache = _deserialise(library, engine_path, parsed)
            names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
            sides: tuple[dict[str, tuple[str, int | None]], dict[str, tuple[str, int | None]]] = ({}, {})
            for name in names:
                dtype = np.dtype(library.nptype(engine.get_tensor_dtype(name))).name
                is_output = engine.get_tensor_mode(name) != library.TensorIOMode.INPUT
                sides[is_output][name] = (dtype, len(engine.get_tensor_shape(name)))
            check_io(engine_path, manifest, *sides)
            return cls(cuda, library, engine, context, plan, cache, manifest.input.layout, parsed)
        except BaseException:
            cuda.close()
            raise

    def infer(self, batch: Array) -> dict[str, Array]:
        with self._running:
            self._cuda.use_here()
            return self._infer_alone(batch)

    def _infer_alone(self, batch: Array) -> dict[str, Array]:
        start = time.perf_counter_ns()
        cuda, (begin, uploaded, ran, downloaded) = self._cuda, self._marks
        fresh = self._set_shape(batch)
        source = self._buffers[self._input_name]
        np.copyto(source.host[: batch.nbytes].view(batch.dtype).reshape(batch.shape), batch)
        cuda.record(begin)
        source.upload(batch.nbytes)
        cuda.record(uploaded)
        capture_ms = self._record() if self._records and not fresh and not cuda.has_graph else None
        self._enqueue()
        cuda.record(ran)
        sizes = {name: self._bytes(name) for name in self._output_names}
        for name, size in sizes.items():
            self._buffers[name].download(size)
        cuda.record(downloaded)
        cuda.synchronise()
        outputs = {
            name: self._buffers[name].host[:size].view(self._dtype(name)).reshape(self._shapes[name]).copy()
            for name, size in sizes.items()
        }
        self.last_timings_ms = {
            "upload": cuda.elapsed_ms(begin, uploaded),
            "enqueue": cuda.elapsed_ms(uploaded, ran),
            "download": cuda.elapsed_ms(ran, downloaded),
            "engine": (time.perf_counter_ns() - start) / 1e6,
        }
        if capture_ms is not None:
            self.last_timings_ms["capture"] = capture_ms
        return outputs

    def _set_shape(self, batch: Array) -> bool:
        """Prepare the context and the buffers for this shape; whether it is another one than before."""
        if self._shapes.get(self._input_name) == batch.shape:
            return False
        if not self._plan.profile.holds(batch.shape):
            profile = self._plan.profile
            raise UserError(
                f"TensorRT, on an input of shape {list(batch.shape)}: the plan takes {list(profile.min)} to "
                f"{list(profile.max)}; rebuild it with a wider profile, or resize or tile the images"
            )
        self._cuda.drop_graph()  # it holds the old shapes and addresses
        self._shapes = {}
        if not self._context.set_input_shape(self._input_name, batch.shape) or self._context.infer_shapes():
            raise UserError(f"TensorRT, on an input of shape {list(batch.shape)}: refused by the engine")
        shapes = {self._input_name: batch.shape}
        shapes.update({name: tuple(self._context.get_tensor_shape(name)) for name in self._output_names})
        for name, shape in shapes.items():
            size = math.prod(shape) * self._dtype(name).itemsize
            held = self._buffers.get(name)
            if held is None or held.size < size:
                if held is not None:
                    del self._buffers[name]
                    self._cuda.release(held)
                self._buffers[name] = self._cuda.buffer(size)
            if not self._context.set_tensor_address(name, self._buffers[name].device):
                raise UserError(f"TensorRT: tensor {name!r}: address refused by the engine")
        self._shapes = shapes
        self._records = self._options.cuda_graph
        return True

    def _record(self) -> float:
        """Record the engine as a CUDA graph, for the shape that is set; returns the milliseconds that took.

        Not at the first run of a shape: TensorRT may allocate and compile in it. Where recording fails nothing of it
        stays, and this shape runs directly from now on.
        """
        cuda, start = self._cuda, time.perf_counter_ns()
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(cuda.stream):
            raise UserError("TensorRT: this engine cannot be recorded as a CUDA graph; set cuda_graph: false")
        try:
            cuda.begin_capture()
            self._execute()
            cuda.end_capture()
        except BaseException as error:
            cuda.discard_capture()
            if not isinstance(error, UserError):
                raise
            self._failed_captures += 1
            self._records = False
        return (time.perf_counter_ns() - start) / 1e6

    def _enqueue(self) -> None:
        """Run the engine on the stream: as the recorded graph where there is one, else directly.

        Where that fails neither graph nor shape stays: the next run sets everything anew.
        """
        try:
            if self._cuda.has_graph:
                self._cuda.launch()
            else:
                self._execute()
        except BaseException:
            self._shapes = {}
            self._cuda.drop_graph()
            raise

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise UserError(f"TensorRT: the engine failed on an input of shape {list(self._shapes[self._input_name])}")

    def _dtype(self, name: str) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name)))
        return dtype

    def _bytes(self, name: str) -> int:
        return math.prod(self._shapes[name]) * self._dtype(name).itemsize

    def what_runs(self) -> dict[str, object]:
        return {
            "runtime": self.name,
            "version": self._plan.version,
            "package": self._plan.package,
            "provider": self._cuda.gpu,
            "compute_capability": self._cuda.compute_capability,
            "cuda_graph": self._options.cuda_graph,
            "failed_captures": self._failed_captures,
            "runtime_cache_found": self._cache.found if self._cache is not None else None,
        }

    def computes_in(self, precision: str) -> bool:
        # Tensor cores take TensorFloat-32 from Ampere (8.0) on.
        return precision != "tf32" or int(self._cuda.compute_capability.partition(".")[0]) >= 8

    def layer_precisions(self) -> tuple[dict[str, int], str] | None:
        layers = self._plan.extra.get("layers")
        if not isinstance(layers, Mapping):
            return None
        return {str(key): int(value) for key, value in layers.items()}, "strongly typed network of the plan"

    @classmethod
    def file_details(cls, engine_path: Path, manifest: Manifest) -> str:
        plan = PlanDetails.of(manifest, engine_path)
        return f"{plan.package} {plan.version}, compute capability {', '.join(plan.compute_capabilities)}"

    def close(self) -> None:
        with self._running:
            self._cuda.use_here()
            if self._cuda.stream:
                self._cuda.synchronise()  # nothing may be in flight when the context goes
            if self._cache is not None:
                self._cache.save()
            self._cache = None
            self._context = None
            self._engine = None
            self._buffers, self._shapes = {}, {}
            self._cuda.close()


def _import(plan: PlanDetails) -> Any:
    """The package that built the plan."""
    distribution = DISTRIBUTION[plan.package]
    try:
        return importlib.import_module(plan.package)
    except (ImportError, OSError) as error:  # OSError: its shared libraries are there in part only
        raise UnavailableError(
            f"runtime tensorrt: {distribution} is not installed ({one_line(error)}): {install_command(plan)}"
        ) from error


def _deserialise(library: Any, engine_path: Path, options: TensorRTOptions) -> tuple[Any, Any, RuntimeCache | None]:
    """(engine, context, compiled kernels where TensorRT-RTX keeps some) of a plan that passed every refusal."""
    log = error_log(library)
    runtime = library.Runtime(log)
    engine = runtime.deserialize_cuda_engine(engine_path.read_bytes())
    context, cache = None, None
    if engine is not None:
        if library.__name__ == "tensorrt_rtx":
            config = engine.create_runtime_config()
            strategies = library.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, options.specialization.upper())
            cache = RuntimeCache(config, engine_path)
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
    if context is None:
        reason = one_line(RuntimeError("; ".join(log.errors) or "no reason given"))
        raise UserError(f"{engine_path}: TensorRT cannot open it: {reason}; rebuild it with `dvc repro`")
    return engine, context, cache
