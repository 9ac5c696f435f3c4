"""What a larger network knows, handed on: its probabilities, and how similar it finds pixels.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531; Yang et al., "Cross-Image
Relational Knowledge Distillation for Semantic Segmentation", CVPR 2022, arXiv 2204.06986, equations 2 to 4, whose
pixels are sampled here as the contrast samples its anchors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.shared.distributed import gather_rows, sum_over_ranks
from pipeline.losses.shared.gather import gather_pixels
from pipeline.losses.shared.resolution import NO_CLASS, log_probabilities_at, nearest, predicted_classes
from pipeline.losses.shared.sampling import sample_anchors


def logit_distillation(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """temperature^2 * mean over labelled cells of KL(softmax(teacher / temperature) || softmax(student / temperature)).

    Cells are those of the student's logits; the teacher's are brought there bilinearly.

    Args:
        student: `[B,C,h,w]` float logits.
        teacher: `[B,C,h',w']` float logits; no gradient.
        labels: `[B,H,W]` int64; a cell counts where its nearest pixel has a class, that is, is not negative.
        temperature: above 0; the higher, the more the less probable classes count.

    Returns:
        Scalar, float32 or wider; an exact, differentiable 0 without a labelled cell.
    """
    cells = nearest(labels, (student.shape[2], student.shape[3])) >= 0
    student = student.to(torch.promote_types(student.dtype, torch.float32))
    with torch.no_grad():
        # A bilinear mean of quotients is the quotient of the bilinear mean.
        wanted = log_probabilities_at(teacher.to(student.dtype) / temperature, cells)
    found = F.log_softmax(student / temperature, dim=1)
    divergence = (wanted.exp() * (wanted - found)).sum(dim=1)
    return temperature**2 * sum_over_ranks((divergence * cells).sum()) / sum_over_ranks(cells.sum()).clamp(min=1)


def similarity_distillation(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    logits: Tensor,
    *,
    temperature: float,
    max_samples: int,
    max_views: int,
    generator: torch.Generator,
) -> Tensor:
    """Mean over sampled pixels of KL between the teacher's and the student's similarities to all the others.

    For pixels i and j of the batch, s_ij = cos(f_i, f_j) / temperature; the loss is the mean over i of
    KL(softmax over j != i of the teacher's s_ij || the same of the student's). Only similarities are compared: the
    features of both may have any number of channels.

    Args:
        student: `[B,D,h,w]` float features.
        teacher: `[B,D',h',w']` float features, brought to the student's cells bilinearly; no gradient.
        labels: `[B,H,W]` int64, negative outside every class.
        logits: `[B,C,h'',w'']` of the student: pixels that it gets wrong are sampled first, as anchors are.
        temperature: tau of the similarities, above 0.
        max_samples: most pixels per batch, over all ranks.
        max_views: most pixels per image and class; smaller classes give what they have.
        generator: source of the random choice, on the device of the labels.

    Returns:
        Scalar, float32 or wider; an exact 0, with a gradient, with fewer than three pixels: two have no choice.
    """
    size = (student.shape[2], student.shape[3])
    chosen = sample_anchors(
        nearest(labels, size),
        nearest(predicted_classes(logits), size),
        max_samples=max_samples,
        max_views=max_views,
        ignore_index=NO_CLASS,
        generator=generator,
        min_pixels=1,
    )
    found = gather_pixels(student, chosen.image, chosen.pixel)
    found = gather_rows(found.to(torch.promote_types(found.dtype, torch.float32)), chosen.counts)
    if len(found) < 3:
        return 0 * found.sum() + 0 * student.sum().to(found.dtype)
    with torch.no_grad():
        teacher = teacher.to(found.dtype)
        if teacher.shape[-2:] != size:
            teacher = F.interpolate(teacher, size=size, mode="bilinear", align_corners=False)
        wanted_rows = gather_rows(gather_pixels(teacher, chosen.image, chosen.pixel), chosen.counts)
        wanted = _log_similarities(wanted_rows, temperature)
    return (wanted.exp() * (wanted - _log_similarities(found, temperature))).sum(dim=1).mean()


def _log_similarities(rows: Tensor, temperature: float) -> Tensor:
    """`[N,D]` -> `[N,N-1]`: log softmax of every row's similarities to all the others."""
    rows = F.normalize(rows, dim=1)
    similarities = rows @ rows.T / temperature
    # Without the diagonal: of N x N numbers in a row, every (N + 1)-th is on it.
    count = len(rows)
    others = similarities.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)
    return F.log_softmax(others, dim=1)
