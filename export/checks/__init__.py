"""Checks by name: what is examined of every engine before it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.registry import Registry

if TYPE_CHECKING:
    from export.checks.examination.context import Check

CHECKS: Registry[Check] = Registry(
    "check",
    {
        "integrity": "export.checks.static.integrity:check",
        "contract": "export.checks.static.contract:check",
        "structure": "export.checks.static.structure:check",
        "precision": "export.checks.static.precision:check",
        "finite": "export.checks.running.finite:check",
        "exposure": "export.checks.running.exposure:check",
        "logits": "export.checks.running.logits:check",
        "masks": "export.checks.running.masks:check",
        "agreement": "export.checks.running.agreement:check",
        "shapes": "export.checks.running.shapes:check",
        "batch": "export.checks.running.batch:check",
        "extremes": "export.checks.running.extremes:check",
        "accuracy": "export.checks.running.accuracy:check",
    },
)
