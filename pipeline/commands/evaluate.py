"""`python -m pipeline.commands.evaluate --branch NAME [--split SPLIT]`: a branch by the full protocol.

Evaluates the stripped segmentor in PyTorch by the protocol of the section `evaluate` (scales, flip), at the labels' own
resolution, on `evaluate.split` or the split that is named. Every look that this command takes at the test split is
recorded: settings are chosen on val. (With `evaluate.split: test`, the stage `verify` looks at it as well.)
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from pipeline.compute.devices import select_device, use_threads
from pipeline.data.datasets.shared.prepared import load_prepared, resolve_root
from pipeline.evaluation.evaluation import Evaluation, evaluate
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.layout.arguments import add_branch_arguments, named_branch
from pipeline.layout.branches import branch_name
from pipeline.layout.paths import METRICS_DIR, PREPARED_DIR, stripped_dir
from pipeline.models.network.weights import load_segmentor
from pipeline.params import load_params
from serving.contract.command import program_name
from serving.contract.errors import run_command
from serving.contract.files import read_json, write_json


def result_path(method: str, seed: int, split: str) -> Path:
    """Where the result of one branch on one split is kept."""
    return METRICS_DIR / "evaluate" / f"{branch_name(method, seed)}-{split}.json"


def as_result(evaluation: Evaluation, class_names: tuple[str, ...], weights_sha256: str) -> dict[str, Any]:
    """An evaluation as the numbers that are reported, with what they were measured on."""
    return {
        "miou": evaluation.miou,
        "boundary_iou": evaluation.boundary_iou,
        "iou_per_class": dict(zip(class_names, evaluation.iou_per_class.tolist(), strict=True)),
        "boundary_iou_per_class": dict(zip(class_names, evaluation.boundary_iou_per_class.tolist(), strict=True)),
        "images": len(evaluation.names),
        "protocol": evaluation.protocol,
        "weights_sha256": weights_sha256,
    }


def with_look(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """Add the record of every set of weights that this split was ever looked at with, this one last."""
    looks = read_json(path, made_by="pipeline.commands.evaluate")["looks"] if path.exists() else []
    look = {"weights_sha256": result["weights_sha256"], "miou": result["miou"], "protocol": result["protocol"]}
    return result | {"looks": [*(old for old in looks if old != look), look]}


def main() -> int:
    """Evaluate and record."""
    parser = argparse.ArgumentParser(
        prog=program_name("pipeline.commands.evaluate"), description=__doc__.partition("\n")[0]
    )
    add_branch_arguments(parser)
    parser.add_argument("--split", choices=("val", "test"), help="default: evaluate.split of params.yaml")
    arguments = parser.parse_args()
    params = load_params()
    method, seed = named_branch(arguments, params.branches, params.methods)
    use_threads(params.train.threads)
    device = select_device(params.train.device)
    segmentor, info = load_segmentor(stripped_dir(method, seed))
    prepared = load_prepared(PREPARED_DIR, resolve_root(params.prepare.root))
    prepared.require_classes(info.class_names, stripped_dir(method, seed))
    config = dataclasses.replace(params.evaluate, split=arguments.split or params.evaluate.split)
    evaluation = evaluate(
        segmentor_predictor(segmentor.to(device), device, resize=config.resize, protocol=config.protocol),
        prepared.split(config.split),
        info.num_classes,
        info.ignore_index,
        boundary_ratio=config.boundary_ratio,
        protocol=config.in_words(),
    )
    path = result_path(method, seed, config.split)
    result = as_result(evaluation, info.class_names, str(info.provenance.get("weights_sha256", "")))
    if config.split == "test":
        result = with_look(result, path)
        sys.stderr.write(f"the test split was looked at: recorded in {path}\n")
    write_json(path, result)
    sys.stdout.write(f"{branch_name(method, seed)} {config.split}: mIoU {100 * result['miou']:.2f} %")
    sys.stdout.write(f", boundary IoU {100 * result['boundary_iou']:.2f} % ({evaluation.protocol})\n")
    return 0


if __name__ == "__main__":
    run_command(main)
