"""Speed of the exported graph beside PyTorch: `python -m benchmarks.export [--json]`.

Exports the network and runs one image through ONNX Runtime and through PyTorch eager, both on the same number of
threads, from bytes to mask. All take turns in every round, and a round's ratio is of neighbours in time; numbers are
medians over rounds. Then ONNX Runtime's own profile says which operators the time goes to. Exit status 1 when the
exported graph is not fast enough.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from export.artifacts.onnx_fp32.export import export
from export.artifacts.onnx_fp32.options import OnnxFp32Options
from export.artifacts.shared.exporter import ExportContext
from export.checks.examination.images import scene
from export.graph.deploy import DeployGraph
from export.graph.structure import costs
from pipeline.models.heads import HEADS
from pipeline.models.network import BACKBONES
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.network.weights import SegmentorInfo
from serving.contract.errors import UserError, run_command

TARGET_SPEEDUP = 1.8  # of ONNX Runtime over PyTorch eager, for the default network at 384x480 on one thread
ENGINE = "ONNX Runtime"
EAGER = "PyTorch eager"


@dataclass(frozen=True)
class Report:
    """Everything measured.

    Attributes:
        network: backbone and head.
        shape: of the image, `[1,H,W,3]`.
        threads: of both runtimes.
        export_seconds: tracing, cleaning and writing.
        nodes: operators in the graph.
        file_bytes: of the engine.
        multiply_adds: of one inference.
        latency_ms: task -> median latency.
        speedup: task -> median over rounds of its latency by ONNX Runtime's.
        operator_ms: operator -> time per inference, by ONNX Runtime's profile, the slowest first.
        differing_pixels: between the masks of both.
    """

    network: str
    shape: tuple[int, int, int, int]
    threads: int
    export_seconds: float
    nodes: int
    file_bytes: int
    multiply_adds: int
    latency_ms: dict[str, float]
    speedup: dict[str, float]
    operator_ms: dict[str, float]
    differing_pixels: int


def measure(config: ModelConfig, height: int, width: int, *, threads: int, rounds: int) -> Report:
    """Export a fresh network, and time it."""
    torch.set_num_threads(threads)
    classes = 11
    segmentor = build_segmentor(config, classes, seed=0).eval()
    if height % segmentor.stride or width % segmentor.stride:
        raise UserError(f"--size: expected multiples of the network's stride {segmentor.stride}, got {height}x{width}")
    names = tuple(f"class {index}" for index in range(classes))
    info = SegmentorInfo(config, classes, names, tuple((index, index, index) for index in range(classes)), 255)
    image = scene(height, width, np.random.default_rng(0))[None]
    with tempfile.TemporaryDirectory(prefix="contrail-benchmark-") as name:
        start = time.perf_counter()
        path = export(segmentor, ExportContext("onnx_fp32", Path(name), info), OnnxFp32Options())
        export_seconds = time.perf_counter() - start
        model = onnx.load(path)
        session = _session(path, threads)
        graph = DeployGraph(segmentor)
        tasks = _tasks(session, graph, segmentor, image)
        latencies = _take_turns(tasks, rounds)
        with torch.inference_mode():
            expected = graph(torch.from_numpy(image))
        assert isinstance(expected, torch.Tensor)
        return Report(
            network=f"{config.backbone} {config.head}",
            shape=(1, height, width, 3),
            threads=threads,
            export_seconds=export_seconds,
            nodes=len(model.graph.node),
            file_bytes=path.stat().st_size,
            multiply_adds=costs(model, image.shape).multiply_adds,
            latency_ms={task: statistics.median(values) for task, values in latencies.items()},
            speedup={
                task: statistics.median(a / b for a, b in zip(values, latencies[ENGINE], strict=True))
                for task, values in latencies.items()
                if task != ENGINE
            },
            operator_ms=_profile(path, threads, image, Path(name)),
            differing_pixels=int((session.run(None, {"image": image})[0] != expected.numpy()).sum()),
        )


def _session(path: Path, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _tasks(
    session: onnxruntime.InferenceSession, graph: DeployGraph, segmentor: Segmentor, image: np.ndarray
) -> dict[str, Callable[[], object]]:
    """What takes turns. PyTorch by the same work, bytes to mask, in both memory layouts; and by the bare network."""
    pixels = torch.from_numpy(image)
    normalised = segmentor.normalise(pixels.permute(0, 3, 1, 2)).contiguous()
    moved: Segmentor = copy.deepcopy(segmentor).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    channels_last = DeployGraph(moved)
    return {
        ENGINE: lambda: session.run(None, {"image": image}),
        EAGER: lambda: graph(pixels),
        "PyTorch eager, channels last": lambda: channels_last(pixels),
        "PyTorch eager, the bare network": lambda: segmentor(normalised),
    }


def _take_turns(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Latencies in milliseconds, one per round and task, after two rounds of warm-up; the order turns around."""
    latencies: dict[str, list[float]] = {name: [] for name in tasks}
    with torch.inference_mode():
        for index in range(rounds + 2):
            names = list(tasks) if index % 2 else list(tasks)[::-1]
            for name in names:
                start = time.perf_counter_ns()
                tasks[name]()
                latencies[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: values[2:] for name, values in latencies.items()}


def _profile(path: Path, threads: int, image: np.ndarray, folder: Path, runs: int = 5) -> dict[str, float]:
    """Milliseconds per inference of each operator. Profiling itself costs little but is kept out of the latencies."""
    session = _session(path, threads, folder)
    for _ in range(runs):
        session.run(None, {"image": image})
    events = json.loads(Path(session.end_profiling()).read_text())
    totals: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            totals[event["args"]["op_name"]] += event["dur"] / 1000 / runs
    return dict(totals.most_common())


def show(report: Report) -> str:
    """The report as text."""
    total = sum(report.operator_ms.values())
    lines = [
        f"{report.network}, image {'x'.join(map(str, report.shape))}, {report.threads} threads",
        f"exported in {report.export_seconds:.1f} s: {report.nodes} nodes, {report.file_bytes / 1e6:.1f} MB, "
        f"{report.multiply_adds / 1e9:.2f} G multiply-adds; {report.differing_pixels} pixels differ from PyTorch",
        "",
        f"{'':34}{'ms':>10}{'by ONNX Runtime':>18}",
    ]
    for name, value in report.latency_ms.items():
        ratio = f"{report.speedup[name]:.2f}" if name in report.speedup else ""
        lines.append(f"{name:34}{value:10.1f}{ratio:>18}")
    lines += ["", f"{'operators of ONNX Runtime':34}{'ms':>10}{'share':>18}"]
    lines += [f"{name:34}{value:10.2f}{value / total:18.1%}" for name, value in list(report.operator_ms.items())[:8]]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; 1 when the exported graph is too slow."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default=ModelConfig.backbone)
    parser.add_argument("--head", choices=sorted(HEADS), default=ModelConfig.head)
    parser.add_argument("--size", type=int, nargs=2, default=(384, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25, help="measured rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    config = ModelConfig(backbone=arguments.backbone, head=arguments.head, pretrained=False)
    report = measure(config, *arguments.size, threads=arguments.threads, rounds=max(1, arguments.rounds))
    met = report.speedup[EAGER] >= TARGET_SPEEDUP
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(report) | {"target": TARGET_SPEEDUP, "met": met}, indent=2) + "\n")
    else:
        verdict = "" if met else ": MISSED"
        sys.stdout.write(f"{show(report)}\n\nat least {TARGET_SPEEDUP} expected{verdict}\n")
    return 0 if met else 1


if __name__ == "__main__":
    run_command(main)
