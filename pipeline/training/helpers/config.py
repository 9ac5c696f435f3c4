"""Settings of the helpers, keys of a method in params.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass

from serving.contract.errors import UserError
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

    def require_classes(self, number: int, where: str) -> None:
        """Refuse `unreliable_negatives` that could be of no class.

        Args:
            number: of classes in the data.
            where: dotted path of these settings, for the message.

        Raises:
            UserError: no class has `unlikely_rank` others that are more probable.
        """
        if self.unreliable_negatives and self.unlikely_rank >= number:
            raise UserError(
                f"{where}.unlikely_rank: {self.unlikely_rank}, but the data has {number} classes, of which none has "
                f"{self.unlikely_rank} more probable ones: unreliable_negatives would do nothing; set unlikely_rank "
                f"below {number}, or unreliable_negatives to 0"
            )


@dataclass(frozen=True)
class TeacherConfig:
    """Distillation from a larger trained segmentor.

    Attributes:
        path: folder of a stripped checkpoint of this project, `artifacts/BRANCH/stripped`, on the dataset's classes.
        sha256: of its `segmentor.safetensors`; another file is refused.
        weight: factor of the divergence of its probabilities.
        temperature: of these; the higher, the more the less probable classes count.
        similarity_weight: factor of the divergence of its pixel similarities; 0 leaves them out.
        similarity_temperature: tau of these.
        max_samples: most pixels per batch whose similarities are compared.
        max_views: most of them per image and class.
    """

    path: str
    sha256: str
    weight: float = 1.0
    temperature: float = 1.0
    similarity_weight: float = 1.0
    similarity_temperature: float = 0.1
    max_samples: int = 1024
    max_views: int = 100

    def __post_init__(self) -> None:
        require = Require()
        require(
            re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None,
            f"sha256: expected the 64 digits that `sha256sum {self.path}/segmentor.safetensors` prints, "
            f"got {self.sha256!r}",
        )
        for name in ("temperature", "similarity_temperature", "max_samples", "max_views"):
            require(getattr(self, name) > 0, f"{name}: expected above 0, got {getattr(self, name)}")
        for name in ("weight", "similarity_weight"):
            require(getattr(self, name) >= 0, f"{name}: expected at least 0, got {getattr(self, name)}")
        require(self.weight + self.similarity_weight > 0, "weight and similarity_weight: expected one of them above 0")
        require.done()
