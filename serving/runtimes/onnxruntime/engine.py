"""ONNX Runtime, on the CPU or on a GPU, with the execution provider asserted."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from serving.contract.errors import UnavailableError, UserError
from serving.contract.limits import TF32, PrecisionLimits
from serving.contract.manifest import Manifest
from serving.contract.schema import Require
from serving.runtimes.onnxruntime.kernels import (
    Kernel,
    assigned_nodes,
    computed_elsewhere,
    layers_by_precision,
    read_profile,
)
from serving.runtimes.runtime import Array, Runtime, check_io, one_line, parse_options

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_OPTIMIZATION = {"none": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """Options of ONNX Runtime.

    Attributes:
        provider: execution provider; what runs instead is an error, never a fallback.
        threads: within one operator; None leaves it to ONNX Runtime (one per core).
        spinning: whether threads spin while they wait: lower latency on an idle machine, far worse on a busy one.
        optimization: graph optimisation level.
        device_id: GPU, counted from 0.
        tf32: on a GPU, let layers in single precision round the factors of their products to TensorFloat-32; what is
            computed is then called `tf32`. ONNX Runtime's own default, and never ours.
        io_binding: keep input and output buffers on the device between calls; None means on a GPU only.
        provider_options: handed to the provider as they are (names as in ONNX Runtime's documentation).
    """

    provider: Literal["cpu", "cuda"] = "cpu"
    threads: int | None = None
    spinning: bool = True
    optimization: Literal["none", "basic", "extended", "all"] = "all"
    device_id: int = 0
    tf32: bool = False
    io_binding: bool | None = None
    provider_options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require = Require()
        require(self.threads is None or self.threads >= 1, f"threads: expected at least 1, got {self.threads}")
        require(self.device_id >= 0, f"device_id: expected at least 0, got {self.device_id}")
        require(not self.tf32 or self.provider == "cuda", f"tf32: only with provider: cuda, got {self.provider}")
        require("use_tf32" not in self.provider_options, "provider_options.use_tf32: write `tf32: true`, or nothing")
        require.done()


class OnnxRuntime(Runtime):
    """An ONNX file in an ONNX Runtime session."""

    name: ClassVar[str] = "onnxruntime"
    kinds: ClassVar[frozenset[str]] = frozenset({"onnx"})
    Options: ClassVar[type[OnnxRuntimeOptions]] = OnnxRuntimeOptions
    precisions: ClassVar[Mapping[str, PrecisionLimits]] = {"tf32": TF32}
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnxruntime-gpu")

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        options: OnnxRuntimeOptions,
        open_profiled: Callable[[str], onnxruntime.InferenceSession],
        sample_shape: tuple[int, ...],
    ) -> None:
        """See `open`.

        Args:
            session: the open engine.
            options: it was opened with.
            open_profiled: opens it once more, writing profiles to files of the prefix given.
            sample_shape: of a small input.
        """
        super().__init__()
        self._session: Any = session
        self._options = options
        self._open_profiled = open_profiled
        self._sample_shape = sample_shape
        self._input_name: str = session.get_inputs()[0].name
        self._output_names: list[str] = [output.name for output in session.get_outputs()]
        batch = session.get_inputs()[0].shape[:1]
        if batch and isinstance(batch[0], int) and batch[0] > 0:
            self.batch_range = (batch[0], batch[0])
        bound = options.io_binding if options.io_binding is not None else options.provider != "cpu"
        self._binding: Any = session.io_binding() if bound else None
        self._device_input: Any = None
        self._bound = threading.Lock()  # a session runs for several threads at once, a binding for one

    @classmethod
    def _load(cls, engine_path: Path, manifest: Manifest, options: Mapping[str, object], *, vouched: bool) -> Self:
        parsed = parse_options(OnnxRuntimeOptions, options, cls.name)
        if parsed.tf32 and manifest.precision != "fp32":
            raise UserError(f"{engine_path}: tf32: only for engines in fp32, this one is in {manifest.precision}")
        ort, errors = _import()
        provider = _PROVIDERS[parsed.provider]
        if provider not in ort.get_available_providers():
            raise UnavailableError(
                f"runtime onnxruntime: {provider} is not in the installed ONNX Runtime {ort.__version__}; "
                "for a GPU: pip uninstall onnxruntime, then pip install onnxruntime-gpu (the two overwrite each other)"
            )
        if parsed.provider != "cpu":
            ort.preload_dlls()  # CUDA and cuDNN from pip packages, where the system has none

        def open_session(profiles: str | None = None) -> Any:
            try:
                return ort.InferenceSession(
                    str(engine_path),
                    _settings(ort, parsed, profiles),
                    providers=[(provider, _provider_options(parsed))],
                    enable_fallback=0,  # its Python layer would try again on the CPU, when opening and at every run
                )
            except errors as error:
                raise UserError(f"{engine_path}: ONNX Runtime cannot open it: {one_line(error)}") from error

        session = open_session()
        running = session.get_providers()
        if running[0] != provider:
            raise UnavailableError(
                f"runtime onnxruntime: asked for {provider}, but it would run on {running[0]}: check the GPU driver, "
                "CUDA and cuDNN against the ONNX Runtime release (onnxruntime.ai, CUDA execution provider)"
            )
        inputs, outputs = session.get_inputs(), session.get_outputs()
        check_io(
            engine_path,
            manifest,
            {each.name: _found(each) for each in inputs},
            {each.name: _found(each) for each in outputs},
        )
        return cls(session, parsed, open_session, _sample_shape(inputs[0].shape, manifest))

    def infer(self, batch: Array) -> dict[str, Array]:
        _, errors = _import()
        start = time.perf_counter_ns()
        try:
            values = self._infer_bound(batch) if self._binding is not None else self._infer_plain(batch)
        except errors as error:
            raise UserError(f"ONNX Runtime, on an input of shape {list(batch.shape)}: {one_line(error)}") from error
        self.last_timings_ms["engine"] = (time.perf_counter_ns() - start) / 1e6
        return dict(zip(self._output_names, values, strict=True))

    def _infer_plain(self, batch: Array) -> list[Array]:
        values: list[Array] = self._session.run(None, {self._input_name: batch})
        self.last_timings_ms = {}
        return values

    def _infer_bound(self, batch: Array) -> list[Array]:
        """Upload into a buffer that stays on the device, run, download; each part timed. One thread at a time."""
        with self._bound:
            return self._infer_on_device(batch)

    def _infer_on_device(self, batch: Array) -> list[Array]:
        ort, _ = _import()
        device = "cpu" if self._options.provider == "cpu" else "cuda"
        begin = time.perf_counter_ns()
        held = self._device_input
        if held is not None and tuple(held.shape()) == batch.shape and held.data_type() == _tensor_type(batch):
            held.update_inplace(np.ascontiguousarray(batch))
        else:
            # On the CPU it would be the caller's own memory, which the next batch is written into.
            own = batch.copy() if device == "cpu" else batch
            held = self._device_input = ort.OrtValue.ortvalue_from_numpy(own, device, self._options.device_id)
            self._binding.clear_binding_inputs()
            self._binding.bind_ortvalue_input(self._input_name, held)
        # Outputs anew every time: their shapes follow the input's.
        self._binding.clear_binding_outputs()
        for name in self._output_names:
            self._binding.bind_output(name, device, self._options.device_id)
        self._binding.synchronize_inputs()
        uploaded = time.perf_counter_ns()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        ran = time.perf_counter_ns()
        values = [np.array(value, copy=device == "cpu") for value in self._binding.copy_outputs_to_cpu()]
        self.last_timings_ms = {
            "upload": (uploaded - begin) / 1e6,
            "enqueue": (ran - uploaded) / 1e6,
            "download": (time.perf_counter_ns() - ran) / 1e6,
        }
        return values

    @cached_property
    def _kernels(self) -> list[Kernel]:
        """What one run on a small image executes, seen by a session of its own. Raises UserError when that fails."""
        _, errors = _import()
        with tempfile.TemporaryDirectory(prefix="contrail-profile-") as folder:
            session = self._open_profiled(str(Path(folder) / "profile"))
            spec = session.get_inputs()[0]
            try:
                session.run(None, {spec.name: np.zeros(self._sample_shape, _found(spec)[0])})
            except errors as error:
                shape = list(self._sample_shape)
                raise UserError(f"ONNX Runtime, on an input of shape {shape}: {one_line(error)}") from error
            return read_profile(Path(session.end_profiling()))

    def layer_precisions(self) -> tuple[dict[str, int], str]:
        layers = layers_by_precision(self._kernels)
        if self._options.tf32:
            layers = {"tf32" if name == "fp32" else name: count for name, count in layers.items()}
        return layers, "executed kernels of ONNX Runtime"

    def computed_elsewhere(self) -> list[str]:
        return computed_elsewhere(self._kernels, _PROVIDERS[self._options.provider])

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
            "io_binding": self._binding is not None,
        } | (assigned_nodes(assigned(), _PROVIDERS[self._options.provider]) if assigned is not None else {})

    def told_precision(self) -> str | None:
        return "tf32" if self._options.tf32 else None

    def computes_in(self, precision: str) -> bool:
        # The CPU provider has no fp16 kernels: it computes such layers in single precision.
        return not (precision == "fp16" and self._session.get_providers()[0] == "CPUExecutionProvider")

    def close(self) -> None:
        self._device_input = self._binding = self._session = None


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


def _settings(ort: Any, options: OnnxRuntimeOptions, profiles: str | None) -> Any:
    """The session's own options; with a profile of each run under the prefix `profiles`."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # what fails arrives as an exception; warnings would mix into our own output
    settings.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, f"ORT_{_OPTIMIZATION[options.optimization]}"
    )
    settings.intra_op_num_threads = options.threads or 0
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if profiles is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profiles
    return settings


def _provider_options(options: OnnxRuntimeOptions) -> dict[str, str]:
    given = {key: str(value) for key, value in options.provider_options.items()}
    if options.provider != "cpu":
        given.setdefault("device_id", str(options.device_id))
        given["use_tf32"] = str(int(options.tf32))
    return given


def _sample_shape(shape: Sequence[int | str | None], manifest: Manifest) -> tuple[int, ...]:
    """A small input's shape: two strides by three, where an axis is not fixed."""
    stride = manifest.input.stride
    free = {"N": 1, "H": 2 * stride, "W": 3 * stride, "C": 3}
    return tuple(
        side if isinstance(side, int) and side > 0 else free[axis]
        for side, axis in zip(shape, manifest.input.layout, strict=True)
    )


def _found(tensor: Any) -> tuple[str, int | None]:
    """(dtype as numpy names it, rank) of a session's input or output."""
    dtype = _DTYPES.get(tensor.type, tensor.type.removeprefix("tensor(").removesuffix(")"))
    return dtype, len(tensor.shape) if tensor.shape else None


def _tensor_type(batch: Array) -> str:
    names = {np.dtype(np.float32): "float", np.dtype(np.float16): "float16", np.dtype(np.uint8): "uint8"}
    return f"tensor({names.get(batch.dtype, batch.dtype.name)})"
