"""The limits of every precision that an engine can compute in."""

from __future__ import annotations

from collections.abc import Mapping

from export.artifacts import ARTIFACT_KINDS
from serving.contract.limits import PrecisionLimits
from serving.engines.runtimes import RUNTIMES


def precision_limits() -> dict[str, PrecisionLimits]:
    """Precision -> its limits: those that kinds of artefact bring, and those of runtimes."""
    limits: dict[str, PrecisionLimits] = {}
    for runtime in map(RUNTIMES.resolve, RUNTIMES):
        limits |= runtime.precisions
    return limits | {kind.precision: kind.limits for kind in map(ARTIFACT_KINDS.resolve, ARTIFACT_KINDS)}


def with_defaults(name: str, given: Mapping[str, float]) -> dict[str, float]:
    """One limit by precision: as params.yaml gives it, and the default for every precision that it does not name.

    Args:
        name: a field of `PrecisionLimits`.
        given: precision -> limit.
    """
    return {precision: getattr(limits, name) for precision, limits in precision_limits().items()} | dict(given)
