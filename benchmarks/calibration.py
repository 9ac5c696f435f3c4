"""`python -m benchmarks.calibration`: what INT8 costs in mIoU, for every way to calibrate and both schemes.

After `dvc repro`, on the network of a branch: its graph is quantised as the stage `export` does, on the same training
images, and judged on the training images held out there and on the whole split `val`. What the Q/DQ pairs say is
computed in single precision. `--limit-points` lets the search keep layers in float until the loss on the held-out
images is below.

    python -m benchmarks.calibration --branch pixel_contrast-s0 --json calibration.json
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

from export.artifacts.onnx_int8.calibration import CalibrationImages
from export.artifacts.onnx_int8.export import quantised
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.onnx_int8.sensitivity import held_out_miou
from export.artifacts.shared.single_precision import build_model
from pipeline.data.datasets.shared.prepared import Prepared, load_prepared, resolve_root
from pipeline.layout.paths import ARTIFACTS_DIR, PREPARED_DIR
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import SegmentorInfo, load_segmentor
from pipeline.params import load_params
from serving.contract.errors import run_command
from serving.contract.files import write_json

_HINTS = get_type_hints(OnnxInt8Options)
CALIBRATIONS: tuple[str, ...] = get_args(_HINTS["calibration"])
SCHEMES: tuple[str, ...] = get_args(_HINTS["scheme"])
UNLIMITED = 100.0


@dataclass(frozen=True)
class Row:
    """One quantised network.

    Attributes:
        calibration, scheme: how.
        kept: layers that stay in float, of `layers`.
        held_out_points: loss of mIoU on the held-out training images, in points.
        val_points: the same on `val`.
    """

    calibration: str
    scheme: str
    kept: int
    layers: int
    held_out_points: float
    val_points: float


def measure(
    segmentor: Segmentor,
    info: SegmentorInfo,
    prepared: Prepared,
    chosen: Sequence[OnnxInt8Options],
) -> list[Row]:
    """Quantise one network with every one of the options, each row said as it comes."""
    val, classes = prepared.split("val"), segmentor.num_classes
    reported = CalibrationImages(
        val, (), tuple(range(len(val))), 0, segmentor.stride, info.resize, prepared.ignore_index
    )
    reference = build_model(segmentor, "mask")
    expected = held_out_miou(reference, reported, classes)
    rows = []
    for options in chosen:
        _, found = quantised(reference, segmentor, prepared, info.resize, options)
        drop = 100 * (expected - held_out_miou(found.best.model, reported, classes))
        row = Row(options.calibration, options.scheme, len(found.best.kept), found.layers, found.best.drop_points, drop)
        rows.append(row)
        sys.stdout.write(
            f"| `{row.calibration}` | {row.scheme} | {row.kept} of {row.layers} | {row.held_out_points:.3f} "
            f"| {row.val_points:.3f} |\n"
        )
        sys.stdout.flush()
    return rows


def main() -> int:
    """Print one row for each way and scheme."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__.partition("\n")[0])
    parser.add_argument("--branch", default="pixel_contrast-s0", help="a folder below artifacts/")
    parser.add_argument("--images", type=int, default=24, help="to calibrate on, and as many held out (default 24)")
    parser.add_argument("--limit-points", type=float, default=UNLIMITED, help="keep layers in float until this holds")
    parser.add_argument("--calibrations", nargs="+", choices=CALIBRATIONS, default=CALIBRATIONS)
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    arguments = parser.parse_args()
    segmentor, info = load_segmentor(ARTIFACTS_DIR / arguments.branch / "stripped")
    prepared = load_prepared(PREPARED_DIR, resolve_root(load_params().prepare.root))
    chosen = [
        OnnxInt8Options(
            scheme=scheme,
            calibration=calibration,
            images=arguments.images,
            held_out=arguments.images,
            max_miou_drop_points=arguments.limit_points,
        )
        for calibration in arguments.calibrations
        for scheme in arguments.schemes
    ]
    sys.stdout.write("| calibration | scheme | kept in float | held out | val |\n|---|---|---|---|---|\n")
    rows = measure(segmentor, info, prepared, chosen)
    if arguments.json:
        found = {"branch": arguments.branch, "images": arguments.images, "limit_points": arguments.limit_points}
        write_json(arguments.json, found | {"rows": [dataclasses.asdict(row) for row in rows]})
    return 0


if __name__ == "__main__":
    run_command(main)
