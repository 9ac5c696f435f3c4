"""Compile one target: `python -m export.stages.compile --method pixel_contrast --seed 0 --target tensorrt_fp16`."""

from __future__ import annotations

import argparse
import sys

from export.artifacts.interface import MODEL_NAME
from export.compilation import TIMING_CACHE_NAME, compile_plan
from pipeline.artifacts import SKIPPED_NAME, artifact_dir, atomic_dir, write_json
from pipeline.config.params import load_params
from serving.errors import UnavailableError, UserError, did_you_mean, run_command


def main() -> int:
    """Write artifacts/<branch>/<target>/: the plan and its manifest, or why it cannot be built on this machine."""
    parser = argparse.ArgumentParser(prog="python -m export.stages.compile", description=__doc__)
    parser.add_argument("--method", required=True, help="a name from the section `methods` of params.yaml")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--target", required=True, help="a target of params.yaml with the runtime tensorrt")
    arguments = parser.parse_args()
    params = load_params()
    compiled = [name for name, target in params.targets.items() if target.compiled]
    if arguments.target not in compiled:
        raise UserError(
            f"--target: params.yaml has no compiled target {arguments.target!r}"
            f"{did_you_mean(arguments.target, compiled)}"
        )
    target = params.targets[arguments.target]
    folder = artifact_dir(arguments.method, arguments.seed, arguments.target)
    cache = folder / TIMING_CACHE_NAME
    timings = cache.read_bytes() if cache.exists() else b""
    source = artifact_dir(arguments.method, arguments.seed, target.artifact) / MODEL_NAME
    with atomic_dir(folder) as temporary:
        try:
            path = compile_plan(source, temporary, name=arguments.target, build=target.build, cache=timings)
        except UnavailableError as reason:
            write_json(temporary / SKIPPED_NAME, {"status": "skipped", "reason": str(reason)})
            sys.stdout.write(f"{arguments.target}: skipped: {reason}\n")
        else:
            sys.stdout.write(f"{folder / path.name}: {path.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    run_command(main)
