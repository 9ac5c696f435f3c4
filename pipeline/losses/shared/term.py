"""The one interface of every training method: what it taps, what it adds to the loss, what it logs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.network.head import Taps, TraineeOutput
from serving.contract.schema import Require


@dataclass(frozen=True)
class ContrastConfig:
    """Settings that every contrastive method has.

    Attributes:
        weight: factor of the contrast term beside the cross entropy.
        warmup_fraction: share of the iterations before the contrast starts; until then it is not computed.
        embedding_dim: D of the embeddings.
    """

    weight: float = 0.1
    warmup_fraction: float = 0.125
    embedding_dim: int = 256

    def __post_init__(self) -> None:
        require = Require()
        require(self.weight > 0, f"weight: expected above 0, got {self.weight}")
        require(0 <= self.warmup_fraction < 1, f"warmup_fraction: expected in [0, 1), got {self.warmup_fraction}")
        require(self.embedding_dim >= 1, f"embedding_dim: expected at least 1, got {self.embedding_dim}")
        require.done()


@dataclass(frozen=True)
class MethodLossOutput:
    """A method's contribution to one step.

    Attributes:
        loss: scalar float32, not yet weighted; an exact differentiable 0 when there is nothing to contrast.
        statistics: name -> detached 0-d tensor on the loss's device, averaged over the epoch by the loop (no host
            synchronisation inside the step). `anchors` (number of anchors of this step) is always among them.
    """

    loss: Tensor
    statistics: dict[str, Tensor] = field(default_factory=dict)


class MethodLoss(nn.Module, ABC):
    """A training method: the term it adds to the cross entropy. State that must survive a resume lives in buffers.

    Args:
        config: an instance of the class's own `Config`.
        num_classes: number of classes C.
        ignore_index: label outside every class.
        training_images: number of training images (bounds the default sizes of memory banks).
    """

    Config: ClassVar[type[Any]]
    taps: ClassVar[Taps]

    def __init__(self, config: Any, *, num_classes: int, ignore_index: int, training_images: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.training_images = training_images

    def build_heads(self, layers: int) -> nn.ModuleDict:
        """Learnable parts of the method beyond the projection heads, for `layers` tapped layers; none by default.

        They become training heads of the Trainee: optimised, saved and stripped with the projection heads.
        """
        return nn.ModuleDict()

    @abstractmethod
    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> MethodLossOutput:
        """The method's term for one batch.

        Args:
            output: logits and embeddings of the batch.
            labels: `[B,H,W]` int64, `ignore_index` outside the loss.
            heads: what `build_heads` gave, as trained so far.
            generator: source of every random choice, on the device of the embeddings.
        """
