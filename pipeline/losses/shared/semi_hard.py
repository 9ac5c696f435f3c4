"""Semi-hard selection of keys: at random among the hardest of an anchor (Wang et al. 2021, section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.losses.shared.info_nce import Selected


class SemiHard:
    """A `Selector` that takes, for every anchor, some of its hardest positives and negatives.

    The pool of an anchor is the hardest `hardest` of its candidates (rounded up): the positives it is least similar to,
    the negatives it is most similar to. From each pool the wanted number is drawn at random, without replacement; a
    smaller pool is taken whole.

    Args:
        positives: positives wanted per anchor.
        negatives: negatives wanted per anchor.
        hardest: share of the candidates that make up a pool, in (0,1].
        most_positives: a bound on any anchor's positives, where one is known without asking the device (it saves
            work); None for the number of keys.
        generator: source of the random choice, on the device of the similarities.
    """

    def __init__(
        self,
        *,
        positives: int,
        negatives: int,
        hardest: float,
        generator: torch.Generator,
        most_positives: int | None = None,
    ) -> None:
        self.positives = positives
        self.negatives = negatives
        self.hardest = hardest
        self.generator = generator
        self.most_positives = most_positives

    def __call__(self, similarities: Tensor, positives: Tensor, negatives: Tensor) -> Selected:
        """Select for one chunk of anchors; see `info_nce.Selector`."""
        keys = similarities.shape[1]
        most_positives = keys if self.most_positives is None else min(keys, self.most_positives)
        drawn = [
            self._draw(-similarities, positives, self.positives, most_positives),
            self._draw(similarities, negatives, self.negatives, keys),
        ]
        return Selected(torch.cat([part.position for part in drawn], 1), torch.cat([part.chosen for part in drawn], 1))

    def _draw(self, hardness: Tensor, candidates: Tensor, wanted: int, most_candidates: int) -> Selected:
        longest = math.ceil(self.hardest * most_candidates)
        ranked = hardness.masked_fill(~candidates, -torch.inf).topk(longest, dim=1).indices
        pool = (candidates.sum(dim=1, keepdim=True).double() * self.hardest).ceil()
        random = torch.rand(ranked.shape, generator=self.generator, device=ranked.device)
        random.masked_fill_(torch.arange(longest, device=ranked.device) >= pool, 2)  # behind everything drawn
        drawn = random.topk(min(wanted, longest), dim=1, largest=False, sorted=False)
        return Selected(ranked.gather(1, drawn.indices), drawn.values < 2)
