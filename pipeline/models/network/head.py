"""What passes between backbone, head, training heads and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from torch import Tensor, nn

from pipeline.models.network.catalog import Family


class Taps(Enum):
    """Which features a loss term gets as embeddings."""

    NONE = "none"
    HEAD_INPUT = "head_input"  # one tensor: what the head reads (ContrastiveSeg)
    STAGES = "stages"  # every encoder stage, shallow to deep (Contextrast)


@dataclass(frozen=True)
class Logits:
    """What the classifiers say of a batch.

    Attributes:
        main: `[B,C,h,w]` float at the head's output stride, before upsampling: what becomes the mask.
        auxiliary: logits of further classifiers, which only the training loss reads, `[B,C,h',w']` each; may be empty.
    """

    main: Tensor
    auxiliary: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class HeadOutput:
    """What a head gives.

    Attributes:
        logits: auxiliary are those of classifiers that feed the main one and therefore ship (OCR's).
        input: `[B,c,h,w]`, the single tensor tapped by `Taps.HEAD_INPUT`.
    """

    logits: Logits
    input: Tensor


class Head(nn.Module, ABC):
    """From encoder stages to logits. Ships whole.

    Args:
        config: an instance of the class's own `Config`.
        channels: channels of the encoder stages, shallow to deep.
        strides: their strides.
        num_classes: number of classes C.

    Class attributes:
        Config: frozen dataclass of the head's settings.
        families: kinds of backbone that it goes with.
        dilated: made for a backbone whose deepest stages are dilated instead of strided.
        auxiliary_stage: index of the encoder stage that an auxiliary FCN classifier reads in training, or None.

    Attributes:
        output_stride: stride of the logits.
        input_channels: channels of `HeadOutput.input`.
    """

    Config: ClassVar[type[Any]]
    families: ClassVar[frozenset[Family]]
    dilated: ClassVar[bool] = False
    auxiliary_stage: ClassVar[int | None] = None

    output_stride: int
    input_channels: int

    def __init__(self, config: Any, *, channels: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, stages: Sequence[Tensor]) -> HeadOutput:
        """Logits of the encoder stages `[B,C_i,h_i,w_i]`, shallow to deep."""


@dataclass(frozen=True)
class SegmentorFeatures:
    """Everything a training head may tap.

    Attributes:
        stages: encoder features, shallow to deep, `[B,C_i,h_i,w_i]`.
        head: what the head made of them.
    """

    stages: tuple[Tensor, ...]
    head: HeadOutput


@dataclass(frozen=True)
class TraineeOutput:
    """What one training forward gives.

    Attributes:
        logits: auxiliary are those of the head's own auxiliary classifiers, then that of the training-only one.
        embeddings: unit-norm `[B,D,h_i,w_i]` per tapped layer, shallow to deep; empty while the contrast is off.
        head_input: `[B,c,h,w]`, what the head reads, as it is.
    """

    logits: Logits
    embeddings: tuple[Tensor, ...] = ()
    head_input: Tensor | None = None
