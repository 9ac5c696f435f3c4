"""Finding the first tensor that diverges with a few measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from export.checks.locating.matching import TensorPair
from export.checks.locating.measuring import TensorError

AT_ONCE = 4  # tensors that are made visible together: what bounds the memory


def first_diverging(
    pairs: Sequence[TensorPair], bad: int, measure: Callable[[Sequence[TensorPair]], Sequence[TensorError]]
) -> int:
    """Position of a tensor that diverges although none that it is computed from does.

    Bisection along the order of the graph, over a few tensors at a time, among those that the worst-placed known tensor
    is computed from. What a sound tensor is computed from counts as sound until the end; then the direct inputs of the
    tensor that is left are measured, and the search goes on from one that diverges after all.

    Args:
        pairs: in the order of computation.
        bad: position of a tensor that diverges.
        measure: the errors of a few tensors.
    """
    known: dict[int, bool] = {bad: True}

    def test(positions: Iterable[int]) -> None:
        fresh = [position for position in positions if position not in known]
        for start in range(0, len(fresh), AT_ONCE):
            chosen = fresh[start : start + AT_ONCE]
            errors = measure([pairs[position] for position in chosen])
            known.update({position: error.diverges for position, error in zip(chosen, errors, strict=True)})

    while True:
        sound: set[int] = set()
        while candidates := sorted(_ancestors(pairs, [bad]) - sound):
            count = min(AT_ONCE, len(candidates))
            chosen = [candidates[(step + 1) * len(candidates) // (count + 1)] for step in range(count)]
            test(chosen)
            good = [position for position in chosen if not known[position]]
            sound |= _ancestors(pairs, good) | set(good)
            if len(good) < len(set(chosen)):
                bad = min(position for position in chosen if known[position])
        test(pairs[bad].parents)
        wrong = [position for position in pairs[bad].parents if known[position]]
        if not wrong:
            return bad
        bad = min(wrong)


def _ancestors(pairs: Sequence[TensorPair], positions: Iterable[int]) -> set[int]:
    """Positions of everything that these tensors are computed from."""
    found: set[int] = set()
    pending = [parent for position in positions for parent in pairs[position].parents]
    while pending:
        position = pending.pop()
        if position not in found:
            found.add(position)
            pending.extend(pairs[position].parents)
    return found
