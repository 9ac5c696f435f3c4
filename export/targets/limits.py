"""The limits of every precision that an engine can compute in."""

from __future__ import annotations

from collections.abc import Mapping

from export.artifacts import ARTIFACT_KINDS
from export.artifacts.shared.limits import OF_RUNTIMES, PrecisionLimits


def precision_limits() -> dict[str, PrecisionLimits]:
    """Precision -> its limits: those that kinds of artefact bring, and those of runtimes."""
    kinds = [ARTIFACT_KINDS.resolve(name) for name in ARTIFACT_KINDS]
    return {kind.precision: kind.limits for kind in kinds} | OF_RUNTIMES


def with_defaults(name: str, given: Mapping[str, float]) -> dict[str, float]:
    """One limit by precision: as params.yaml gives it, and the default for every precision that it does not name.

    Args:
        name: a field of `PrecisionLimits`.
        given: precision -> limit.
    """
    return {precision: getattr(limits, name) for precision, limits in precision_limits().items()} | dict(given)
