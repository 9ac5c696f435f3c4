"""Section `evaluate` of params.yaml: on which images, and by which protocol, a network is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serving.contract.schema import Require


@dataclass(frozen=True)
class InferenceProtocol:
    """How one image becomes one mask. The default is what an exported engine does.

    Attributes:
        scales: factors that the image is resized by; class probabilities are averaged over them.
        flip: average over the image and its mirror image as well.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @property
    def plain(self) -> bool:
        """Whether the image runs once, at its own scale."""
        return self.scales == (1.0,) and not self.flip

    def __str__(self) -> str:
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        kind = f"single scale {scales}" if len(self.scales) == 1 else f"multi-scale {scales}"
        return f"{kind}, {'with' if self.flip else 'no'} flip"


@dataclass(frozen=True)
class EvaluateConfig:
    """What evaluation numbers mean. Labels are always used at their original resolution.

    Attributes:
        split: `val`, or `test` for the final number.
        resize: height and width that images are resized to before they run (masks go back by nearest), for a network
            made for one size; null runs every image at its own size.
        scales: factors of multi-scale inference; the published tables use 0.5, 0.75, 1, 1.25, 1.5, 1.75.
        flip: average over mirror images too.
        boundary_ratio: width of the bands of boundary IoU as a share of the image's diagonal: 0.02 as published (0.005
            for Cityscapes).
    """

    split: Literal["val", "test"] = "val"
    resize: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    boundary_ratio: float = 0.02

    def __post_init__(self) -> None:
        require = Require()
        if self.resize is not None:
            require(
                min(self.resize) >= 1, f"resize: expected a height and a width of at least 1, got {list(self.resize)}"
            )
        require(len(self.scales) > 0, "scales: expected at least one, got none")
        require(
            all(0.1 <= scale <= 10 for scale in self.scales), f"scales: expected in [0.1, 10], got {list(self.scales)}"
        )
        require(len(set(self.scales)) == len(self.scales), f"scales: one is named twice in {list(self.scales)}")
        require(0 < self.boundary_ratio <= 0.5, f"boundary_ratio: expected in (0, 0.5], got {self.boundary_ratio}")
        require.done()

    @property
    def protocol(self) -> InferenceProtocol:
        """How one image becomes one mask."""
        return InferenceProtocol(self.scales, self.flip)

    def in_words(self, protocol: InferenceProtocol | None = None) -> str:
        """The protocol in words, to stand beside every number.

        Args:
            protocol: what ran, where it differs from the section's own (an engine runs an image once).
        """
        size = "images at their own size" if self.resize is None else f"images at {self.resize[0]}x{self.resize[1]}"
        return f"split {self.split}, {protocol or self.protocol}, {size}"
