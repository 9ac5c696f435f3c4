"""Strip the training heads off one branch: `python -m pipeline.stages.strip --method pixel_contrast --seed 0`."""

from __future__ import annotations

import argparse
import dataclasses

import torch

from pipeline.artifacts import branch_name, stripped_dir, trained_dir
from pipeline.checkpoints import load_trainee
from pipeline.config.params import load_params
from pipeline.models.trainee import StripError, strip
from pipeline.weights import save_segmentor, tensors_sha256
from serving.errors import UserError, run_command


def main() -> int:
    """Take the segmentor out of the trainee, prove that its logits are unchanged to the bit, and save it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.stages.strip", description=__doc__)
    parser.add_argument("--method", required=True, help="a name from the section `methods` of params.yaml")
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    params = load_params()
    torch.set_num_threads(params.train.threads)
    trainee, info = load_trainee(trained_dir(arguments.method, arguments.seed), params.train.checkpoint)
    size = 4 * trainee.segmentor.stride
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 255
    try:
        segmentor = strip(trainee, trainee.segmentor.normalise(images))
    except StripError as error:
        raise UserError(f"{branch_name(arguments.method, arguments.seed)}: {error}") from None
    provenance = info.provenance | {"weights_sha256": tensors_sha256(segmentor.state_dict())}
    save_segmentor(
        segmentor,
        dataclasses.replace(info, provenance=provenance),
        stripped_dir(arguments.method, arguments.seed),
    )
    return 0


if __name__ == "__main__":
    run_command(main)
