"""ONNX Runtime, on the CPU or on a GPU, with the execution provider asserted."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from serving.contract.errors import UnavailableError, UserError
from serving.contract.limits import TF32, PrecisionLimits
from serving.contract.manifest import Manifest
from serving.engines.runtimes.onnxruntime.kernels import (
    Kernel,
    assigned_nodes,
    computed_elsewhere,
    layers_by_precision,
    read_profile,
)
from serving.engines.runtimes.onnxruntime.options import (
    OnnxRuntimeOptions,
    provider_options,
    session_settings,
    silent,
)
from serving.engines.runtimes.onnxruntime.plugins import find_plugin
from serving.engines.runtimes.onnxruntime.sessions import BoundSession, SessionsByShape
from serving.engines.runtimes.runtime import Array, Runtime, check_io, fixed_sides, one_line, parse_options

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
SHAPE_BUCKETS = 4
_CUDNN = "libcudnn.so.9"


class OnnxRuntime(Runtime):
    """An ONNX file in an ONNX Runtime session."""

    name: ClassVar[str] = "onnxruntime"
    kinds: ClassVar[frozenset[str]] = frozenset({"onnx"})
    Options: ClassVar[type[OnnxRuntimeOptions]] = OnnxRuntimeOptions
    precisions: ClassVar[Mapping[str, PrecisionLimits]] = {"tf32": TF32}
    packages: ClassVar[tuple[str, ...]] = (
        *("onnxruntime", "onnxruntime-gpu"),
        *("onnxruntime-ep-openvino", "onnxruntime-ep-nv-tensorrt-rtx"),
    )

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        options: OnnxRuntimeOptions,
        open_session: Callable[..., onnxruntime.InferenceSession],
        sample_shape: tuple[int, ...],
        provider: str,
    ) -> None:
        """See `open`.

        Args:
            session: the open engine.
            options: it was opened with.
            open_session: opens it once more, writing profiles where a prefix of files for them is given.
            sample_shape: of a small input.
            provider: execution provider that was asked for, as ONNX Runtime calls it.
        """
        super().__init__()
        self._session: Any = session
        self._options = options
        self._open_session = open_session
        self._sample_shape = sample_shape
        self._provider = provider
        self._input_name: str = session.get_inputs()[0].name
        self._output_names: list[str] = [output.name for output in session.get_outputs()]
        batch = session.get_inputs()[0].shape[:1]
        if batch and isinstance(batch[0], int) and batch[0] > 0:
            self.batch_range = (batch[0], batch[0])
        self._bound: SessionsByShape | None = None
        if options.is_bound:
            most = options.shape_buckets or (SHAPE_BUCKETS if options.provider == "cuda" else 1)
            self._bound = SessionsByShape(self._bind(session), lambda: self._bind(open_session()), most)

    @classmethod
    def _load(cls, engine_path: Path, manifest: Manifest, options: Mapping[str, object], *, vouched: bool) -> Self:
        parsed = parse_options(OnnxRuntimeOptions, options, cls.name)
        if parsed.tf32 and manifest.precision != "fp32":
            raise UserError(f"{engine_path}: tf32: only for engines in fp32, this one is in {manifest.precision}")
        ort, errors = _import()
        plugin = find_plugin(ort, errors, parsed) if parsed.provider == "plugin" else None
        provider = plugin.provider if plugin is not None else _PROVIDERS[parsed.provider]
        if plugin is None and provider not in ort.get_available_providers():
            raise UnavailableError(
                f"runtime onnxruntime: {provider} is not in the installed ONNX Runtime {ort.__version__}: "
                f"pip uninstall --yes onnxruntime && {_gpu_command(ort)} (the two overwrite each other)"
            )
        missing = _preload(ort) if parsed.provider == "cuda" else ""

        def open_session(profiles: str | None = None) -> Any:
            try:
                if plugin is not None:
                    return plugin.open_session(engine_path, manifest.sha256, parsed, profiles)
                with silent(ort) if parsed.provider == "cuda" else contextlib.nullcontext():
                    return ort.InferenceSession(
                        str(engine_path),
                        session_settings(ort, parsed, profiles),
                        providers=[(provider, provider_options(parsed))],
                        enable_fallback=0,  # its Python layer would try again on the CPU, when opening and at every run
                    )
            except errors as error:
                if missing:
                    raise UnavailableError(f"{_not_on(ort, provider, missing)} ({one_line(error)})") from error
                raise UserError(f"{engine_path}: ONNX Runtime cannot open it: {one_line(error)}") from error

        session = open_session()
        running = session.get_providers()
        if plugin is not None and running[0] != provider:
            raise UnavailableError(f"runtime onnxruntime: asked for {provider}, it would run on {running[0]}")
        if running[0] != provider:
            raise UnavailableError(f"{_not_on(ort, provider, missing)} (it would run on {running[0]})")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        check_io(
            engine_path,
            manifest,
            {each.name: _found(each) for each in inputs},
            {each.name: _found(each) for each in outputs},
        )
        runtime = cls(session, parsed, open_session, _sample_shape(inputs[0].shape, manifest), provider)
        runtime.size_range = fixed_sides(inputs[0].shape, manifest.input.layout)
        return runtime

    @classmethod
    def options_for(cls, calls: int, threads: int) -> dict[str, object]:
        return {"threads": max(threads // calls, 1)}  # each call has its own, beside the thread that calls

    def infer(self, batch: Array) -> dict[str, Array]:
        _, errors = _import()
        start = time.perf_counter_ns()
        try:
            values = self._run(batch)
        except errors as error:
            raise UserError(f"ONNX Runtime, on an input of shape {list(batch.shape)}: {one_line(error)}") from error
        self.last_timings_ms["engine"] = (time.perf_counter_ns() - start) / 1e6
        return dict(zip(self._output_names, values, strict=True))

    def _bind(self, session: Any) -> BoundSession:
        ort, _ = _import()
        return BoundSession(ort, session, self._options.provider, self._options.device_id)

    def _run(self, batch: Array) -> list[Array]:
        values: list[Array]
        if self._bound is not None:
            values, self.last_timings_ms = self._bound.run(batch)
        else:
            values = self._session.run(None, {self._input_name: batch})
            self.last_timings_ms = {}
        return values

    @cached_property
    def _kernels(self) -> list[Kernel]:
        """What one run on a small image executes, seen by a session of its own. Raises UserError when that fails."""
        _, errors = _import()
        with tempfile.TemporaryDirectory(prefix="contrail-profile-") as folder:
            session = self._open_session(str(Path(folder) / "profile"))
            spec = session.get_inputs()[0]
            try:
                session.run(None, {spec.name: np.zeros(self._sample_shape, _found(spec)[0])})
            except errors as error:
                shape = list(self._sample_shape)
                raise UserError(f"ONNX Runtime, on an input of shape {shape}: {one_line(error)}") from error
            return read_profile(Path(session.end_profiling()))

    def layer_precisions(self) -> tuple[dict[str, int], str] | None:
        layers = layers_by_precision(self._kernels)
        if self._options.tf32:
            layers = {"tf32" if name == "fp32" else name: count for name, count in layers.items()}
        if not layers and self._options.provider == "plugin":
            return None  # it runs the graph as one node, which tells of nothing inside
        return layers, "executed kernels of ONNX Runtime"

    def computed_elsewhere(self) -> list[str]:
        return computed_elsewhere(self._kernels, self._provider)

    def what_runs(self) -> dict[str, object]:
        ort, _ = _import()
        assigned = getattr(self._session, "get_provider_graph_assignment_info", None)  # before 1.24 there is none
        return {
            "runtime": self.name,
            "version": ort.__version__,
            "provider": self._session.get_providers()[0],
            "threads": self._options.threads,
            "spinning": self._options.spinning,
            "optimization": self._options.optimization,
            "io_binding": self._bound is not None,
            "sessions": 1 if self._bound is None else len(self._bound),
        } | (assigned_nodes(assigned(), self._provider) if assigned is not None else {})

    def told_precision(self) -> str | None:
        return "tf32" if self._options.tf32 else None

    def computes_in(self, precision: str) -> bool:
        # The CPU provider has no fp16 kernels: it computes such layers in single precision.
        return not (precision == "fp16" and self._session.get_providers()[0] == "CPUExecutionProvider")

    def close(self) -> None:
        self._bound = self._session = None


def _import() -> tuple[Any, tuple[type[Exception], ...]]:
    """The library, imported when first used, and the exceptions that it raises (they share no base but Exception)."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise UnavailableError(
            f"runtime onnxruntime: not installed ({one_line(error)}); pip install onnxruntime (or onnxruntime-gpu)"
        ) from error
    errors = [each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception)]
    return onnxruntime, (*errors, RuntimeError, ValueError)


def _preload(ort: Any) -> str:
    """Load CUDA and cuDNN, from pip packages where the system has none; what cannot be loaded, in words."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it cannot load, and raises nothing
        ort.preload_dlls()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(_CUDNN)  # without it sessions open, and convolutions have no kernel
        except OSError as error:
            said.write(f"{error}\n")
    lines = dict.fromkeys(line for line in said.getvalue().splitlines() if ".so" in line or ".dll" in line)
    return "; ".join(lines) or " ".join(said.getvalue().split())


def _gpu_command(ort: Any) -> str:
    """Installs ONNX Runtime for NVIDIA GPUs with the CUDA and cuDNN that it is built for."""
    return f"pip install 'onnxruntime-gpu[cuda,cudnn]=={ort.__version__}'"


def _not_on(ort: Any, provider: str, missing: str) -> str:
    """Why a session is not on the GPU that was asked for, and what helps.

    Args:
        ort: the library.
        provider: that was asked for.
        missing: what of CUDA and cuDNN could not be loaded; "" where all could be.
    """
    asked = f"runtime onnxruntime: asked for {provider}, which does not start"
    if missing:
        return f"{asked}: {missing}: {_gpu_command(ort)}"
    cuda = getattr(ort, "cuda_version", "") or "its CUDA"
    return f"{asked}, although its libraries are there: see by nvidia-smi whether the driver's CUDA is {cuda} or newer"


def _sample_shape(shape: Sequence[int | str | None], manifest: Manifest) -> tuple[int, ...]:
    """A small input's shape: two strides by three, where an axis is not fixed (none is without a rank)."""
    stride = manifest.input.stride
    free = {"N": 1, "H": 2 * stride, "W": 3 * stride, "C": 3}
    return tuple(
        side if isinstance(side, int) and side > 0 else free[axis]
        for side, axis in zip(shape or [None] * 4, manifest.input.layout, strict=True)
    )


def _found(tensor: Any) -> tuple[str, int | None]:
    """(dtype as numpy names it, rank) of a session's input or output."""
    dtype = _DTYPES.get(tensor.type, tensor.type.removeprefix("tensor(").removesuffix(")"))
    return dtype, len(tensor.shape) if tensor.shape else None
