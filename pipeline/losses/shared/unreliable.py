"""Pixels whose class nobody is sure of, as negatives of the classes that they are trusted not to be (U2PL).

Wang et al., "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels", CVPR 2022, arXiv 2203.03884,
section 3.3; here the negatives are of the batch, with a gradient, and the contrast is `info_nce`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.losses.shared.distributed import gather_batch, gather_rows, own_part, own_rank, world_size
from pipeline.losses.shared.gather import embeddings_at
from pipeline.losses.shared.info_nce import info_nce
from pipeline.losses.shared.resolution import nearest
from pipeline.models.network.head import Unprojected


@dataclass(frozen=True)
class Unreliable:
    """The unreliable pixels of a batch.

    Attributes:
        unlikely: `[B,C,H,W]` bool: classes that the pixel is trusted not to be; none where its class is known.
        most: most pixels that become negatives, over all ranks.
    """

    unlikely: Tensor
    most: int


def sample_unreliable(
    embeddings: Tensor | Unprojected, unreliable: Unreliable, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Embeddings of unreliable pixels drawn at random, without replacement, and what they are not.

    How many there are is not asked of the device: where there are too few, the rest are pixels that are no negatives.

    Args:
        embeddings: `[B,D,h,w]` float, or what they are projected from.
        unreliable: at any resolution.
        generator: source of the random choice, on the device of the embeddings.

    Returns:
        Rows `[U,D]` of all ranks' pixels, and `[U,C]` bool: the classes whose negatives they are.
    """
    height, width = embeddings.shape[-2:]
    unlikely = nearest(unreliable.unlikely.flatten(0, 1), (height, width)).unflatten(0, unreliable.unlikely.shape[:2])  # type: ignore[no-untyped-call]
    unlikely = unlikely.flatten(2).transpose(1, 2)  # [B,h*w,C]
    eligible = unlikely.any(dim=2).flatten()
    number = world_size() * len(eligible)
    random = own_part(torch.rand(number, generator=generator, device=eligible.device))
    chosen = gather_batch(random.where(eligible, -1)).topk(min(unreliable.most, number)).indices
    counts = [len(chosen)]
    if world_size() > 1:
        chosen = chosen.sort().values
        counts = torch.bincount(chosen // len(eligible), minlength=world_size()).tolist()
        start = sum(counts[: own_rank()])
        chosen = chosen[start : start + counts[own_rank()]] - own_rank() * len(eligible)
    image, pixel = chosen // (height * width), chosen % (height * width)
    rows = gather_rows(embeddings_at(embeddings, image, pixel), counts)
    return rows, gather_rows(unlikely[image, pixel].long(), counts).bool()


def info_nce_with_unreliable(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor | None,
    key_labels: Tensor | None,
    negatives: Tensor,
    negative_of: Tensor,
    *,
    temperature: float,
    base_temperature: float,
) -> Tensor:
    """`info_nce` with further negatives, each of the anchors of some classes only.

    Args:
        anchors: `[N,D]` float, unit norm over D.
        anchor_labels: `[N]` int64 in [0,C).
        keys: `[M,D]`, or None for the anchors themselves, as of `info_nce`.
        key_labels: `[M]` int64, negative for what is no key; given exactly when `keys` is.
        negatives: `[U,D]` float, unit norm over D.
        negative_of: `[U,C]` bool.
        temperature: tau, above 0.
        base_temperature: tau_base, above 0.

    Returns:
        As `info_nce`: an exact 0, with a gradient, where no anchor has a positive.
    """
    own = keys is None or key_labels is None
    keys, key_labels = (anchors, anchor_labels) if keys is None or key_labels is None else (keys, key_labels)
    among = torch.ones(len(anchors), len(keys), dtype=torch.bool, device=anchors.device)
    if own:
        among.fill_diagonal_(False)
    # No anchor has the class C: these keys are positives of nobody.
    no_class = key_labels.new_full((len(negatives),), negative_of.shape[1])
    return info_nce(
        anchors,
        anchor_labels,
        torch.cat([keys, negatives.to(keys.dtype)]),
        torch.cat([key_labels, no_class]),
        temperature=temperature,
        base_temperature=base_temperature,
        selection=torch.cat([among, negative_of.T[anchor_labels]], dim=1),
    )
