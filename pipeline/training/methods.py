"""Section `methods` of params.yaml: which losses train, with which settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.losses import LOSSES
from pipeline.losses.shared.term import ContrastConfig
from serving.contract.errors import UserError
from serving.contract.schema import Problems, build


@dataclass(frozen=True)
class MethodConfig:
    """One training method: a loss and its settings.

    Attributes:
        loss: name in the registry of losses.
        settings: an instance of that loss's own `Config`.
    """

    loss: str
    settings: Any

    def contrast_start(self, iterations: int) -> int | None:
        """First iteration (from 0) whose loss has the contrast term; None for a method without one."""
        if not isinstance(self.settings, ContrastConfig):
            return None
        return round(self.settings.warmup_fraction * iterations)


def build_methods(values: object, iterations: int | None, problems: Problems) -> dict[str, MethodConfig]:
    """Build the section `methods`: each entry names its `loss` and that loss's own settings.

    Args:
        values: what YAML gave.
        iterations: length of the training, where known; a schedule that leaves no contrast step is a problem.
        problems: every problem found is added here.
    """
    if not isinstance(values, Mapping) or not values:
        problems.add(
            "methods", "expected a mapping of method names to settings, such as {cross_entropy: {loss: cross_entropy}}"
        )
        return {}
    methods = {}
    for name, settings in values.items():
        where = f"methods.{name}"
        if not re.fullmatch(r"[A-Za-z0-9_]+", str(name)):
            problems.add(where, "a method's name is a part of paths: expected letters, digits and underscores only")
            continue
        if not isinstance(settings, Mapping) or "loss" not in settings:
            problems.add(where, f"expected a mapping with the key 'loss' (one of {', '.join(LOSSES)})")
            continue
        try:
            loss = LOSSES.resolve(str(settings["loss"]))
        except UserError as error:
            problems.add(f"{where}.loss", str(error))
            continue
        options = {key: value for key, value in settings.items() if key != "loss"}
        config = build(loss.Config, options, where, problems)
        if config is None:
            continue
        method = MethodConfig(str(settings["loss"]), config)
        start = method.contrast_start(iterations) if iterations is not None else None
        if start is not None and iterations is not None and start >= iterations:
            problems.add(
                f"{where}.warmup_fraction",
                f"{config.warmup_fraction} of {iterations} iterations leaves no contrast step; lower it or train on",
            )
        methods[str(name)] = method
    return methods
