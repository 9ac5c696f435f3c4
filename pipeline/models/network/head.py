"""What passes between backbone, head, training heads and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from torch import Tensor, nn

from pipeline.models.network.catalog import Family


class Taps(Enum):
    """Which features a method projects to embeddings."""

    NONE = "none"
    HEAD_INPUT = "head_input"  # one tensor: what the head reads (ContrastiveSeg)
    STAGES = "stages"  # every encoder stage, shallow to deep (Contextrast)


@dataclass(frozen=True)
class HeadOutput:
    """What a head gives.

    Attributes:
        logits: `[B,C,h,w]` float at the head's output stride, before upsampling.
        input: `[B,c,h,w]`, the single tensor tapped by `Taps.HEAD_INPUT`.
        auxiliary_logits: logits of classifiers that feed the main one and therefore ship (OCR's), `[B,C,h',w']`.
    """

    logits: Tensor
    input: Tensor
    auxiliary_logits: tuple[Tensor, ...] = ()


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
        logits: `[B,C,h,w]` float at the head's output stride, before upsampling.
        stages: encoder features, shallow to deep, `[B,C_i,h_i,w_i]`.
        head_input: `[B,C,h,w]`, the single tensor tapped by `Taps.HEAD_INPUT`.
        auxiliary_logits: logits of classifiers that ship with the head (OCR's), `[B,C,h',w']`; usually empty.
    """

    logits: Tensor
    stages: tuple[Tensor, ...]
    head_input: Tensor
    auxiliary_logits: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class TraineeOutput:
    """What one training forward gives.

    Attributes:
        logits: `[B,C,h,w]` float at the head's output stride.
        auxiliary_logits: further logits for the training loss, `[B,C,h',w']` each: those of the head's own auxiliary
            classifiers (OCR's, which ships), then that of the training-only one; may be empty.
        embeddings: unit-norm `[B,D,h_i,w_i]` per tapped layer, shallow to deep; empty while the contrast is off.
    """

    logits: Tensor
    auxiliary_logits: tuple[Tensor, ...] = ()
    embeddings: tuple[Tensor, ...] = field(default=())
