"""Sessions whose buffers stay on the device, and one for each input shape that comes again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from serving.contract.errors import UserError
from serving.engines.runtimes.runtime import Array


class BoundSession:
    """A session with its input on the device between calls; for one thread at a time.

    Args:
        ort: the library.
        session: of the engine.
        device: `cpu` or `cuda`.
        device_id: counted from 0.
    """

    def __init__(self, ort: Any, session: Any, device: str, device_id: int) -> None:
        self._ort, self._session, self._device, self._device_id = ort, session, device, device_id
        self._binding: Any = session.io_binding()
        self._input_name: str = session.get_inputs()[0].name
        self._output_names: list[str] = [output.name for output in session.get_outputs()]
        self._input: Any = None

    def run(self, batch: Array) -> tuple[list[Array], dict[str, float]]:
        """Upload, run, download; returns the outputs in the session's order, and the milliseconds of each part."""
        begin = time.perf_counter_ns()
        held = self._input
        if held is not None and tuple(held.shape()) == batch.shape and held.data_type() == _tensor_type(batch):
            held.update_inplace(np.ascontiguousarray(batch))
        else:
            # On the CPU it would be the caller's own memory, which the next batch is written into.
            own = batch.copy() if self._device == "cpu" else batch
            held = self._input = self._ort.OrtValue.ortvalue_from_numpy(own, self._device, self._device_id)
            self._binding.clear_binding_inputs()
            self._binding.bind_ortvalue_input(self._input_name, held)
        # Outputs anew every time: their shapes follow the input's.
        self._binding.clear_binding_outputs()
        for name in self._output_names:
            self._binding.bind_output(name, self._device, self._device_id)
        self._binding.synchronize_inputs()
        uploaded = time.perf_counter_ns()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        ran = time.perf_counter_ns()
        values = [np.array(value, copy=self._device == "cpu") for value in self._binding.copy_outputs_to_cpu()]
        return values, {
            "upload": (uploaded - begin) / 1e6,
            "enqueue": (ran - uploaded) / 1e6,
            "download": (time.perf_counter_ns() - ran) / 1e6,
        }


class SessionsByShape:
    """Sessions of one engine, so that shapes which take turns do not cost each other their plans.

    On CUDA a session keeps cuDNN's plan of each convolution for the last input shape alone, and makes all of them anew
    when another comes. Here a shape that comes again after another gets a session of its own, as long as there are
    fewer than `most`; whatever else comes runs in the first. Padding all images to a few sizes instead would change
    their masks: what lies beyond an image's edge is seen by the network.

    Args:
        first: the session that any shape may run in.
        open_another: opens one more.
        most: sessions at the same time.
    """

    def __init__(self, first: BoundSession, open_another: Callable[[], BoundSession], most: int) -> None:
        self._first, self._open_another, self._most = first, open_another, most
        self._own: dict[tuple[int, ...], BoundSession] = {}
        self._seen: set[tuple[int, ...]] = set()
        self._last: tuple[int, ...] | None = None  # shape that the first session has run last
        self._lock = threading.Lock()  # a session runs for several threads at once, a binding for one

    def __len__(self) -> int:
        """How many are open."""
        return 1 + len(self._own)

    def run(self, batch: Array) -> tuple[list[Array], dict[str, float]]:
        """See `BoundSession.run`; one thread at a time."""
        with self._lock:
            return self._of(batch.shape).run(batch)

    def _of(self, shape: tuple[int, ...]) -> BoundSession:
        if shape in self._own:
            return self._own[shape]
        if shape in self._seen and shape != self._last and len(self) < self._most:
            try:
                self._own[shape] = self._open_another()
            except UserError:  # no memory for one more, most likely: the first takes every shape
                self._most = 0
            else:
                return self._own[shape]
        self._seen.add(shape)
        self._last = shape
        return self._first


def _tensor_type(batch: Array) -> str:
    names = {np.dtype(np.float32): "float", np.dtype(np.float16): "float16", np.dtype(np.uint8): "uint8"}
    return f"tensor({names.get(batch.dtype, batch.dtype.name)})"
