"""Compare a branch's engines with PyTorch: `python -m export.stages.verify --method pixel_contrast --seed 0`."""

from __future__ import annotations

import argparse

from rich.progress import Progress

from export.checks.examination.reference import Reference
from export.checks.verification import EngineTarget, verify_branch
from export.targets.engines import engine_path
from pipeline.compute.devices import select_device
from pipeline.data.datasets.shared.prepared import load_prepared, resolve_root
from pipeline.layout.arguments import add_branch_arguments, named_branch
from pipeline.layout.paths import PREPARED_DIR, branch_dir, stripped_dir, verify_dir, verify_metrics_dir
from pipeline.models.network.weights import load_segmentor
from pipeline.params import load_params
from serving.card.checking import shipped_sha256
from serving.contract.command import program_name
from serving.contract.errors import run_command
from serving.contract.files import atomic_dir, write_json


def main() -> int:
    """Write reports/verify/<branch>/ and metrics/verify/<branch>/. What is found is judged by the gate."""
    parser = argparse.ArgumentParser(prog=program_name("export.stages.verify"), description=__doc__)
    add_branch_arguments(parser)
    arguments = parser.parse_args()
    params = load_params()
    method, seed = named_branch(arguments, params.branches, params.methods)
    segmentor, info = load_segmentor(stripped_dir(method, seed))
    prepared = load_prepared(PREPARED_DIR, resolve_root(params.prepare.root))
    prepared.require_classes(info.class_names, stripped_dir(method, seed))
    targets = [
        EngineTarget(name, engine_path(method, seed, name, target), target)
        for name, target in params.deploy.targets_of(method, params.targets).items()
    ]
    # As they are before the first of them is read: what is edited from here on is not what was examined.
    folder = branch_dir(method, seed)
    files = {(folder / name).as_posix(): sha256 for name, sha256 in shipped_sha256(folder).items()}
    with Progress(transient=True) as progress:
        task = progress.add_task("verify", total=None)
        verification = verify_branch(
            targets,
            Reference(segmentor, info, select_device("auto")),
            prepared.split(params.evaluate.split),
            method=method,
            seed=seed,
            config=params.verify,
            max_miou_drop_points=params.gate.max_miou_drop_points,
            boundary_ratio=params.evaluate.boundary_ratio,
            progress=lambda what: progress.update(task, description=what),
        )
    verification.report["files"] = files
    verification.report["dataset"] = {"sha256": prepared.sha256, "split": params.evaluate.split}
    with atomic_dir(verify_dir(method, seed)) as temporary:
        verification.save(temporary)
    with atomic_dir(verify_metrics_dir(method, seed)) as temporary:
        for target, values in verification.metrics().items():
            write_json(temporary / f"{target}.json", values)
    return 0


if __name__ == "__main__":
    run_command(main)
