"""Strip the training heads off one branch: `python -m pipeline.stages.strip --method pixel_contrast --seed 0`."""

from __future__ import annotations

import argparse
import dataclasses

import torch

from pipeline.layout.arguments import add_branch_arguments, named_branch
from pipeline.layout.branches import branch_name
from pipeline.layout.paths import stripped_dir, trained_dir
from pipeline.models.network.weights import save_segmentor, tensors_sha256
from pipeline.models.training_heads.trainee import StripError, strip
from pipeline.params import load_params
from pipeline.training.checkpoints import load_trainee
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command


def main() -> int:
    """Take the segmentor out of the trainee, prove that its logits are unchanged to the bit, and save it."""
    parser = argparse.ArgumentParser(prog=program_name("pipeline.stages.strip"), description=__doc__)
    add_branch_arguments(parser)
    arguments = parser.parse_args()
    params = load_params()
    method, seed = named_branch(arguments, params.branches, params.methods)
    torch.set_num_threads(params.train.threads)
    trainee, info = load_trainee(trained_dir(method, seed), params.train.checkpoint)
    size = 4 * trainee.segmentor.stride
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255
    try:
        segmentor = strip(trainee, trainee.segmentor.normalise(images))
    except StripError as error:
        raise UserError(f"{branch_name(method, seed)}: {error}") from None
    provenance = info.provenance | {"weights_sha256": tensors_sha256(segmentor.state_dict())}
    save_segmentor(
        segmentor,
        dataclasses.replace(info, provenance=provenance),
        stripped_dir(method, seed),
    )
    return 0


if __name__ == "__main__":
    run_command(main)
