"""OpenVINO: the same ONNX files, several times faster on CPUs with bf16 or INT8 units."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from serving.contract.errors import UnavailableError, UserError
from serving.contract.limits import BF16, FP16, PrecisionLimits
from serving.contract.manifest import Manifest
from serving.contract.schema import Require
from serving.engines.runtimes.openvino.flat_argmax import flatten_argmax
from serving.engines.runtimes.runtime import (
    MOST_THREADS,
    Array,
    Runtime,
    check_io,
    fixed_sides,
    one_line,
    parse_options,
)

_CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
_HINT = {"fp16": "f16", "bf16": "bf16"}
# Precisions as OpenVINO names them -> as manifests do.
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
# Its "MatMul" is a product of two activations: with a weight it is called "FullyConnected".
_LAYERS_WITH_WEIGHTS = ("Convolution", "Deconvolution", "FullyConnected")

# Run by a child process: open a file and nothing else.
_PROBE = """
import json, sys
sys.modules["openvino_telemetry"] = None
import openvino
core = openvino.Core()
core.compile_model(core.read_model(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
"""
_PROBE_SECONDS = 600

_CORES: list[Any] = []  # empty until the first engine is opened
_CORES_LOCK = threading.Lock()


@dataclass(frozen=True)
class OpenVinoOptions:
    """Options of OpenVINO.

    Attributes:
        device: as OpenVINO names it: CPU, GPU, NPU.
        precision: of what is not quantised. None keeps to the file's own: left to itself, OpenVINO runs an fp32
            model in bf16 wherever the CPU can.
        threads: on the CPU; None leaves it to OpenVINO.
        mode: `latency` runs a batch as it comes; `throughput` deals its images out to parallel streams.
        streams: in `throughput` mode; None leaves it to OpenVINO.
    """

    device: str = "CPU"
    precision: Literal["f32", "bf16", "f16"] | None = None
    threads: int | None = None
    mode: Literal["latency", "throughput"] = "latency"
    streams: int | None = None

    def __post_init__(self) -> None:
        require = Require()
        most = f"threads: expected 1 to {MOST_THREADS}, got {self.threads}"
        require(self.threads is None or 1 <= self.threads <= MOST_THREADS, most)
        require(self.streams is None or self.streams >= 1, f"streams: expected at least 1, got {self.streams}")
        require(self.streams is None or self.mode == "throughput", "streams: only with mode: throughput")
        require(bool(self.device), "device: expected CPU, GPU or NPU, got an empty text")
        require(
            not self.device.upper().startswith(("AUTO", "MULTI", "HETERO", "BATCH")),
            f"device: {self.device} lets OpenVINO choose what runs; name one device",
        )
        require.done()


class OpenVino(Runtime):
    """An ONNX file compiled by OpenVINO."""

    name: ClassVar[str] = "openvino"
    kinds: ClassVar[frozenset[str]] = frozenset({"onnx"})
    Options: ClassVar[type[OpenVinoOptions]] = OpenVinoOptions
    precisions: ClassVar[Mapping[str, PrecisionLimits]] = {"bf16": BF16, "fp16": FP16}
    packages: ClassVar[tuple[str, ...]] = ("openvino",)

    def __init__(
        self,
        openvino: Any,
        compiled: Any,
        options: OpenVinoOptions,
        fixed_batch: int | None,
        lacking: str | None = None,
    ) -> None:
        """See `open`.

        Args:
            openvino: the library.
            compiled: the open engine.
            options: it was opened with.
            fixed_batch: of its input; None where the batch is free.
            lacking: the file's own precision, where the device does not have it and computes in single precision.
        """
        super().__init__()
        self._lacking = lacking
        self._openvino, self._compiled, self._options = openvino, compiled, options
        self._output_names: list[str] = [port.get_any_name() for port in compiled.outputs]
        # A request runs for one thread at a time: each call takes one (or several) that nobody uses, and puts it back.
        self._free: list[Any] = []
        self._streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") if options.mode == "throughput" else 0
        if fixed_batch is not None:
            self.batch_range = (fixed_batch, fixed_batch)

    @classmethod
    def _load(cls, engine_path: Path, manifest: Manifest, options: Mapping[str, object], *, vouched: bool) -> Self:
        parsed = parse_options(OpenVinoOptions, options, cls.name)
        openvino = import_openvino()
        core = shared_core(openvino)
        device = parsed.device.upper()
        if device.partition(".")[0] not in {each.partition(".")[0] for each in core.available_devices}:
            raise UnavailableError(
                f"runtime openvino: no device {parsed.device}; this machine has {', '.join(core.available_devices)} "
                "(a GPU or NPU needs its driver installed)"
            )
        precision = _precision(parsed, manifest, core.get_property(device, "OPTIMIZATION_CAPABILITIES"), device)
        settings: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": parsed.mode.upper(),
        }
        if parsed.threads is not None:
            settings["INFERENCE_NUM_THREADS"] = parsed.threads
        if parsed.streams is not None:
            settings["NUM_STREAMS"] = parsed.streams
        if not vouched:
            _probe(engine_path, device, settings)
        try:
            model = core.read_model(str(engine_path))
            flatten_argmax(openvino, model)
            compiled = core.compile_model(model, device, settings)
            ports = [{_name(port): _found(port) for port in side} for side in (compiled.inputs, compiled.outputs)]
        except (RuntimeError, ValueError, TypeError) as error:  # ValueError: names in its message that are no UTF-8
            raise UserError(f"{engine_path}: OpenVINO cannot open it: {one_line(error)}") from error
        check_io(engine_path, manifest, *ports)
        applied = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if applied != precision:
            raise UserError(
                f"runtime openvino: asked {device} for {precision}, it took {applied}; set `precision: {applied}`"
            )
        shape = [each.get_length() if each.is_static else None for each in compiled.inputs[0].get_partial_shape()]
        lacks = parsed.precision is None and precision == "f32" and manifest.precision in _HINT
        runtime = cls(openvino, compiled, parsed, shape[0], manifest.precision if lacks else None)
        runtime.size_range = fixed_sides(shape, manifest.input.layout)
        return runtime

    @classmethod
    def options_for(cls, calls: int, threads: int) -> dict[str, object]:
        if calls == 1:
            return {"threads": threads}
        return {"threads": threads, "mode": "throughput", "streams": calls}

    def infer(self, batch: Array) -> dict[str, Array]:
        start = time.perf_counter_ns()
        try:
            values = self._infer_streams(batch) if self._streams else self._infer_whole(batch)
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"OpenVINO, on an input of shape {list(batch.shape)}: {one_line(error)}") from error
        self.last_timings_ms = {"engine": (time.perf_counter_ns() - start) / 1e6}
        return dict(zip(self._output_names, values, strict=True))

    @contextlib.contextmanager
    def _requests(self, count: int) -> Iterator[list[Any]]:
        """Requests for the calling thread alone."""
        taken: list[Any] = []
        try:
            while len(taken) < count:
                try:
                    taken.append(self._free.pop())
                except IndexError:
                    taken.append(self._compiled.create_infer_request())
            yield taken
        finally:
            self._free += taken

    def _infer_whole(self, batch: Array) -> list[Array]:
        with self._requests(1) as (request,):
            results = request.infer({0: np.ascontiguousarray(batch)}, share_inputs=True)
            return [results[port] for port in self._compiled.outputs]

    def _infer_streams(self, batch: Array) -> list[Array]:
        """One request per image (or per fixed batch), as many at once as there are streams.

        Requests are waited for in turn: with OpenVINO's own queue and a Python callback, closing can deadlock, since
        the queue is destroyed under Python's lock while the thread of the last callback still waits for it.
        """
        step = self.batch_range[0]
        starts = range(0, len(batch), step)
        parts: list[list[Array]] = []
        in_flight: deque[Any] = deque()

        def take_oldest() -> None:
            request = in_flight.popleft()
            request.wait()
            parts.append([request.get_output_tensor(i).data.copy() for i in range(len(self._output_names))])

        with self._requests(min(self._streams, len(starts))) as requests:
            try:
                for turn, index in enumerate(starts):
                    if len(in_flight) == len(requests):
                        take_oldest()
                    request = requests[turn % len(requests)]
                    request.start_async({0: np.ascontiguousarray(batch[index : index + step])})
                    in_flight.append(request)
                while in_flight:
                    take_oldest()
            finally:
                for request in in_flight:  # where one failed: none stays in flight
                    with contextlib.suppress(RuntimeError):
                        request.wait()
        return [np.concatenate(values) for values in zip(*parts, strict=True)]

    def executed_precisions(self) -> dict[str, dict[str, int]]:
        """What the compiled graph really computes in: layer type -> precision -> number of layers."""
        counts: Counter[tuple[str, str]] = Counter()
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            counts[info["layerType"].astype(str), info["runtimePrecision"].astype(str)] += 1
        executed: dict[str, dict[str, int]] = {}
        for (kind, precision), count in sorted(counts.items()):
            executed.setdefault(kind, {})[precision] = count
        return executed

    def told_precision(self) -> str | None:
        if self._lacking is not None:  # the file's own was asked for: its weights are rounded to that
            return None
        return _PRECISIONS.get(self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def computes_in(self, precision: str) -> bool:
        return precision != self._lacking

    def layer_precisions(self) -> tuple[dict[str, int], str]:
        return layers_by_precision(self.executed_precisions()), "executed graph of OpenVINO"

    def what_runs(self) -> dict[str, object]:
        get = self._compiled.get_property
        return {
            "runtime": self.name,
            "version": self._openvino.__version__,
            "provider": ",".join(get("EXECUTION_DEVICES")),
            "threads": self._options.threads,
            "mode": self._options.mode,
            "streams": int(get("NUM_STREAMS")),
            "precision": get("INFERENCE_PRECISION_HINT").get_type_name(),
        }

    def close(self) -> None:
        self._free = []
        self._compiled = None


def layers_by_precision(executed: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Layers with weights by precision, from OpenVINO's layer type -> precision -> number."""
    counts: Counter[str] = Counter()
    for kind in _LAYERS_WITH_WEIGHTS:
        for precision, count in executed.get(kind, {}).items():
            counts[_PRECISIONS.get(precision, precision)] += count
    return dict(counts)


def import_openvino() -> Any:
    """OpenVINO without its telemetry.

    Importing it as it comes starts a client that reports usage to its makers over the network, writes an identifier
    into the home folder and forks this process. Where its package cannot be imported it does none of that.

    Raises:
        UserError: not installed.
    """
    loaded = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the import system's own way to say "absent"
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(f"runtime openvino: not installed ({one_line(error)}); pip install openvino") from error
    finally:
        del sys.modules["openvino_telemetry"]
        if loaded is not None:
            sys.modules["openvino_telemetry"] = loaded
    return openvino


def shared_core(openvino: Any) -> Any:
    """OpenVINO's core, one for the whole process and never closed.

    Its CPU plugin gives the thread that loads it a stack for signal handlers, and takes it away when it is unloaded. Of
    two cores that are closed in the order of their making, the second puts back the stack of the first, which is gone:
    the next signal, be it Ctrl-C, then ends the process with a segmentation fault.
    """
    with _CORES_LOCK:
        if not _CORES:
            _CORES.append(openvino.Core())
        return _CORES[0]


def _probe(engine_path: Path, device: str, settings: Mapping[str, object]) -> None:
    """Let a child process open a file that no hash vouches for first: damaged graphs can crash OpenVINO's reader.

    Raises:
        UserError: the child crashed, or did not come to an end.
    """
    command = [sys.executable, "-P", "-c", _PROBE, str(engine_path), device, json.dumps(settings)]
    try:
        status = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{engine_path}: OpenVINO did not open it within {_PROBE_SECONDS} s") from error
    if status not in (0, 1):  # 1: it failed in words, which this process will get as well
        raise UserError(f"{engine_path}: OpenVINO crashed on it (status {status}): damaged, or not meant to be opened")


def _precision(options: OpenVinoOptions, manifest: Manifest, capabilities: list[str], device: str) -> str:
    """The precision to ask for; refuses one that the device does not have."""
    if options.precision is None:
        own = _HINT.get(manifest.precision, "f32")
        return own if _CAPABILITY[own] in capabilities else "f32"
    if _CAPABILITY[options.precision] not in capabilities:
        available = [name for name, capability in _CAPABILITY.items() if capability in capabilities]
        raise UnavailableError(
            f"runtime openvino: {device} of this machine does not compute in {options.precision} (OpenVINO would run "
            f"another precision in silence); it has {', '.join(available)}"
        )
    return options.precision


def _name(port: Any) -> str:
    return str(port.get_any_name())


def _found(port: Any) -> tuple[str, int | None]:
    """(dtype as numpy names it, rank) of an input or output."""
    rank = port.get_partial_shape().rank
    return port.get_element_type().to_dtype().name, rank.get_length() if rank.is_static else None
