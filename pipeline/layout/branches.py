"""A branch: one training method with one seed, from its training to its engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.contract.schema import Require


def branch_name(method: str, seed: int) -> str:
    """Name of one method trained with one seed, as in paths and DVC stages: `pixel_contrast-s0`.

    Example:
        >>> branch_name("pixel_contrast", 0)
        'pixel_contrast-s0'
    """
    return f"{method}-s{seed}"


@dataclass(frozen=True)
class BranchConfig:
    """One entry of the section `branches` of params.yaml; DVC trains one branch per entry.

    Attributes:
        method: a name from the section `methods`.
        loss: that method's loss, so that dvc.yaml finds the room of its code.
        seed: of everything that is drawn at random.
    """

    method: str
    loss: str
    seed: int

    def __post_init__(self) -> None:
        require = Require()
        require(self.seed >= 0, f"seed: expected at least 0, got {self.seed}")
        require.done()

    @property
    def name(self) -> str:
        """The key that this branch must have in the section."""
        return branch_name(self.method, self.seed)


def methods_of(branches: Mapping[str, BranchConfig]) -> list[str]:
    """The methods that have a branch, each once, in the order of params.yaml."""
    return list(dict.fromkeys(branch.method for branch in branches.values()))


def seeds_of(branches: Mapping[str, BranchConfig], method: str) -> list[int]:
    """The seeds that a method is trained with, in the order of params.yaml."""
    return [branch.seed for branch in branches.values() if branch.method == method]
