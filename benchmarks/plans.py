"""Every kind of network as TensorRT plans in three precisions: `python -m benchmarks.plans [--json]`.

TensorRT-RTX builds with neither GPU nor driver, so that CI really builds what it cannot run. Untrained networks serve,
and two small images calibrate INT8: what is asked is whether each graph is taken, and whether its layers keep their
precision. Exit status 1 when one does not build, or not in the precision asked for.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import cast

from benchmarks.networks import NETWORKS, exported, street_scenes
from export.plans.compilation import compile_plan, import_package
from export.plans.timing_cache import TimingCaches
from export.targets.artifact_config import ArtifactConfig
from export.targets.limits import precision_limits
from export.targets.plan_build import PlanBuild
from pipeline.compute.devices import use_threads
from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from serving.contract.errors import UserError, run_command
from serving.contract.manifest import verify_sidecar
from serving.engines.runtimes.tensorrt.plan import PlanDetails

PRECISIONS: Mapping[str, ArtifactConfig] = {
    "fp32": ArtifactConfig("onnx_fp32"),
    "fp16": ArtifactConfig("onnx_fp16"),
    # No layer is kept in float: an untrained network has no accuracy to lose.
    "int8": ArtifactConfig(
        "onnx_int8", {"scheme": "symmetric", "images": 2, "held_out": 1, "max_miou_drop_points": 100.0}
    ),
}
BUILD = PlanBuild(package="tensorrt_rtx", compute_capabilities=("8.9",))
TIMINGS = TimingCaches(Path(), "")  # TensorRT-RTX times nothing when it builds


@dataclass(frozen=True)
class Built:
    """One plan, or why there is none.

    Attributes:
        network, precision: which.
        export_seconds: tracing and, for INT8, quantising.
        build_seconds: of TensorRT.
        plan_bytes: size of the plan; None where it was not built.
        layers: precision -> layers with weights that compute in it, of the plan's typed network.
        error: why it was not built.
    """

    network: str
    precision: str
    export_seconds: float
    build_seconds: float = 0.0
    plan_bytes: int | None = None
    layers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it was built, and enough layers compute in the precision asked for."""
        total = sum(self.layers.values())
        return (
            total > 0
            and self.layers.get(self.precision, 0) >= precision_limits()[self.precision].min_layer_share * total
        )


def build_plan(name: str, precision: str, segmentor: Segmentor, prepared: Prepared, folder: Path) -> Built:
    """Export `segmentor` in one precision into `folder`, and build the plan."""
    sizes = [prepared.split("train").size(index) for index in range(len(prepared.split("train")))]
    started = time.perf_counter()
    source = exported(precision, PRECISIONS[precision], segmentor, prepared, folder)
    ready = time.perf_counter()
    try:
        path = compile_plan(
            source, folder, name=f"tensorrt_{precision}", build=BUILD, sizes=lambda: sizes, timings=TIMINGS
        )
    except UserError as error:
        return Built(name, precision, ready - started, time.perf_counter() - ready, error=str(error))
    seconds = time.perf_counter() - ready
    # Read back as serving would: the hash of the plan is checked on the way.
    layers = cast(Mapping[str, int], PlanDetails.of(verify_sidecar(path), path).extra["layers"])
    return Built(name, precision, ready - started, seconds, path.stat().st_size, layers)


def build_all(networks: Mapping[str, ModelConfig], precisions: Sequence[str], *, side: int = 64) -> list[Built]:
    """Every network in every precision, one by one."""
    with tempfile.TemporaryDirectory(prefix="contrail-plans-") as folder:
        prepared = street_scenes(Path(folder) / "data", side)
        built = []
        for name, config in networks.items():
            segmentor = build_segmentor(config, prepared.num_classes, seed=0).eval()
            for precision in precisions:
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    built.append(build_plan(name, precision, segmentor, prepared, Path(scratch)))
        return built


def build_side_by_side(
    networks: Mapping[str, ModelConfig], precisions: Sequence[str], processes: int
) -> Iterator[list[Built]]:
    """The plans of one network after the other; several networks at a time, each in one process.

    Raises:
        UnavailableError: TensorRT-RTX is not installed.
    """
    import_package(BUILD.package)
    tasks = [({name: config}, list(precisions)) for name, config in networks.items()]
    if processes == 1:
        yield from itertools.starmap(build_all, tasks)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=use_threads, initargs=(1,)) as pool:
        yield from pool.map(build_all, *zip(*tasks, strict=True))


def line(plan: Built) -> str:
    """A plan as text."""
    size = "-" if plan.plan_bytes is None else f"{plan.plan_bytes / 1e6:.1f} MB"
    layers = ", ".join(f"{count} {precision}" for precision, count in plan.layers.items())
    times = f"export {plan.export_seconds:5.1f} s  build {plan.build_seconds:5.1f} s"
    verdict = "pass" if plan.passed else "FAIL"
    return f"{plan.network:<10} {plan.precision:<5} {times}  {size:>9}  {verdict}  {plan.error or layers}"


def main() -> int:
    """Build and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="networks that are built at a time")
    arguments = parser.parse_args()
    if arguments.processes < 1:
        raise UserError(f"--processes: expected at least 1, got {arguments.processes}")
    plans = []
    networks = {name: NETWORKS[name] for name in arguments.networks}
    for built in build_side_by_side(networks, arguments.precisions, min(arguments.processes, len(networks))):
        plans += built
        if not arguments.json:
            sys.stdout.write("".join(line(plan) + "\n" for plan in built))
            sys.stdout.flush()
    if arguments.json:
        rows = [dataclasses.asdict(plan) | {"passed": plan.passed} for plan in plans]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    return 0 if all(plan.passed for plan in plans) else 1


if __name__ == "__main__":
    run_command(main)
