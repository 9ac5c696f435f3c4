"""Export one branch: `python -m export.stages.export --method pixel_contrast --seed 0 [--artifact onnx_fp32]`."""

from __future__ import annotations

import argparse
import sys

from export.artifacts import ARTIFACT_KINDS
from export.artifacts.shared.exporter import ExportContext
from export.golden.inputs import Network, golden_inputs
from export.golden.lab import write_golden
from export.golden.logit_error import ExposedLogits
from pipeline.data.datasets.shared.prepared import Prepared, load_prepared, resolve_root
from pipeline.layout.arguments import add_branch_arguments, named_branch
from pipeline.layout.paths import PREPARED_DIR, artifact_dir, stripped_dir
from pipeline.models.network.weights import load_segmentor
from pipeline.params import load_params
from serving.contract.command import program_name
from serving.contract.errors import UserError, did_you_mean, run_command
from serving.contract.files import atomic_dir


def main() -> int:
    """Export the stripped segmentor to one artefact of params.yaml, or to all."""
    parser = argparse.ArgumentParser(prog=program_name("export.stages.export"), description=__doc__)
    add_branch_arguments(parser)
    parser.add_argument("--artifact", help="a name from the section `artifacts` of params.yaml; default: all of them")
    arguments = parser.parse_args()
    params = load_params()
    method, seed = named_branch(arguments, params.branches, params.methods)
    names = list(params.artifacts) if arguments.artifact is None else [arguments.artifact]
    for name in names:
        if name not in params.artifacts:
            raise UserError(f"--artifact: no artifact {name!r} in params.yaml{did_you_mean(name, params.artifacts)}")
    segmentor, info = load_segmentor(stripped_dir(method, seed))

    def prepared() -> Prepared:
        found = load_prepared(PREPARED_DIR, resolve_root(params.prepare.root))
        found.require_classes(info.class_names, stripped_dir(method, seed))
        return found

    network = Network(segmentor, info)
    for name in names:
        config = params.artifacts[name]
        folder = artifact_dir(method, seed, name)
        with atomic_dir(folder) as temporary:
            context = ExportContext(name, temporary, info, prepared)
            path = ARTIFACT_KINDS.resolve(config.kind).exporter()(segmentor, context, config.exporter_options())
            inputs = golden_inputs(prepared(), network)
            write_golden(path, inputs, logit_error=ExposedLogits(path, inputs, network))
            size = path.stat().st_size
        sys.stdout.write(f"{folder / path.name}: {size} bytes\n")
    return 0


if __name__ == "__main__":
    run_command(main)
