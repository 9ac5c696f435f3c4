"""The one interface of every loss term: what it taps, what it adds to the supervised loss, what it logs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.network.head import Taps, TraineeOutput
from serving.contract.schema import Require


@dataclass(frozen=True)
class TermConfig:
    """Settings of every loss term that adds something; training calls a term if, and only if, its Config is one.

    Attributes:
        weight: factor of the term beside the supervised loss.
        warmup_fraction: share of the iterations before the term starts; until then it is not computed.
        end_fraction: share of the iterations after which the term is left out again; 1 for never.
    """

    weight: float = 1.0
    warmup_fraction: float = 0.0
    end_fraction: float = 1.0

    def __post_init__(self) -> None:
        require = Require()
        self.check(require)
        require.done()

    def check(self, require: Require) -> None:
        """Note what is wrong with the settings; a subclass adds what is wrong with its own."""
        require(self.weight > 0, f"weight: expected above 0, got {self.weight}")
        require(0 <= self.warmup_fraction < 1, f"warmup_fraction: expected in [0, 1), got {self.warmup_fraction}")
        require(0 < self.end_fraction <= 1, f"end_fraction: expected in (0, 1], got {self.end_fraction}")

    def active(self, iterations: int) -> range:
        """The iterations (from 0) of a training of `iterations` in which the term is computed; may be empty."""
        return range(round(self.warmup_fraction * iterations), round(self.end_fraction * iterations))


@dataclass(frozen=True)
class ContrastConfig(TermConfig):
    """Settings that every contrastive term has.

    Attributes:
        embedding_dim: D of the embeddings.
    """

    weight: float = 0.1
    warmup_fraction: float = 0.125
    embedding_dim: int = 256

    def check(self, require: Require) -> None:
        """See `TermConfig.check`."""
        super().check(require)
        require(self.embedding_dim >= 1, f"embedding_dim: expected at least 1, got {self.embedding_dim}")


@dataclass(frozen=True)
class TermOutput:
    """What a term adds to one step.

    Attributes:
        loss: scalar float32, not yet weighted; an exact differentiable 0 when there is nothing to be lost.
        statistics: name -> detached 0-d tensor on the loss's device, averaged over the epoch by the loop (no host
            synchronisation inside the step). A contrastive term's `anchors` (number of anchors of this step) is always
            among them.
    """

    loss: Tensor
    statistics: dict[str, Tensor] = field(default_factory=dict)


class LossTerm(nn.Module, ABC):
    """What a method's `loss` names: a term beside the supervised loss.

    State that must survive a resume lies in buffers.

    Args:
        config: an instance of the class's own `Config`.
        num_classes: number of classes C.
        ignore_index: label outside every class.
        training_images: number of training images (bounds the default sizes of memory banks).

    Class attributes:
        Config: frozen dataclass of the term's settings: a `ContrastConfig` where it taps features, else a `TermConfig`.
        taps: which features are projected to the embeddings that it gets.
        takes_unreliable: whether `forward` has a further argument `unreliable` (`pipeline.losses.shared.unreliable`),
            which it is called with where a mean teacher gives unreliable pixels.
    """

    Config: ClassVar[type[Any]]
    taps: ClassVar[Taps] = Taps.NONE
    takes_unreliable: ClassVar[bool] = False

    def __init__(self, config: Any, *, num_classes: int, ignore_index: int, training_images: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.training_images = training_images

    def build_heads(self, layers: int) -> nn.ModuleDict:
        """Learnable parts of the term beyond the projection heads, for `layers` tapped layers; none by default.

        They become training heads of the Trainee: optimised, saved and stripped with the projection heads.
        """
        return nn.ModuleDict()

    @abstractmethod
    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> TermOutput:
        """The term for one batch.

        Args:
            output: logits and embeddings of the batch.
            labels: `[B,H,W]` int64, `ignore_index` outside the loss.
            heads: what `build_heads` gave, as trained so far.
            generator: source of every random choice, on the device of the logits.
        """
