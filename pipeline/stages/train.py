"""Train one method with one seed: `python -m pipeline.stages.train --method pixel_contrast --seed 0`."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from pipeline.compute.devices import select_device
from pipeline.data.datasets.shared.prepared import load_prepared, resolve_root
from pipeline.layout.arguments import add_branch_arguments, named_branch
from pipeline.layout.paths import (
    PREPARED_DIR,
    checkpoints_dir,
    curves_dir,
    last_weights_path,
    train_metrics_path,
    train_timing_path,
    trained_dir,
)
from pipeline.losses.shared.distributed import own_rank
from pipeline.params import load_params
from pipeline.training.distributed.agent import run_ranks
from pipeline.training.distributed.exchange import require_even_parts, require_gpus
from pipeline.training.distributed.rank import is_rank, is_restarted, ranks_in_all, run_rank
from pipeline.training.experiment import TrainingFiles, TrainingSetup, train_branch
from pipeline.training.faults.signals import STATUS, TrainingStopped, stop_on_sigterm
from pipeline.training.loop import TrainResult
from pipeline.training.performance.timing import TimeReport
from serving.contract.command import program_name
from serving.contract.errors import run_command
from serving.contract.files import file_sha256, write_json


def main() -> int:
    """Train, and write checkpoints, curves and metrics."""
    parser = argparse.ArgumentParser(prog=program_name("pipeline.stages.train"), description=__doc__)
    add_branch_arguments(parser)
    parser.add_argument("--fresh", action="store_true", help="start over, whatever an interrupted training left")
    arguments = parser.parse_args()
    if is_rank():
        return run_rank(lambda: _train(arguments))
    params = load_params()
    named_branch(arguments, params.branches, params.methods)
    if params.train.processes > 1:
        require_gpus(select_device(params.train.device), params.train.processes)
        return run_ranks("pipeline.stages.train", sys.argv[1:], params.train.processes)
    return _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    """Train in this process: all of the branch, or a rank's part of it."""
    params = load_params()
    method, seed = named_branch(arguments, params.branches, params.methods)
    if is_rank():  # as many as whoever started the ranks says
        require_even_parts(params.train.batch_size, ranks_in_all())
        params = dataclasses.replace(params, train=dataclasses.replace(params.train, processes=ranks_in_all()))

    def keep(result: TrainResult, time: TimeReport) -> None:
        write_json(
            train_metrics_path(method, seed),
            {
                "miou": result.miou if params.train.checkpoint == "last" else result.best_miou,
                "last_miou": result.miou,
                "best_iteration": result.best_iteration,
                "contrast_steps": result.contrast_steps,
                "mean_anchors": result.mean_anchors,
                # Names alone, as a list: `dvc metrics` would make a column of every key of a mapping.
                **({"left_out": list(result.left_out)} if result.left_out else {}),
            },
        )
        # No output of the stage: DVC may later restore the weights of another training beside it, so it names its own.
        weights_sha256 = file_sha256(last_weights_path(method, seed))
        timing = {"weights_sha256": weights_sha256, "seconds": result.seconds, **dataclasses.asdict(time)}
        write_json(train_timing_path(method, seed), timing)

    with stop_on_sigterm() as stop:
        try:
            train_branch(
                TrainingSetup(method, seed, params.methods[method], params.model, params.train, params.evaluate),
                load_prepared(PREPARED_DIR, resolve_root(params.prepare.root)),
                TrainingFiles(trained_dir(method, seed), curves_dir(method, seed), checkpoints_dir(method, seed)),
                fresh=arguments.fresh and not is_restarted(),
                stop=stop,
                finish=keep,
            )
        except TrainingStopped:
            if own_rank() == 0:
                sys.stderr.write("stopped by SIGTERM; the same command goes on from here\n")
            return STATUS
    return 0


if __name__ == "__main__":
    run_command(main)
