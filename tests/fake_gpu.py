"""A stand-in for a GPU: streams that run nothing before they are waited for, memory that is counted, ONNX for plans.

It cannot say whether a real GPU computes the right thing (a test that runs where there is one does); it can say whether
the runtime waits before it reads, keeps addresses and shapes together, replays graphs with fresh input and frees all.
"""

# ruff: noqa: N801, N815  (CUDA's own names)

import ctypes
import enum
import json
import threading
import types

import numpy as np
import onnx
import onnxruntime
import pytest


class FakeCuda(types.ModuleType):
    """`cuda.bindings.runtime` over host memory."""

    class cudaError_t(enum.IntEnum):
        cudaSuccess = 0
        cudaErrorInvalidValue = 1
        cudaErrorNoDevice = 100

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2
        cudaMemcpyDeviceToDevice = 3

    class cudaStreamCaptureMode(enum.IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    cudaStreamNonBlocking = 1

    def __init__(self, capability=(8, 9), devices=1, name=b"Fake GPU"):
        super().__init__("cuda.bindings.runtime")
        self.devices, self.capability, self.name = devices, capability, name
        self.chosen, self.owners = {}, {}  # thread -> device, stream -> device
        self.memory, self.handles = {}, set()
        self.pending, self.recording = [], None
        self.launches = self.clock = self.streams = 0

    def submit(self, work):
        (self.pending if self.recording is None else self.recording).append(work)

    def handle(self, *_):
        value = object()
        self.handles.add(value)
        return self.cudaError_t.cudaSuccess, value

    def forget(self, handle):
        self.handles.remove(handle)
        return (self.cudaError_t.cudaSuccess,)

    def cudaGetDeviceCount(self):
        return (self.cudaError_t(0), self.devices) if self.devices else (self.cudaError_t.cudaErrorNoDevice, None)

    def cudaGetErrorString(self, status):
        return self.cudaError_t(0), status.name.encode()

    def cudaSetDevice(self, device):
        self.chosen[threading.get_ident()] = device
        return (self.cudaError_t(0),)

    def cudaGetDeviceProperties(self, device):
        major, minor = self.capability
        return self.cudaError_t(0), types.SimpleNamespace(name=self.name, major=major, minor=minor)

    def allocate(self, size, *_):
        block = (ctypes.c_uint8 * size)(*[0xAA] * min(size, 64))
        self.memory[ctypes.addressof(block)] = block
        return self.cudaError_t(0), ctypes.addressof(block)

    def free(self, address):
        del self.memory[address]
        return (self.cudaError_t(0),)

    cudaMalloc = cudaHostAlloc = allocate
    cudaFree = cudaFreeHost = free
    cudaEventCreate = handle
    cudaEventDestroy = cudaGraphDestroy = cudaGraphExecDestroy = forget

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        self.streams += 1
        self.handles.add(self.streams)
        self.owners[self.streams] = self.chosen[threading.get_ident()]
        return self.cudaError_t(0), self.streams

    def cudaStreamDestroy(self, stream):
        return self.forget(stream)

    def view(self, address, size):
        block = self.memory[address]
        assert size <= len(block)
        return np.frombuffer(block, np.uint8)[:size]

    def require_device(self, stream):
        assert self.owners[stream] == self.chosen[threading.get_ident()], "a stream of another GPU than the chosen one"

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        self.require_device(stream)
        self.view(target, size), self.view(source, size)
        self.submit(lambda: np.copyto(self.view(target, size), self.view(source, size)))
        return (self.cudaError_t(0),)

    def cudaStreamSynchronize(self, stream):
        assert stream in self.handles
        work, self.pending = self.pending, []
        for each in work:
            each()
        return (self.cudaError_t(0),)

    def cudaEventRecord(self, event, stream):
        assert event in self.handles
        self.submit(lambda: None)
        return (self.cudaError_t(0),)

    def cudaEventElapsedTime(self, start, end):
        assert not self.pending, "events read before the stream was waited for"
        return self.cudaError_t(0), 0.25

    def cudaStreamBeginCapture(self, stream, mode):
        self.recording = []
        return (self.cudaError_t(0),)

    def cudaStreamEndCapture(self, stream):
        status, graph = self.handle()
        self.recorded, self.recording = self.recording, None
        return status, graph

    def cudaGetLastError(self):
        return (self.cudaError_t(0),)

    def cudaGraphInstantiate(self, graph, flags):
        status, executable = self.handle()
        self.graphs = {executable: self.recorded}
        return status, executable

    def cudaGraphLaunch(self, graph, stream):
        assert graph in self.handles
        self.launches += 1
        self.pending += self.graphs[graph]
        return (self.cudaError_t(0),)


class FakeTensorRT(types.ModuleType):
    """`tensorrt_rtx` or `tensorrt`; plans are ONNX files behind a magic word."""

    MAGIC = b"PLAN"

    class TensorIOMode(enum.Enum):
        INPUT = 1
        OUTPUT = 2

    class DynamicShapesKernelSpecializationStrategy(enum.Enum):
        LAZY = 0
        EAGER = 1
        NONE = 2

    class BuilderFlag(enum.Enum):
        TF32 = 0

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        EXPLICIT_BATCH = 0
        STRONGLY_TYPED = 1

    class ProfilingVerbosity(enum.Enum):
        DETAILED = 2

    class LayerInformationFormat(enum.Enum):
        JSON = 1

    class ILogger:
        class Severity(enum.Enum):
            INTERNAL_ERROR = 0
            ERROR = 1
            WARNING = 2

    def __init__(self, cuda, package="tensorrt_rtx", version="1.7.1.116"):
        super().__init__(package)
        self.__version__ = version
        self.cuda, self.deserialised, self.captures = cuda, 0, True
        self.failures = iter(())  # whether the next runs fail, after they have enqueued something
        self.nptype = lambda dtype: np.dtype(dtype)
        self.compiled = 0  # kernels that contexts of TensorRT-RTX have compiled, one for each shape
        self.builders = []
        library = self

        class Runtime:
            def __init__(self, log):
                self.log = log

            def deserialize_cuda_engine(self, content):
                library.deserialised += 1
                if not content.startswith(library.MAGIC):
                    self.log.log(library.ILogger.Severity.WARNING, "unimportant")
                    self.log.log(library.ILogger.Severity.ERROR, "magic word\nnot found")
                    return None
                return FakeEngine(library, content[len(library.MAGIC) :])

        self.Runtime = Runtime
        self.Builder = lambda log: FakeBuilder(self)
        self.OnnxParser = FakeParser


class FakeEngine:
    """An ONNX Runtime session that speaks as an ICudaEngine does."""

    def __init__(self, library, content):
        self.library = library
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.inputs = {each.name: each for each in self.session.get_inputs()}
        self.outputs = {each.name: each for each in self.session.get_outputs()}
        self.names = [*self.outputs, *self.inputs]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_mode(self, name):
        return self.library.TensorIOMode.INPUT if name in self.inputs else self.library.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return (self.inputs | self.outputs)[name].type.removeprefix("tensor(").removesuffix(")")

    def get_tensor_shape(self, name):
        return (self.inputs | self.outputs)[name].shape

    def create_runtime_config(self):
        return FakeRuntimeConfig(self.library)

    def create_engine_inspector(self):
        return types.SimpleNamespace(get_engine_information=lambda _: "{}")

    def create_execution_context(self, config=None):
        self.config = config
        return FakeContext(self)


class FakeRuntimeConfig:
    """The runtime configuration of TensorRT-RTX, whose cache holds the shapes that were compiled for."""

    def __init__(self, library):
        self.library, self.cache = library, None
        self.dynamic_shapes_kernel_specialization_strategy = None

    def create_runtime_cache(self):
        return FakeRuntimeCache(self.library)

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True

    def compile(self, shape):
        shapes = set() if self.cache is None else self.cache.shapes
        if shape not in shapes:
            self.library.compiled += 1
            shapes.add(shape)


class FakeRuntimeCache:
    """An IRuntimeCache: refuses what is damaged, or of another version or GPU."""

    def __init__(self, library):
        self.origin = [library.__version__, library.cuda.name.decode()]
        self.shapes = set()

    def deserialize(self, blob):
        try:
            origin, shapes = json.loads(blob)
        except ValueError:
            return False
        if origin != self.origin:
            return False
        self.shapes |= {tuple(shape) for shape in shapes}
        return True

    def serialize(self):
        return json.dumps([self.origin, sorted(self.shapes)]).encode()


class FakeBuilder:
    """An IBuilder that times a kernel for every kind of node, with a result that is never the same twice."""

    def __init__(self, library):
        self.library = library
        library.builders.append(self)

    def create_network(self, flags):
        self.network = types.SimpleNamespace(flags=flags, num_layers=0)
        return self.network

    def create_builder_config(self):
        self.config = FakeBuilderConfig([self.library.__version__, self.library.cuda.name.decode()])
        return self.config

    def create_optimization_profile(self):
        return types.SimpleNamespace(set_shape=lambda *_: None)

    def build_serialized_network(self, network, config):
        self.device = self.library.cuda.chosen[threading.get_ident()]
        model = onnx.load_from_string(network.content)
        times = config.cache.times
        for node in model.graph.node:
            times.setdefault(node.op_type, float(np.random.default_rng().random()))
        self.kernels = {node.op_type: times[node.op_type] for node in model.graph.node}
        return FakeTensorRT.MAGIC + network.content


class FakeBuilderConfig:
    """An IBuilderConfig."""

    def __init__(self, origin):
        self.origin, self.flags, self.cache = origin, {FakeTensorRT.BuilderFlag.TF32}, None

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def get_flag(self, flag):
        return flag in self.flags

    def add_optimization_profile(self, profile):
        return 0

    def create_timing_cache(self, blob):
        return FakeTimingCache(self.origin, blob)

    def set_timing_cache(self, cache, ignore_mismatch):
        fits = cache.origin == self.origin
        if fits:
            self.cache = cache
        return fits

    def get_timing_cache(self):
        return self.cache


class FakeTimingCache:
    """An ITimingCache; the order of its entries in a file is any."""

    def __init__(self, origin, blob):
        self.origin, self.times = json.loads(blob) if blob else (origin, {})

    def serialize(self):
        names = list(self.times)
        np.random.default_rng().shuffle(names)
        return json.dumps([self.origin, {name: self.times[name] for name in names}]).encode()


class FakeParser:
    """An OnnxParser that keeps what it is given."""

    def __init__(self, network, log):
        self.network = network

    def parse(self, content):
        self.network.content = content
        return True


class FakeContext:
    """Runs at the addresses it was given, when the stream gets there."""

    def __init__(self, engine):
        self.engine, self.addresses = engine, {}

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)
        if self.engine.config is not None:
            self.engine.config.compile(self.shape)
        self.addresses = {}
        return True

    def infer_shapes(self):
        return []

    def get_tensor_shape(self, name):
        return self.shape[:3]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream):
        return self.engine.library.captures

    def execute_async_v3(self, stream):
        cuda, shape, addresses = self.engine.library.cuda, self.shape, dict(self.addresses)
        (name,) = self.engine.inputs
        sizes = {each: int(np.prod(shape if each == name else shape[:3])) for each in (name, *self.engine.outputs)}

        def run():
            image = cuda.view(addresses[name], sizes[name]).reshape(shape)
            results = self.engine.session.run(list(self.engine.outputs), {name: image})
            for output, values in zip(self.engine.outputs, results, strict=True):
                np.copyto(cuda.view(addresses[output], sizes[output]), values.reshape(-1))

        cuda.require_device(stream)
        cuda.submit(run)
        return not next(self.engine.library.failures, False)


@pytest.fixture
def fake_gpu(monkeypatch):
    """Put the stand-ins in the place of cuda-python and tensorrt_rtx, or another `package`; returns both."""

    def install(package="tensorrt_rtx", version="1.7.1.116", **options):
        cuda = FakeCuda(**options)
        library = FakeTensorRT(cuda, package, version)
        for name in ("cuda", "cuda.bindings"):
            monkeypatch.setitem(__import__("sys").modules, name, types.ModuleType(name))
        monkeypatch.setitem(__import__("sys").modules, "cuda.bindings.runtime", cuda)
        monkeypatch.setitem(__import__("sys").modules, package, library)
        return cuda, library

    return install
