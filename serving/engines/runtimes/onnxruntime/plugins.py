"""Execution providers in packages of their own, which install beside plain ONNX Runtime (1.24 and newer)."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.contract.errors import UnavailableError
from serving.engines.runtimes.onnxruntime.contexts import ContextCache
from serving.engines.runtimes.onnxruntime.options import OnnxRuntimeOptions, provider_options, session_settings, silent
from serving.engines.runtimes.runtime import one_line

_registered: set[str] = set()  # libraries that this process has loaded: a second time is an error
_lock = threading.Lock()


@dataclass(frozen=True)
class Plugin:
    """An execution provider of a package, on a device that it offers.

    Attributes:
        ort: ONNX Runtime.
        errors: what it raises.
        provider: the execution provider's name.
        device: an `OrtEpDevice`.
        options: handed to the provider.
    """

    ort: Any
    errors: tuple[type[Exception], ...]
    provider: str
    device: Any
    options: Mapping[str, str]

    def open_session(
        self, engine_path: Path, sha256: str | None, options: OnnxRuntimeOptions, profiles: str | None
    ) -> Any:
        """A session on the device, of what was compiled before where that is there.

        Args:
            engine_path: the ONNX file.
            sha256: of it; None keeps nothing.
            options: of the session.
            profiles: prefix of the files that profiles are written to; None for none.
        """
        ort = self.ort

        def settings(profiles: str | None = None) -> Any:
            made = session_settings(ort, options, profiles)
            made.add_provider_for_devices([self.device], dict(self.options))
            return made

        if sha256 is None or not options.context_cache:
            return ort.InferenceSession(str(engine_path), settings(profiles), enable_fallback=0)
        cache = ContextCache(engine_path, sha256, self._compiled_for(options))
        content = cache.read()
        if content is None:
            # A provider that compiles nothing ahead of time says so by an error; so does one that fails, which the
            # session on the engine itself then reports.
            with contextlib.suppress(*self.errors):
                content = ort.ModelCompiler(
                    settings(),
                    str(engine_path),
                    embed_compiled_data_into_model=True,
                    flags=ort.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED,
                ).compile_to_bytes()
                cache.write(content)
        if content is not None:
            # Of another driver, most likely: the provider itself refuses it.
            with contextlib.suppress(*self.errors):
                return ort.InferenceSession(content, settings(profiles), enable_fallback=0)
            cache.discard()
        return ort.InferenceSession(str(engine_path), settings(profiles), enable_fallback=0)

    def _compiled_for(self, options: OnnxRuntimeOptions) -> dict[str, object]:
        """All that what was compiled depends on beside the engine."""
        hardware = self.device.device
        return {
            "onnxruntime": self.ort.__version__,
            "provider": self.provider,
            "provider_metadata": dict(self.device.ep_metadata),
            "provider_options": dict(self.options),
            "device": [str(hardware.type), hardware.vendor, hardware.device_id, dict(hardware.metadata)],
            "optimization": options.optimization,
        }


def find_plugin(ort: Any, errors: tuple[type[Exception], ...], options: OnnxRuntimeOptions) -> Plugin:
    """Load the plugin that the options name, and choose one of its devices.

    Raises:
        UnavailableError: ONNX Runtime is too old, the package is not installed or cannot be loaded, or it offers no
            such device here; the message names what is offered.
    """
    package = f"onnxruntime_ep_{options.plugin}"
    distribution = package.replace("_", "-")
    if not hasattr(ort, "get_ep_devices"):
        raise UnavailableError(
            f"runtime onnxruntime: {ort.__version__} takes no plugins; pip install 'onnxruntime>=1.24'"
        )
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise UnavailableError(
            f"runtime onnxruntime: {distribution} is not installed ({one_line(error)}); pip install {distribution}"
        ) from error
    provider = str(module.get_ep_name())
    unloadable: tuple[type[Exception], ...] = (*errors, OSError)
    with _lock:
        if provider not in _registered:
            try:
                with silent(ort):
                    ort.register_execution_provider_library(provider, module.get_library_path())
            except unloadable as error:
                raise UnavailableError(
                    f"runtime onnxruntime: {distribution} cannot be loaded: {one_line(error)}"
                ) from error
            _registered.add(provider)
    offered = list(ort.get_ep_devices())
    fitting = [
        each
        for each in offered
        if each.ep_name == provider and options.plugin_device in (None, each.device.type.name.lower())
    ]
    if options.device_id >= len(fitting):
        asked = f"{options.plugin_device} device" if options.plugin_device else "device"
        which = f" with device_id {options.device_id}" if fitting else ""
        raise UnavailableError(
            f"runtime onnxruntime: {distribution} offers no {asked}{which} on this machine; offered: {_shown(offered)}"
        )
    return Plugin(ort, errors, provider, fitting[options.device_id], provider_options(options))


def _shown(devices: Sequence[Any]) -> str:
    named = [f"{each.ep_name} on {each.device.type.name} ({each.device.vendor or 'unknown'})" for each in devices]
    return ", ".join(named) or "nothing"
