"""`python -m benchmarks.quantisers`: INT8 by ONNX Runtime's quantiser and by NNCF's, in both CPU runtimes.

After `dvc repro`, on the network of a branch: its graph is quantised in every way, on the same calibration images, and
every file runs in ONNX Runtime and in OpenVINO: mIoU on the whole split `val`, computed by the kernels that serve, and
milliseconds per image, all engines in turns. Needs NNCF, which nothing else here does:

    pip install -c constraints.txt nncf==3.4.0
    python -m benchmarks.quantisers --branch pixel_contrast-s0 --json quantisers.json
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from benchmarks.quantisers.nncf_quantiser import NncfOptions, import_nncf, quantise
from export.artifacts.onnx_int8.calibration import CalibrationImages, choose, confusions
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.onnx_int8.quantisation import Quantiser, UInt8
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.model_file import write_engine
from export.artifacts.shared.single_precision import build_model
from export.graph.deploy import MASK_NAME
from export.machine.device import read_device
from export.machine.hardware import device_summary
from pipeline.data.datasets.shared.prepared import Prepared, load_prepared, resolve_root
from pipeline.evaluation.metrics import mean_iou
from pipeline.layout.paths import ARTIFACTS_DIR, PREPARED_DIR
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import SegmentorInfo, load_segmentor
from pipeline.params import load_params
from serving.contract.errors import UserError, run_command
from serving.contract.files import write_json
from serving.contract.manifest import read_sidecar
from serving.engines.runtimes import RUNTIMES

RUNTIME_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "onnxruntime": {"threads": 1, "spinning": False},
    "openvino": {"threads": 1},
}
WAYS: Mapping[str, OnnxInt8Options | NncfOptions | None] = {
    "fp32": None,
    "ort_symmetric": OnnxInt8Options(scheme="symmetric"),
    "ort_symmetric_7bit": OnnxInt8Options(scheme="symmetric", reduce_range=True),
    "ort_asymmetric": OnnxInt8Options(scheme="asymmetric"),
    "ort_asymmetric_7bit": OnnxInt8Options(scheme="asymmetric", reduce_range=True),
    "nncf_performance": NncfOptions("performance"),
    "nncf_performance_7bit": NncfOptions("performance", overflow_fix=True),
    "nncf_mixed": NncfOptions("mixed"),
    "nncf_mixed_7bit": NncfOptions("mixed", overflow_fix=True),
    "nncf_mixed_7bit_slow": NncfOptions("mixed", overflow_fix=True, fast_bias_correction=False),
}


@dataclass(frozen=True)
class Row:
    """One file in one runtime.

    Attributes:
        way: key of `WAYS`.
        runtime: that opens it.
        miou: on `val`, in [0,1].
        median_ms: of one image.
        over_fp32: median over the rounds of the time of fp32 in that runtime over this one's.
    """

    way: str
    runtime: str
    miou: float
    median_ms: float
    over_fp32: float


def quantised(
    way: OnnxInt8Options | NncfOptions | None, reference: ModelProto, images: CalibrationImages
) -> ModelProto:
    """The graph in one of the ways, all layers that it takes in INT8; in single precision for None."""
    if way is None:
        return reference
    if isinstance(way, NncfOptions):
        return quantise(reference, images, way)
    with Quantiser(reference, images, way) as quantiser:
        return quantiser.quantise()


def measure(
    segmentor: Segmentor,
    info: SegmentorInfo,
    prepared: Prepared,
    ways: Sequence[str],
    *,
    count: int,
    rounds: int,
) -> list[Row]:
    """Quantise one network in several ways, each row said at the end.

    Args:
        segmentor: in evaluation mode.
        info: of it.
        prepared: the dataset.
        ways: keys of `WAYS`; `fp32` is always among them.
        count: images to calibrate on.
        rounds: inferences of every engine that are timed.
    """
    images = choose(prepared, calibration=count, held_out=count, seed=0, stride=segmentor.stride, resize=info.resize)
    val = prepared.split("val")
    shown = CalibrationImages(val, (), tuple(range(len(val))), 0, segmentor.stride, info.resize, prepared.ignore_index)
    reference = build_model(segmentor, "mask")
    mious: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory(prefix="contrail-quantisers-") as temporary, ExitStack() as stack:
        opened: dict[tuple[str, str], Any] = {}
        for way in dict.fromkeys(("fp32", *ways)):
            folder = Path(temporary) / way
            folder.mkdir()
            model = quantised(WAYS[way], reference, images)
            precision = "fp32" if way == "fp32" else "int8"
            path = write_engine(model, segmentor, ExportContext(way, folder, info), precision=precision, output="mask")
            for runtime, options in RUNTIME_OPTIONS.items():
                engine = RUNTIMES.resolve(runtime).open(path, read_sidecar(path), options)
                opened[way, runtime] = stack.enter_context(engine)
                masks = (engine.infer(batch)[MASK_NAME] for batch in shown.batches(shown.held_out))
                mious[way, runtime] = mean_iou(confusions(masks, shown, segmentor.num_classes))
        times = _in_turns(opened, next(iter(shown.batches(shown.held_out))), rounds)
    return [
        Row(
            way,
            runtime,
            miou,
            float(np.median(times[way, runtime])),
            float(np.median(times["fp32", runtime] / times[way, runtime])),
        )
        for (way, runtime), miou in mious.items()
    ]


def _in_turns(opened: Mapping[tuple[str, str], Any], batch: UInt8, rounds: int) -> dict[tuple[str, str], Any]:
    """Milliseconds `[rounds]` of every engine, one inference each per round, in a new order each round."""
    generator = np.random.default_rng(0)
    names = list(opened)
    times: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    for number in range(rounds + 2):  # two warm up
        for place in generator.permutation(len(names)):
            name = names[int(place)]
            start = time.perf_counter_ns()
            opened[name].infer(batch)
            if number >= 2:
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: np.asarray(values) for name, values in times.items()}


def main() -> int:
    """Print one row for each file and runtime."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantisers", description=__doc__.partition("\n")[0])
    parser.add_argument("--branch", default="pixel_contrast-s0", help="a folder below artifacts/")
    parser.add_argument("--images", type=int, default=24, help="to calibrate on (default 24)")
    parser.add_argument("--rounds", type=int, default=20, help="inferences of every engine that are timed")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    arguments = parser.parse_args()
    if min(arguments.images, arguments.rounds) < 1:
        raise UserError("expected --images and --rounds of at least 1")
    if any(isinstance(WAYS[way], NncfOptions) for way in arguments.ways):
        import_nncf()  # before anything is read
    segmentor, info = load_segmentor(ARTIFACTS_DIR / arguments.branch / "stripped")
    prepared = load_prepared(PREPARED_DIR, resolve_root(load_params().prepare.root))
    rows = measure(segmentor, info, prepared, arguments.ways, count=arguments.images, rounds=arguments.rounds)
    machine = device_summary(read_device())
    sys.stdout.write(f"{machine}\n\n| way | runtime | mIoU, % | ms | over fp32 |\n|---|---|---|---|---|\n")
    for row in rows:
        sys.stdout.write(
            f"| `{row.way}` | {row.runtime} | {100 * row.miou:.2f} | {row.median_ms:.1f} | {row.over_fp32:.2f} |\n"
        )
    if arguments.json:
        found = {"branch": arguments.branch, "images": arguments.images, "machine": machine}
        write_json(arguments.json, found | {"rows": [dataclasses.asdict(row) for row in rows]})
    return 0


if __name__ == "__main__":
    run_command(main)
