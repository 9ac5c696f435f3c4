"""What passes between backbone, head, training heads and losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor


class Taps(Enum):
    """Which features a method projects to embeddings."""

    NONE = "none"
    HEAD_INPUT = "head_input"  # one tensor: what the head reads (ContrastiveSeg)
    STAGES = "stages"  # every encoder stage, shallow to deep (Contextrast)


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
        auxiliary_logits: logits that only training uses, `[B,C,h',w']` each; may be empty.
        embeddings: unit-norm `[B,D,h_i,w_i]` per tapped layer, shallow to deep; empty while the contrast is off.
    """

    logits: Tensor
    auxiliary_logits: tuple[Tensor, ...] = ()
    embeddings: tuple[Tensor, ...] = field(default=())
