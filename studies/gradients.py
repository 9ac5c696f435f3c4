"""`python -m studies.gradients --recipe camvid-cpu`: how hard does the contrast pull, and where to?

A contrast changes the network that ships only through its gradient at what ships. Of every run of a study, at its last
weights and on batches of its training, this measures on the segmentor's parameters:

- `ratio`: norm of the weighted contrast's gradient over that of the cross entropy's;
- `cosine`: between the two: 1 pulls the same way, 0 asks for something else, below 0 against it;
- `through`: share of the contrast's gradient (squared norm, segmentor and training heads together) that reaches the
  segmentor at all; the rest moves the projections, which do not ship.

Written to docs/results/<recipe>-gradients.json. The runs' weights must still be under runs/study.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pipeline.compute.devices import use_threads
from pipeline.compute.random_streams import stream_seed
from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.data.reading.batches import TrainingBatches
from pipeline.layout.branches import branch_name
from pipeline.losses.shared.term import LossTerm
from pipeline.losses.supervised.cross_entropy import segmentation_loss
from pipeline.models.training_heads.trainee import Trainee
from pipeline.params import Params
from pipeline.training.assembly import build_loss_term
from pipeline.training.checkpoints import load_trainee
from pipeline.training.experiment import class_weights
from serving.contract.command import program_name
from serving.contract.errors import run_command
from serving.contract.files import write_json
from studies.record import RESULTS_DIR, WORK_DIR
from studies.study import open_prepared, study_name, study_params


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient of `loss` on all parameters as one float64 vector; zeros where it does not reach."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    flat = [
        (torch.zeros_like(parameter) if gradient is None else gradient).flatten()
        for gradient, parameter in zip(found, parameters, strict=True)
    ]
    return torch.cat(flat).double()


def compare(cross_entropy: Tensor, contrast: Tensor, heads: Tensor) -> dict[str, float]:
    """Two gradients on the segmentor, and the contrast's on the training heads, beside each other.

    Args:
        cross_entropy: `[P]` float64 on the segmentor's parameters.
        contrast: the same of the weighted contrast.
        heads: `[Q]` float64 on those of the training heads.
    """
    inner, outer = float(contrast.norm()), float(heads.norm())
    return {
        "ratio": inner / float(cross_entropy.norm()),
        "cosine": float(torch.dot(cross_entropy, contrast)) / (inner * float(cross_entropy.norm())),
        "through": inner**2 / (inner**2 + outer**2),
    }


def measure(
    trainee: Trainee,
    term: LossTerm,
    weight: float,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    class_weights: Tensor | None,
    ignore_index: int,
    seed: int,
) -> dict[str, float]:
    """Medians of `compare` over batches; the trainee is left with other batch statistics.

    Args:
        trainee: with the training heads of `term`.
        term: the contrast. Memory banks fill as the batches go by.
        weight: of the contrast's term.
        batches: as in training; images are multiples of the stride.
        class_weights: `[C]` of the cross entropy; None weighs all classes alike.
        ignore_index: label outside every class.
        seed: of what the contrast draws.
    """
    trainee.train()
    shared = list(trainee.segmentor.parameters())
    heads = [value for name, value in trainee.named_parameters() if not name.startswith("segmentor.")]
    generator = torch.Generator()
    rows = []
    for index, (images, labels) in enumerate(batches):
        output = trainee(trainee.segmentor.normalise(images), embed=True)
        loss = segmentation_loss(
            output.logits, labels, ignore_index=ignore_index, class_weights=class_weights, auxiliary_weight=0.0
        )
        generator.manual_seed(stream_seed(f"gradients {index}", seed))
        contrast = weight * term(output, labels, heads=trainee.term_heads, generator=generator).loss
        rows.append(compare(gradients(loss, shared), gradients(contrast, shared), gradients(contrast, heads)))
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def of_run(params: Params, prepared: Prepared, study: str, method: str, seed: int, count: int) -> dict[str, float]:
    """The measurements of one run."""
    trainee, info = load_trainee(WORK_DIR / study / branch_name(method, seed), params.train.checkpoint)
    training = prepared.split("train")
    config = params.methods[method]
    term = build_loss_term(
        config, num_classes=info.num_classes, ignore_index=info.ignore_index, training_images=len(training)
    )
    batches = TrainingBatches(
        training,
        params.train.augment,
        batch_size=params.train.batch_size,
        iterations=count,
        seed=stream_seed("gradients", seed),
        start_iteration=0,
        workers=params.train.workers or 0,
    )
    return measure(
        trainee,
        term,
        config.settings.weight,
        itertools.islice(batches, count),
        class_weights=class_weights(prepared, params.train, torch.device("cpu")),
        ignore_index=info.ignore_index,
        seed=seed,
    )


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog=program_name("studies.gradients"), description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--over", type=Path, help="as of studies.study")
    parser.add_argument("--methods", nargs="+", help="default: those of the recipe")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of the recipe")
    parser.add_argument("--batches", type=int, default=12, help="training batches per run (default 12)")
    arguments = parser.parse_args()
    params = study_params(arguments.recipe, arguments.methods, arguments.seeds, arguments.over)
    study = study_name(arguments.recipe, arguments.over)
    prepared = open_prepared(params, study)
    use_threads(params.train.threads)
    rows = []
    for method, seed in ((branch.method, branch.seed) for branch in params.branches.values()):
        if not params.methods[method].is_contrastive:
            continue
        row = of_run(params, prepared, study, method, seed, arguments.batches)
        rows.append({"method": method, "seed": seed} | row)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in row.items())
        sys.stdout.write(f"{branch_name(method, seed)}: {shown}\n")
        sys.stdout.flush()
    write_json(RESULTS_DIR / f"{study}-gradients.json", {"batches": arguments.batches, "rows": rows})
    return 0


if __name__ == "__main__":
    run_command(main)
