"""Compile one target: `python -m export.stages.compile --method pixel_contrast --seed 0 --target tensorrt_fp16`."""

from __future__ import annotations

import argparse
import sys

from export.golden.plan import write_golden_of_plan
from export.plans.compilation import compile_plan
from export.plans.timing_cache import TIMING_CACHES_DIR, TimingCaches
from pipeline.data.datasets.shared.prepared import load_prepared, resolve_root
from pipeline.layout.arguments import add_branch_arguments, named_branch
from pipeline.layout.paths import DEVICE_PATH, MODEL_NAME, PREPARED_DIR, SKIPPED_NAME, artifact_dir
from pipeline.params import load_params
from serving.contract.command import program_name
from serving.contract.errors import UnavailableError, UserError, did_you_mean, run_command
from serving.contract.files import atomic_dir, read_json, write_json
from serving.engines.runtimes.runtime import parse_options
from serving.engines.runtimes.tensorrt.engine import TensorRTOptions


def main() -> int:
    """Write artifacts/<branch>/<target>/: the plan and its manifest, or why it cannot be built on this machine."""
    parser = argparse.ArgumentParser(prog=program_name("export.stages.compile"), description=__doc__)
    add_branch_arguments(parser)
    parser.add_argument("--target", required=True, help="a target of params.yaml with the runtime tensorrt")
    arguments = parser.parse_args()
    params = load_params()
    method, seed = named_branch(arguments, params.branches, params.methods)
    compiled = [name for name, target in params.targets.items() if target.compiled]
    if arguments.target not in compiled:
        raise UserError(
            f"--target: params.yaml has no compiled target {arguments.target!r}"
            f"{did_you_mean(arguments.target, compiled)}"
        )
    target = params.targets[arguments.target]
    device_id = parse_options(TensorRTOptions, target.options, target.runtime).device_id
    folder = artifact_dir(method, seed, arguments.target)
    timings = TimingCaches(TIMING_CACHES_DIR, read_json(DEVICE_PATH, made_by="device")["hardware_sha256"])
    source = artifact_dir(method, seed, target.artifact) / MODEL_NAME

    def sizes() -> list[tuple[int, int]]:
        splits = load_prepared(PREPARED_DIR, resolve_root(params.prepare.root)).splits.values()
        return [split.size(index) for split in splits for index in range(len(split))]

    with atomic_dir(folder) as temporary:
        try:
            path = compile_plan(
                source,
                temporary,
                name=arguments.target,
                build=target.build,
                sizes=sizes,
                timings=timings,
                device_id=device_id,
            )
        except UnavailableError as reason:
            write_json(temporary / SKIPPED_NAME, {"status": "skipped", "reason": str(reason)})
            sys.stdout.write(f"{arguments.target}: skipped: {reason}\n")
        else:
            write_golden_of_plan(path, source)
            sys.stdout.write(f"{folder / path.name}: {path.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    run_command(main)
