"""The one interface of every supervised term, and the batch that all of them read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from pipeline.losses.shared.resolution import log_probabilities_at as log_probabilities_at
from pipeline.models.network.head import Logits
from serving.contract.schema import Require


@dataclass(frozen=True)
class SupervisedConfig:
    """Settings of every supervised term.

    Attributes:
        weight: factor of the term in the loss; 0 leaves it out of the loss and in the curves.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        require = Require()
        self.check(require)
        require.done()

    def check(self, require: Require) -> None:
        """Note what is wrong with the settings; a subclass adds what is wrong with its own."""
        require(self.weight >= 0, f"weight: expected at least 0, got {self.weight}")


@dataclass(frozen=True)
class Supervision:
    """What all supervised terms of a training share.

    Attributes:
        ignore_index: label that counts nowhere.
        class_weights: `[C]` float32 weights of the per-pixel cross entropies, or None for equal ones.
        auxiliary_weight: factor of every auxiliary classifier's cross entropy.
    """

    ignore_index: int
    class_weights: Tensor | None = None
    auxiliary_weight: float = 0.4


class LabelledLogits:
    """A batch's logits beside its labels; what several terms read is computed once, when the first asks for it.

    Everything is float32 or wider. Build and use it outside autocast.

    Args:
        logits: main `[B,C,h,w]` and auxiliary, each at its own resolution.
        labels: `[B,H,W]` int64; every label but `ignore_index` is in [0,C).
        ignore_index: label that counts nowhere.
    """

    def __init__(self, logits: Logits, labels: Tensor, ignore_index: int) -> None:
        self.logits = logits
        self.labels = labels
        self.ignore_index = ignore_index

    @cached_property
    def labelled(self) -> Tensor:
        """`[B,H,W]` bool: whether the pixel counts."""
        return self.labels != self.ignore_index

    @cached_property
    def class_index(self) -> Tensor:
        """`[B,H,W]` int64: the labels, with 0 where the pixel does not count."""
        return self.labels.where(self.labelled, 0)

    @cached_property
    def log_probabilities(self) -> Tensor:
        """`[B,C,H,W]`: log softmax of the main logits, upsampled to the labels."""
        return log_probabilities_at(self.logits.main, self.labels)

    @cached_property
    def log_likelihoods(self) -> Tensor:
        """`[B,H,W]`: log probability of the pixel's label; of class 0, and to be masked, where it does not count."""
        return self.log_probabilities.gather(1, self.class_index[:, None]).squeeze(1)


class SupervisedTerm(ABC):
    """A loss of logits by labels; it has neither state nor anything to learn.

    Args:
        config: an instance of the class's own `Config`.
        supervision: what all terms of the training share.
    """

    Config: ClassVar[type[SupervisedConfig]]

    def __init__(self, config: Any, supervision: Supervision) -> None:
        self.config = config
        self.supervision = supervision

    @abstractmethod
    def __call__(self, batch: LabelledLogits) -> Tensor:
        """The loss of one batch: a scalar, float32 or wider, not yet weighted; called outside autocast.

        An exact, differentiable 0 when no pixel counts.
        """
