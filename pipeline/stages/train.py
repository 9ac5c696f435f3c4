"""Train one method with one seed: `python -m pipeline.stages.train --method pixel_contrast --seed 0`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.artifacts import (
    PREPARED_DIR,
    branch_dir,
    branch_name,
    train_metrics_path,
    train_timing_path,
    trained_dir,
    write_json,
)
from pipeline.config.params import load_params
from pipeline.data.prepared import load_prepared, resolve_root
from pipeline.experiment import train_branch
from serving.errors import UserError, did_you_mean, run_command


def main() -> int:
    """Train, and write checkpoints, curves and metrics."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.stages.train", description=__doc__)
    parser.add_argument("--method", required=True, help="a name from the section `methods` of params.yaml")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--resume", action="store_true", help="continue an interrupted training, exactly")
    arguments = parser.parse_args()
    params = load_params()
    method, seed = arguments.method, arguments.seed
    if method not in params.methods:
        raise UserError(f"--method: no method {method!r} in params.yaml{did_you_mean(method, params.methods)}")
    result = train_branch(
        method,
        seed,
        method_config=params.methods[method],
        model_config=params.model,
        config=params.train,
        evaluation=params.evaluate,
        prepared=load_prepared(PREPARED_DIR, resolve_root(params.prepare.root)),
        folder=trained_dir(method, seed),
        curves=branch_dir(method, seed) / "curves",
        resume_path=Path("runs") / branch_name(method, seed) / "resume.safetensors",
        resume=arguments.resume,
    )
    write_json(
        train_metrics_path(method, seed),
        {
            "miou": result.miou if params.train.checkpoint == "last" else result.best_miou,
            "last_miou": result.miou,
            "best_iteration": result.best_iteration,
            "contrast_steps": result.contrast_steps,
            "mean_anchors": result.mean_anchors,
        },
    )
    write_json(train_timing_path(method, seed), {"seconds": result.seconds})
    return 0


if __name__ == "__main__":
    run_command(main)
