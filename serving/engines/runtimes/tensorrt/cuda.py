"""CUDA memory, streams, events and graphs without torch, through NVIDIA's own bindings (`cuda-python`)."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UnavailableError, UserError
from serving.engines.runtimes.runtime import one_line


class Cuda:
    """One GPU, one stream, and everything allocated through it; `close` frees it all.

    Args:
        device_id: counted from 0.

    Raises:
        UserError: the bindings are not installed, or there is no such GPU.
    """

    def __init__(self, device_id: int) -> None:
        try:
            runtime = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise UnavailableError(
                f"CUDA: cuda-python is not installed ({one_line(error)}): pip install 'cuda-python>=12.6,<14'"
            ) from error
        self._runtime: Any = runtime
        self.stream: int = 0
        self._events: list[Any] = []
        self._buffers: list[Buffer] = []
        self._graph: Any = None
        status, count = runtime.cudaGetDeviceCount()
        if status != runtime.cudaError_t.cudaSuccess or not count:
            raise UnavailableError(f"no CUDA device: {self._message(status)}; an NVIDIA GPU and its driver are needed")
        if device_id >= count:
            raise UserError(f"device_id {device_id}: this machine has {count} CUDA device(s), counted from 0")
        self._device_id = device_id
        self.use_here()
        properties = self.call("cudaGetDeviceProperties", device_id)
        name = properties.name
        self.gpu: str = name.decode(errors="replace").rstrip("\0") if isinstance(name, bytes) else str(name)
        self.compute_capability = f"{properties.major}.{properties.minor}"

    def use_here(self) -> None:
        """Choose this GPU for the calling thread: CUDA keeps one choice for each, which engines elsewhere change."""
        self.call("cudaSetDevice", self._device_id)

    def open_stream(self) -> None:
        """Make the stream (not the default one, which would synchronise with everything else)."""
        self.stream = int(self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime.

        Returns:
            What it gives beside its status: nothing, one value, or a tuple.

        Raises:
            UserError: with CUDA's own message.
        """
        status, *values = getattr(self._runtime, name)(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            raise UserError(f"CUDA on {getattr(self, 'gpu', 'the GPU')}: {name}: {self._message(status)}")
        return values[0] if len(values) == 1 else (tuple(values) or None)

    def buffer(self, size: int) -> Buffer:
        """Memory of `size` bytes on the GPU with pinned memory beside it on the host."""
        buffer = Buffer(self, size)
        self._buffers.append(buffer)
        return buffer

    def release(self, buffer: Buffer) -> None:
        """Free a buffer before `close` does."""
        self._buffers.remove(buffer)
        buffer.free()

    def event(self) -> Any:
        """A new event."""
        event = self.call("cudaEventCreate")
        self._events.append(event)
        return event

    def record(self, event: Any) -> None:
        """Let an event mark where the stream is now."""
        self.call("cudaEventRecord", event, self.stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds on the GPU between two recorded events."""
        return float(self.call("cudaEventElapsedTime", start, end))

    def synchronise(self) -> None:
        """Wait until the stream has done everything."""
        self.call("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        """Start recording what the stream is given, in place of running it."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", self.stream, mode)

    def end_capture(self) -> None:
        """Stop recording; `launch` then runs what was recorded."""
        self.drop_graph()
        graph = self.call("cudaStreamEndCapture", self.stream)
        try:
            self._graph = self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)

    def discard_capture(self) -> None:
        """Stop recording and forget what was recorded, where it cannot be used; nothing happens without a recording."""
        self.drop_graph()
        status, graph = self._runtime.cudaStreamEndCapture(self.stream)
        if status == self._runtime.cudaError_t.cudaSuccess:  # else CUDA has invalidated the recording, and gives none
            self.call("cudaGraphDestroy", graph)
        self._runtime.cudaGetLastError()  # or a later call would report what went wrong here

    @property
    def has_graph(self) -> bool:
        """Whether a recorded graph is ready."""
        return self._graph is not None

    def launch(self) -> None:
        """Run the recorded graph on the stream."""
        self.call("cudaGraphLaunch", self._graph, self.stream)

    def drop_graph(self) -> None:
        """Forget the recorded graph, where there is one."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self.call("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """Free everything; closing twice does nothing."""
        if self.stream:
            self.synchronise()
        self.drop_graph()
        while self._buffers:
            self._buffers.pop().free()
        while self._events:
            self.call("cudaEventDestroy", self._events.pop())
        if self.stream:
            stream, self.stream = self.stream, 0
            self.call("cudaStreamDestroy", stream)

    def _message(self, status: Any) -> str:
        _, text = self._runtime.cudaGetErrorString(status)
        return text.decode() if isinstance(text, bytes) else str(text)


class Buffer:
    """Memory on the GPU and as much pinned memory on the host: copies between the two are asynchronous and fast.

    Attributes:
        size: bytes.
        device: address on the GPU.
        host: `[size]` uint8 view of the pinned memory; valid until `free`.
    """

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda, self.size = cuda, size
        # CUDA gives a null address for 0 bytes, which engines do not take.
        self.device: int = int(cuda.call("cudaMalloc", max(size, 1)))
        self._pinned = 0
        try:
            self._pinned = int(cuda.call("cudaHostAlloc", max(size, 1), 0))
        except UserError:
            self.free()
            raise
        memory: Any = (ctypes.c_uint8 * size).from_address(self._pinned)
        self.host: NDArray[np.uint8] = np.frombuffer(memory, dtype=np.uint8)

    def upload(self, size: int) -> None:
        """Copy the first `size` bytes of `host` to the GPU, in the stream's order."""
        kind = self._cuda._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._cuda.call("cudaMemcpyAsync", self.device, self._pinned, size, kind, self._cuda.stream)

    def download(self, size: int) -> None:
        """Copy `size` bytes from the GPU to `host`, in the stream's order."""
        kind = self._cuda._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda.call("cudaMemcpyAsync", self._pinned, self.device, size, kind, self._cuda.stream)

    def free(self) -> None:
        """Free both; freeing twice does nothing."""
        device, self.device = self.device, 0
        pinned, self._pinned = self._pinned, 0
        if device:
            self._cuda.call("cudaFree", device)
        if pinned:
            self._cuda.call("cudaFreeHost", pinned)
