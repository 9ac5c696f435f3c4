"""Every engine beside PyTorch eager in one run: `python -m benchmarks.engines [--json]`.

Speed does not depend on the values of the weights, so that an untrained network serves; its accuracy means nothing. The
engines take turns, one inference each per round and in another order every round: what the machine does meanwhile meets
all of them alike. Reported are medians and, per round, the ratio to PyTorch (or to what an aim names) in that round.

A large matrix product of PyTorch's in single precision takes its turns with them: a yardstick for what the engines do
per second. It is no ceiling: good convolutions were seen to run faster. At the end ONNX Runtime's own profile says
which operators of the graph in single precision the time goes to.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.networks import exported, street_scenes
from export.graph.costs import costs
from export.graph.deploy import INPUT_NAME, DeployGraph
from export.machine.device import read_device
from export.machine.hardware import device_summary
from export.targets.artifact_config import ArtifactConfig
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from serving.contract.errors import UnavailableError, UserError, run_command
from serving.contract.manifest import read_sidecar
from serving.engines.runtimes import RUNTIMES

BASELINE = "pytorch"
EXPORTED: Mapping[str, ArtifactConfig] = {
    "onnx_fp32": ArtifactConfig("onnx_fp32"),
    "onnx_fp16": ArtifactConfig("onnx_fp16"),
    "onnx_int8_u8": ArtifactConfig(
        "onnx_int8", {"scheme": "asymmetric", "images": 4, "held_out": 1, "max_miou_drop_points": 100.0}
    ),
    "onnx_int8_s8": ArtifactConfig(
        "onnx_int8", {"scheme": "symmetric", "images": 4, "held_out": 1, "max_miou_drop_points": 100.0}
    ),
}


@dataclass(frozen=True)
class EngineCase:
    """One row.

    Attributes:
        artifact: key of `EXPORTED`.
        runtime: that opens it.
        options: of the runtime, besides `threads`.
        aim: the least speed-up that is aimed at; None: no aim.
        over: what the aim is a speed-up over.
        needs: a CPU flag without which the aim does not apply.
    """

    artifact: str
    runtime: str
    options: Mapping[str, object] = field(default_factory=dict)
    aim: float | None = None
    over: str = BASELINE
    needs: str | None = None


# Threads that spin while another engine has its turn would take its cores: none does here.
_IDLE: Mapping[str, object] = {"spinning": False}
_CUDA: Mapping[str, object] = {**_IDLE, "provider": "cuda"}
ENGINES: Mapping[str, EngineCase] = {
    "ort_fp32": EngineCase("onnx_fp32", "onnxruntime", _IDLE, aim=1.3),
    "ort_fp16": EngineCase("onnx_fp16", "onnxruntime", _IDLE),
    "ort_int8": EngineCase("onnx_int8_u8", "onnxruntime", _IDLE, aim=2.0, over="ort_fp32"),
    "openvino_fp32": EngineCase("onnx_fp32", "openvino", {"precision": "f32"}),
    "openvino_bf16": EngineCase("onnx_fp32", "openvino", {"precision": "bf16"}, aim=4.0, needs="amx_bf16"),
    "openvino_int8": EngineCase("onnx_int8_s8", "openvino", aim=5.0),
    "ort_cuda_fp32": EngineCase("onnx_fp32", "onnxruntime", _CUDA),
    "ort_cuda_tf32": EngineCase("onnx_fp32", "onnxruntime", {**_CUDA, "tf32": True}),
    "ort_cuda_fp16": EngineCase("onnx_fp16", "onnxruntime", _CUDA),
    "ort_cuda_fp16_nhwc": EngineCase("onnx_fp16", "onnxruntime", {**_CUDA, "prefer_nhwc": True}),
    "ort_cuda_fp16_conv_bias": EngineCase("onnx_fp16", "onnxruntime", {**_CUDA, "fuse_conv_bias": True}),
}

Run = Callable[[], object]

YARDSTICK = "matrix_product"
YARDSTICK_SIDE = 2048


def matrix_product() -> Run:
    """A product of two square matrices in single precision."""
    left, right = torch.ones(YARDSTICK_SIDE, YARDSTICK_SIDE), torch.ones(YARDSTICK_SIDE, YARDSTICK_SIDE)

    def run() -> object:
        with torch.inference_mode():
            return left @ right

    return run


def eager(segmentor: Segmentor, images: NDArray[np.uint8]) -> Run:
    """PyTorch without a compiler: the deploy graph, uint8 in and mask out."""
    graph, batch = DeployGraph(segmentor), torch.from_numpy(np.array(images))

    def run() -> object:
        with torch.inference_mode():
            return graph(batch)

    return run


def measure(runs: Mapping[str, Run], *, rounds: int, seed: int) -> dict[str, list[float]]:
    """Milliseconds per inference, one of every engine per round, in a new order each round; two rounds warm up."""
    generator = np.random.default_rng(seed)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 2):
        for name in generator.permutation(list(runs)).tolist():
            start = time.perf_counter_ns()
            runs[name]()
            if number >= 2:
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return times


def benchmark(config: ModelConfig, *, side: int, threads: int, rounds: int, seed: int) -> dict[str, Any]:
    """Export the network, open every engine that this machine has, measure."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="contrail-engines-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        prepared = street_scenes(folder / "data", side, seed)
        segmentor = build_segmentor(config, prepared.num_classes, seed=seed).eval()
        paths: dict[str, Path] = {}
        for name, artifact in EXPORTED.items():
            (folder / name).mkdir()
            paths[name] = exported(name, artifact, segmentor, prepared, folder / name)
        images = prepared.split("val").read_image(0)[None]
        multiply_adds = costs(onnx.load(paths["onnx_fp32"]), images.shape).multiply_adds
        moved: Segmentor = copy.deepcopy(segmentor).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        runs: dict[str, Run] = {YARDSTICK: matrix_product(), BASELINE: eager(segmentor, images)}
        runs["pytorch_channels_last"] = eager(moved, images)
        skipped: dict[str, str] = {}
        for name, engine in ENGINES.items():
            path, settings = paths[engine.artifact], dict(engine.options) | {"threads": threads}
            try:
                opened = RUNTIMES.resolve(engine.runtime).open(path, read_sidecar(path), settings)
            except UnavailableError as error:
                skipped[name] = str(error)
                continue
            runs[name] = partial(stack.enter_context(opened).infer, images)
        times = measure(runs, rounds=rounds, seed=seed)
        operators = operator_ms(paths["onnx_fp32"], threads, images)
    device = read_device()
    yardstick_ms = float(np.median(times.pop(YARDSTICK)))
    rows = {name: row(name, times, multiply_adds, set(device["hardware"]["cpu_flags"])) for name in times}
    return {
        "network": f"{config.backbone} {config.head}",
        "input": [1, side, side, 3],
        "threads": threads,
        "rounds": rounds,
        "machine": device_summary(device),
        "multiply_adds": multiply_adds,
        "yardstick_gops": round(_gops(YARDSTICK_SIDE**3, yardstick_ms), 1),
        "engines": rows,
        "operator_ms": operators,
        "skipped": skipped,
    }


def operator_ms(path: Path, threads: int, images: NDArray[np.uint8], runs: int = 5) -> dict[str, float]:
    """Milliseconds per inference of each kind of operator, the slowest first; profiling costs a little of them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_name("profile"))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(runs):
        session.run(None, {INPUT_NAME: images})
    totals: Counter[str] = Counter()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            totals[event["args"]["op_name"]] += event["dur"] / 1000 / runs
    return dict(totals.most_common())


def _gops(multiply_adds: int, milliseconds: float) -> float:
    """Operations per second in billions, a multiplication and an addition each counted."""
    return 2 * multiply_adds / milliseconds / 1e6


def row(name: str, times: Mapping[str, Sequence[float]], multiply_adds: int, cpu_flags: Set[str]) -> dict[str, Any]:
    """Median, speed-ups round by round, and whether the aim is met where there is one on this CPU."""
    engine = ENGINES.get(name)
    over = engine.over if engine and engine.over in times else BASELINE
    milliseconds = np.array(times[name])
    speedup = np.median(np.array(times[BASELINE]) / milliseconds)
    to_aim = np.array(times[over]) / milliseconds
    applies = engine is not None and engine.aim is not None and (engine.needs is None or engine.needs in cpu_flags)
    return {
        "median_ms": round(float(np.median(milliseconds)), 3),
        "gops": round(_gops(multiply_adds, float(np.median(milliseconds))), 1),
        "speedup": round(float(speedup), 3),
        "over": over,
        "speedup_over": round(float(np.median(to_aim)), 3),
        "speedup_over_quartiles": [round(float(value), 3) for value in np.quantile(to_aim, (0.25, 0.75))],
        "aim": engine.aim if engine and applies else None,
        "met": bool(np.median(to_aim) >= engine.aim) if engine and engine.aim and applies else None,
    }


def table(result: Mapping[str, Any]) -> str:
    """The result as text."""
    lines = [
        f"{result['network']}, {result['input']}, {result['threads']} threads, {result['rounds']} rounds",
        result["machine"],
        f"{result['multiply_adds'] / 1e9:.2f} G multiply-adds; yardstick: a matrix product in fp32 runs at "
        f"{result['yardstick_gops']:.0f} G operations/s",
    ]
    for name, each in result["engines"].items():
        line = f"  {name:<22} {each['median_ms']:9.2f} ms  {each['gops']:6.0f} Gop/s  {each['speedup']:6.2f}x PyTorch"
        if each["aim"]:
            verdict = "met" if each["met"] else "missed"
            line += f"  {each['speedup_over']:6.2f}x {each['over']} (aim {each['aim']:g}x: {verdict})"
        lines.append(line)
    lines += [f"  {name:<22} skipped: {reason}" for name, reason in result["skipped"].items()]
    total = sum(result["operator_ms"].values())
    shares = [f"{name} {value / total:.0%}" for name, value in list(result["operator_ms"].items())[:8]]
    lines.append(f"operators of ort_fp32: {', '.join(shares)}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--head", default="light")
    parser.add_argument("--side", type=int, default=512, help="height and width in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if min(arguments.side // 32, arguments.threads, arguments.rounds) < 1 or arguments.side % 32:
        raise UserError("expected --side in multiples of 32, and --threads and --rounds of at least 1")
    try:
        config = ModelConfig(arguments.backbone, False, arguments.head)
    except ValueError as error:
        raise UserError(str(error)) from error
    result = benchmark(
        config, side=arguments.side, threads=arguments.threads, rounds=arguments.rounds, seed=arguments.seed
    )
    sys.stdout.write(json.dumps(result, indent=2) + "\n" if arguments.json else table(result))
    return 0


if __name__ == "__main__":
    run_command(main)
