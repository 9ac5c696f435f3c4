"""Every loss of one batch, by one process or by two ranks with half of it each.

As a program, one of the two ranks: python -m tests.pipeline.losses.shared.global_batch RANK FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses import LOSSES
from pipeline.losses.shared.distillation import logit_distillation, similarity_distillation
from pipeline.losses.shared.distributed import own_part
from pipeline.losses.shared.pseudo_labels import PseudoLabels, pseudo_label_loss
from pipeline.losses.shared.unreliable import Unreliable
from pipeline.losses.supervised import SUPERVISED
from pipeline.losses.supervised.term import LabelledLogits, Supervision
from pipeline.models.network.head import Logits, TraineeOutput

CLASSES, DIM, IMAGES = 4, 8, 4
ANCHORS = {"max_views": 3, "max_samples": 300, "embedding_dim": DIM}
LAYERS = {"embedding_dim": DIM, "positives_per_class": 20}
TERMS: dict[str, tuple[str, dict[str, object]]] = {
    "pixel_contrast": ("pixel_contrast", ANCHORS),
    "pixel_contrast, few samples": ("pixel_contrast", {**ANCHORS, "max_samples": 5}),
    "pixel_contrast, region": ("pixel_contrast", {**ANCHORS, "memory": "region"}),
    "pixel_contrast, pixel": ("pixel_contrast", {**ANCHORS, "memory": "pixel"}),
    "pixel_contrast, both": ("pixel_contrast", {**ANCHORS, "memory": "both"}),
    "pixel_contrast, semi-hard": ("pixel_contrast", {**ANCHORS, "memory": "both", "semi_hard": True}),
    "pixel_contrast, unreliable": ("pixel_contrast", ANCHORS),
    "pixel_contrast, unreliable and both": ("pixel_contrast", {**ANCHORS, "memory": "both"}),
    "contextrast": ("contextrast", LAYERS),
    "contextrast, predicted": ("contextrast", {**LAYERS, "negatives": "predicted"}),
    "contextrast_pp": ("contextrast_pp", LAYERS),
}
BATCHES = {"all": slice(None), "no anchor on the first rank": slice(2), "nothing labelled": slice(4)}
DTYPES = {"float64": torch.float64, "float32": torch.float32}

Result = dict[str, Tensor]
"""The loss, `gradient of ...` (`gradients of the parameters` is a mean over ranks), statistics and states."""


def compute(dtype: torch.dtype) -> dict[str, Result]:
    """Everything, of this process's part of the batches."""
    results: dict[str, Result] = {}
    for batch, unlabelled in BATCHES.items():
        for name in TERMS:
            results[f"{name}; {batch}"] = term_result(name, unlabelled, dtype)
        for weighted in (False, True):
            results |= {
                f"{name}{', class weights' * weighted}; {batch}": supervised_result(name, unlabelled, weighted, dtype)
                for name in SUPERVISED
            }
        results[f"distillation; {batch}"] = distillation_result(unlabelled, dtype)
        results[f"pseudo labels; {batch}"] = pseudo_label_result(unlabelled, dtype)
    return results


def labels_of(unlabelled: slice, step: int) -> Tensor:
    """Labels of coarse blocks, of which a slice of the images has none."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, CLASSES, (IMAGES, 6, 8), generator=generator)
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[:, :5] = 255
    if unlabelled != slice(None):
        labels[unlabelled] = 255
    return labels


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """This process's part of random numbers `[IMAGES,...]`, that want a gradient."""
    numbers = torch.randn(IMAGES, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return own_part(numbers.to(dtype)).clone().requires_grad_()


def gradient_of(tensor: Tensor) -> Tensor:
    """Its gradient; zeros without one."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def term_result(name: str, unlabelled: slice, dtype: torch.dtype) -> Result:
    """Two steps of a loss term, so that the second meets what the first stored."""
    loss, options = TERMS[name]
    of_loss = LOSSES.resolve(loss)
    term = of_loss(of_loss.Config(**options), num_classes=CLASSES, ignore_index=255, training_images=12).to(dtype)
    torch.manual_seed(0)
    heads = term.build_heads(4).to(dtype)
    for parameter in heads.parameters():
        nn.init.normal_(parameter, std=0.1)  # some start at 0
    result: Result = {}
    for step in range(2):
        labels = own_part(labels_of(unlabelled, step))
        count = 1 if loss == "pixel_contrast" else 4
        features = [random(DIM, 12 >> i, 16 >> i, dtype=dtype, seed=10 * step + i) for i in range(count)]
        logits = random(CLASSES, 12, 16, dtype=dtype, seed=100 + step)
        further = {}
        if "unreliable" in name:
            unlikely = random(CLASSES, *labels.shape[1:], dtype=dtype, seed=7) > 0.5
            further["unreliable"] = Unreliable(unlikely & (labels == 255)[:, None], 30)
        output = TraineeOutput(Logits(logits), tuple(F.normalize(each, dim=1) for each in features))
        generator = torch.Generator().manual_seed(step)
        given = term(output, labels, heads=heads, generator=generator, **further)
        given.loss.backward()
        result[f"loss {step}"] = given.loss.detach()
        result |= {f"gradient of features {i}, step {step}": gradient_of(each) for i, each in enumerate(features)}
        # Of a coarse layer each rank shows another selection of its rows.
        sampled = ("alignment", "uniformity") if loss != "pixel_contrast" else ()
        result |= {f"{key} {step}": value for key, value in given.statistics.items() if key not in sampled}
        result[f"draws {step}"] = generator.get_state()
    result |= {f"gradients of the parameters, {key}": gradient_of(value) for key, value in heads.named_parameters()}
    return result | {f"state {key}": value.clone() for key, value in term.state_dict().items()}


def supervised_result(name: str, unlabelled: slice, weighted: bool, dtype: torch.dtype) -> Result:
    """A supervised term."""
    weights = torch.tensor([0.5, 1.0, 2.0, 0.7], dtype=dtype) if weighted else None
    of_name = SUPERVISED.resolve(name)
    term = of_name(of_name.Config(), Supervision(255, weights))
    logits = [random(CLASSES, 12, 16, dtype=dtype, seed=i) for i in range(2)]
    loss = term(LabelledLogits(Logits(logits[0], (logits[1],)), own_part(labels_of(unlabelled, 0)), 255))
    loss.backward()
    gradients = {f"gradient of logits {i}": each.grad for i, each in enumerate(logits) if each.grad is not None}
    return {"loss": loss.detach(), **gradients}


def distillation_result(unlabelled: slice, dtype: torch.dtype) -> Result:
    """Both parts of distillation."""
    labels = own_part(labels_of(unlabelled, 0))
    labels = labels.where(labels != 255, -1)
    features, logits = random(DIM, 12, 16, dtype=dtype), random(CLASSES, 12, 16, dtype=dtype, seed=1)
    teacher, teacher_logits = random(5, 6, 8, dtype=dtype, seed=2), random(CLASSES, 6, 8, dtype=dtype, seed=3)
    divergence = logit_distillation(logits, teacher_logits.detach(), labels, temperature=2.0)
    similarity = similarity_distillation(
        features,
        teacher.detach(),
        labels,
        logits,
        temperature=0.1,
        max_samples=100,
        max_views=10,
        generator=torch.Generator().manual_seed(0),
    )
    (divergence + similarity).backward()
    return {
        "divergence": divergence.detach(),
        "similarity": similarity.detach(),
        "gradient of features": gradient_of(features),
        "gradient of logits": gradient_of(logits),
    }


def pseudo_label_result(unlabelled: slice, dtype: torch.dtype) -> Result:
    """The loss of a teacher's classes."""
    labels = own_part(labels_of(unlabelled, 0))
    logits = random(CLASSES, 12, 16, dtype=dtype)
    target = PseudoLabels(labels.where(labels != 255, -1), torch.ones_like(labels, dtype=torch.bool))
    loss = pseudo_label_loss(logits, target)
    loss.backward()
    return {"loss": loss.detach(), "gradient of logits": gradient_of(logits)}


def main(rank: int, folder: Path) -> None:
    """Compute this rank's half, and save what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=2)
    torch.save({name: compute(dtype) for name, dtype in DTYPES.items()}, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
