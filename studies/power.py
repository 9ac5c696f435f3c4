"""`python -m studies.power --sd 0.64 --pairs 12`: how small an effect can a number of pairs show?

A pair is a baseline and a method trained with one seed. Their differences are judged by Student's t, and what n pairs
can show is `smallest_effect`: the true mean difference of which a two-sided test at 5 % finds 80 %.

Pairs may be added to an experiment by the standard deviation of the planned ones alone (`pairs_needed`): who adds pairs
by looking at their mean adds until it suits him.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from scipy import optimize, stats

from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command

CONFIDENCE = 0.95
POWER = 0.8

Key = TypeVar("Key", bound=Hashable)


def smallest_effect(pairs: int, sd: float) -> float:
    """The true mean difference that a paired t test (two-sided, 5 %) finds with a probability of 80 %.

    By the noncentral t distribution (the far tail, of a significant difference of the wrong sign, left out).

    Args:
        pairs: n, at least 2.
        sd: standard deviation of the paired differences, in any unit; the result has the same.

    Raises:
        UserError: fewer than 2 pairs, or a negative standard deviation.
    """
    if pairs < 2:
        raise UserError(f"pairs: expected at least 2, got {pairs}: one difference has no spread")
    if not (sd >= 0 and math.isfinite(sd)):
        raise UserError(f"sd: expected a standard deviation of at least 0, got {sd}")
    bound = stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1)

    def missing(effect: float) -> float:
        return float(stats.nct.sf(bound, pairs - 1, effect * math.sqrt(pairs))) - POWER

    high = 0.1
    while missing(high) < 0:
        high *= 1.5
    return sd * float(optimize.brentq(missing, 0, high))


def pairs_needed(sd: float, *, see: float, planned: int, at_most: int) -> int:
    """How many pairs an experiment gets: the fewest, from `planned` to `at_most`, that show an effect of `see`.

    Args:
        sd: of the differences of the planned pairs.
        see: the effect that is to be seen, in the same unit.
        planned: n fixed beforehand.
        at_most: n beyond which the experiment ends with what it can see.
    """
    for pairs in range(planned, at_most):
        if smallest_effect(pairs, sd) <= see:
            return pairs
    return at_most


def p_value(differences: Sequence[float], *, above: float | None = None, below: float | None = None) -> float:
    """How likely differences such as these are where the claim does not hold: twice the one-sided p of Student's t.

    At 0.05 that is where the 95 % interval begins to lie on the claimed side of the bound.

    Args:
        differences: n of them, at least 2.
        above: the claim is that the mean lies above this; or
        below: that it lies below this. Exactly one of the two.
    """
    assert (above is None) != (below is None), "one claim"
    values = np.asarray(differences, dtype=np.float64)
    distance = float(values.mean()) - above if above is not None else float(below or 0.0) - float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return min(1.0, 2 * float(stats.t.sf(distance / error, len(values) - 1)))


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjust p values of several experiments so that all that lie below 0.05 hold together (Holm 1979)."""
    adjusted: dict[Key, float] = {}
    largest = 0.0
    for rank, (name, value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * value))
        adjusted[name] = largest
    return adjusted


def main() -> int:
    """Print what a number of pairs can see."""
    parser = argparse.ArgumentParser(prog=program_name("studies.power"), description=__doc__.partition("\n")[0])
    parser.add_argument("--sd", type=float, required=True, help="standard deviation of the paired differences")
    parser.add_argument("--pairs", type=int, nargs="+", required=True, help="n; several for a table")
    arguments = parser.parse_args()
    for pairs in arguments.pairs:
        effect = smallest_effect(pairs, arguments.sd)
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1)) * arguments.sd / math.sqrt(pairs)
        sys.stdout.write(
            f"{pairs} pairs, standard deviation {arguments.sd:g}: an effect of {effect:.2f} is seen with a probability "
            f"of {POWER:.0%}; the 95 % interval reaches {half:.2f} to either side\n"
        )
    return 0


if __name__ == "__main__":
    run_command(main)
