"""Checks by name: what is examined of every engine before it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.registry import Registry

if TYPE_CHECKING:
    from export.checks.interface import Check

CHECKS: Registry[Check] = Registry(
    "check",
    {
        "integrity": "export.checks.integrity:check",
        "contract": "export.checks.contract:check",
        "structure": "export.checks.structure:check",
        "precision": "export.checks.precision:check",
        "finite": "export.checks.finite:check",
        "exposure": "export.checks.exposure:check",
        "logits": "export.checks.logits:check",
        "masks": "export.checks.masks:check",
        "agreement": "export.checks.agreement:check",
        "shapes": "export.checks.shapes:check",
        "batch": "export.checks.batch:check",
        "extremes": "export.checks.extremes:check",
        "accuracy": "export.checks.accuracy:check",
    },
)
