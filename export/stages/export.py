"""Export one artefact of one branch: `python -m export.stages.export --method M --seed S --artifact onnx_fp32`."""

from __future__ import annotations

import argparse

from export.artifacts import ARTIFACTS
from export.artifacts.interface import ExportContext
from pipeline.artifacts import artifact_dir, atomic_dir, load_segmentor, stripped_dir
from pipeline.config.params import load_params
from serving.errors import UserError, did_you_mean, run_command


def main() -> int:
    """Export the artefact into its folder, with its manifest."""
    parser = argparse.ArgumentParser(prog="python -m export.stages.export", description=__doc__)
    parser.add_argument("--method", required=True, help="a name from the section `methods` of params.yaml")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--artifact", required=True, help="a name from the section `artifacts` of params.yaml")
    arguments = parser.parse_args()
    params = load_params()
    name = arguments.artifact
    if name not in params.artifacts:
        raise UserError(f"--artifact: no artifact {name!r} in params.yaml{did_you_mean(name, params.artifacts)}")
    config = params.artifacts[name]
    segmentor, info = load_segmentor(stripped_dir(arguments.method, arguments.seed))
    with atomic_dir(artifact_dir(arguments.method, arguments.seed, name)) as folder:
        ARTIFACTS.resolve(config.kind)(segmentor, ExportContext(name, folder, info), config.exporter_options())
    return 0


if __name__ == "__main__":
    run_command(main)
