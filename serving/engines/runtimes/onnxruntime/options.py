"""Options of ONNX Runtime, and the settings of a session that follow from them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from serving.contract.errors import UnavailableError
from serving.contract.schema import Require
from serving.engines.runtimes.runtime import MOST_THREADS

_WARNINGS, _SILENT = 2, 4  # severities of ONNX Runtime's logger; the first is its default
_OPTIMIZATION = {
    "none": "DISABLE_ALL",
    "basic": "ENABLE_BASIC",
    "extended": "ENABLE_EXTENDED",
    "layout": "ENABLE_LAYOUT",
    "all": "ENABLE_ALL",
}
# Options that are on or off -> as the CUDA provider calls them.
_CUDA_SWITCHES = {"tf32": "use_tf32", "prefer_nhwc": "prefer_nhwc", "fuse_conv_bias": "fuse_conv_bias"}


@dataclass(frozen=True)
class OnnxRuntimeOptions:
    """Options of ONNX Runtime.

    Attributes:
        provider: execution provider; what runs instead is an error, never a fallback.
        plugin: of `provider: plugin`, the provider in a package of its own (`onnxruntime_ep_` and this name), which
            installs beside plain ONNX Runtime.
        plugin_device: kind of device that the plugin is to run on; None for the first that it offers.
        context_cache: of a plugin, keep what it compiled beside the engine, and open that the next time.
        threads: within one operator; None leaves it to ONNX Runtime (one per core).
        spinning: whether threads spin while they wait: lower latency on an idle machine, far worse on a busy one.
        optimization: graph optimisation level; `layout` is `extended` with convolutions on blocks of channels.
        device_id: GPU, or device of the plugin, counted from 0.
        tf32: on a GPU, let layers in single precision round the factors of their products to TensorFloat-32; what is
            computed is then called `tf32`. ONNX Runtime's own default, and never ours.
        prefer_nhwc: on a GPU, run convolutions with the channels last.
        fuse_conv_bias: on a GPU, let cuDNN add a convolution's bias.
        shape_buckets: sessions on a GPU, one for each input shape that comes again (`SessionsByShape`); each takes the
            engine's memory once more. None means 4, and 1 on the CPU.
        io_binding: keep input and output buffers on the device between calls; None means on a GPU only.
        provider_options: handed to the provider as they are (names as in ONNX Runtime's documentation).
    """

    provider: Literal["cpu", "cuda", "plugin"] = "cpu"
    plugin: Literal["openvino", "nv_tensorrt_rtx"] | None = None
    plugin_device: Literal["cpu", "gpu", "npu"] | None = None
    context_cache: bool = True
    threads: int | None = None
    spinning: bool = True
    optimization: Literal["none", "basic", "extended", "layout", "all"] = "all"
    device_id: int = 0
    tf32: bool = False
    prefer_nhwc: bool = False
    fuse_conv_bias: bool = False
    shape_buckets: int | None = None
    io_binding: bool | None = None
    provider_options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require = Require()
        most = f"threads: expected 1 to {MOST_THREADS}, got {self.threads}"
        require(self.threads is None or 1 <= self.threads <= MOST_THREADS, most)
        require(self.device_id >= 0, f"device_id: expected at least 0, got {self.device_id}")
        for name in _CUDA_SWITCHES:
            asked = getattr(self, name)
            require(not asked or self.provider == "cuda", f"{name}: only with provider: cuda, got {self.provider}")
            own = _CUDA_SWITCHES[name]
            require(own not in self.provider_options, f"provider_options.{own}: write `{name}: true`, or nothing")
        is_plugin = self.provider == "plugin"
        require(is_plugin == (self.plugin is not None), "plugin: named with provider: plugin, and only there")
        require(is_plugin or self.plugin_device is None, "plugin_device: only with provider: plugin")
        require(not (is_plugin and self.io_binding), "io_binding: not with provider: plugin")
        buckets = self.shape_buckets
        require(buckets is None or buckets >= 1, f"shape_buckets: expected at least 1, got {buckets}")
        require(buckets in (None, 1) or self.is_bound, "shape_buckets: only with io_binding")
        require.done()

    @property
    def is_bound(self) -> bool:
        """Whether buffers stay on the device between calls."""
        return self.io_binding if self.io_binding is not None else self.provider == "cuda"


def session_settings(ort: Any, options: OnnxRuntimeOptions, profiles: str | None) -> Any:
    """The session's own options; with a profile of each run under the prefix `profiles`.

    Raises:
        UnavailableError: this ONNX Runtime does not have the optimisation level.
    """
    level = getattr(ort.GraphOptimizationLevel, f"ORT_{_OPTIMIZATION[options.optimization]}", None)
    if level is None:
        raise UnavailableError(
            f"runtime onnxruntime: {ort.__version__} has no optimization: {options.optimization}; "
            "pip install 'onnxruntime>=1.23'"
        )
    settings = ort.SessionOptions()
    settings.log_severity_level = _SILENT  # what fails arrives as an exception; warnings would mix into our own output
    settings.graph_optimization_level = level
    settings.intra_op_num_threads = options.threads or 0
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if profiles is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profiles
    return settings


def provider_options(options: OnnxRuntimeOptions) -> dict[str, str]:
    """What the execution provider is told."""
    given = {key: str(value) for key, value in options.provider_options.items()}
    if options.provider == "cuda":
        given.setdefault("device_id", str(options.device_id))
        given |= {own: str(int(getattr(options, name))) for name, own in _CUDA_SWITCHES.items()}
    return given


@contextlib.contextmanager
def silent(ort: Any) -> Iterator[None]:
    """A provider that does not start says so on stderr as well."""
    ort.set_default_logger_severity(_SILENT)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNINGS)
