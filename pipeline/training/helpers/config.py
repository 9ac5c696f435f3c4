"""Settings of the helpers, keys of a method in params.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from serving.contract.schema import Require


@dataclass(frozen=True)
class MeanTeacherConfig:
    """How unlabelled images are learned from.

    Attributes:
        weight: factor of their loss beside the supervised one.
        confidence: least probability at which the teacher's class of a pixel is believed.
        decay: of the teacher's weights per iteration; it starts lower, at (1 + n) / (10 + n) after n iterations.
        unlabelled_batch_size: unlabelled crops per batch; None for as many as labelled ones (`train.batch_size`).
        colour: brightness, contrast and saturation of the student's view are drawn from 1 ± this.
        cutmix: probability that a box of a crop of the student's view is replaced by that of another one.
        contrast: whether the method's loss term gets the unlabelled crops too, with the teacher's classes for labels:
            a contrast then samples its anchors, and fills its bank, from confident pixels too, and from no others.
        unreliable_negatives: most pixels per batch that the teacher is not sure of and that stand as negatives for the
            anchors of classes that they are trusted not to be; 0 for none. Pixel contrast takes them.
        unlikely_rank: such a pixel is trusted not to be a class that at least this many others are more probable than.
    """

    weight: float = 1.0
    confidence: float = 0.7
    decay: float = 0.99
    unlabelled_batch_size: int | None = None
    colour: float = 0.5
    cutmix: float = 0.5
    contrast: bool = True
    unreliable_negatives: int = 0
    unlikely_rank: int = 3

    def __post_init__(self) -> None:
        require = Require()
        require(self.weight > 0, f"weight: expected above 0, got {self.weight}")
        require(0 <= self.decay < 1, f"decay: expected in [0, 1), got {self.decay}")
        for name in ("confidence", "colour", "cutmix"):
            require(0 <= getattr(self, name) <= 1, f"{name}: expected in [0, 1], got {getattr(self, name)}")
        size = self.unlabelled_batch_size
        require(size is None or size >= 1, f"unlabelled_batch_size: expected at least 1, got {size}")
        count, rank = self.unreliable_negatives, self.unlikely_rank
        require(count >= 0, f"unreliable_negatives: expected at least 0, got {count}")
        require(rank >= 1, f"unlikely_rank: expected at least 1, got {rank}")
        require(
            not count or self.contrast,
            "unreliable_negatives: the contrast has to see the unlabelled pixels; set contrast to true",
        )
        require.done()
