"""What passes between backbone, head, training heads and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
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
class Unprojected:
    """Embeddings of a tapped layer before the last, linear layer of their projection, which runs where they are wanted.

    A loss that samples pixels wants few of them, while that layer and the normalisation after it, run everywhere, take
    most of a projection's time.

    Attributes:
        hidden: `[B,C,h,w]`, what the linear layer reads.
        weight: `[D,C,1,1]` of that layer.
        bias: `[D]` of that layer.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def shape(self) -> torch.Size:
        """That of the embeddings, `[B,D,h,w]`."""
        return torch.Size((len(self.hidden), len(self.weight), *self.hidden.shape[2:]))

    def __getitem__(self, images: slice) -> Unprojected:
        """Those of some images of the batch."""
        return Unprojected(self.hidden[images], self.weight, self.bias)

    def everywhere(self) -> Tensor:
        """Unit-norm `[B,D,h,w]`."""
        dtype = self.hidden.dtype  # as under autocast, also where it is off by now
        return normalised(F.conv2d(self.hidden, self.weight.to(dtype), self.bias.to(dtype)))

    def of(self, rows: Tensor) -> Tensor:
        """Unit-norm `[N,D]` of some pixels' rows `[N,C]` of `hidden`."""
        return normalised(F.linear(rows, self.weight.flatten(1).to(rows.dtype), self.bias.to(rows.dtype)))


def normalised(embeddings: Tensor) -> Tensor:
    """Embeddings at unit norm over their second axis, in at least float32: half precision would round the norm."""
    return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)


@dataclass(frozen=True)
class TraineeOutput:
    """What one training forward gives.

    Attributes:
        logits: auxiliary are those of the head's own auxiliary classifiers, then that of the training-only one.
        embeddings: unit-norm `[B,D,h_i,w_i]` per tapped layer, or what they are projected from; shallow to deep, empty
            while the contrast is off.
        head_input: `[B,c,h,w]`, what the head reads, as it is.
    """

    logits: Logits
    embeddings: tuple[Tensor | Unprojected, ...] = ()
    head_input: Tensor | None = None
