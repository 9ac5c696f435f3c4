"""Section `methods` of params.yaml: named ways to train, each a loss term with its settings and supervised terms."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.losses import LOSSES
from pipeline.losses.shared.term import ContrastConfig, TermConfig
from pipeline.losses.supervised.loss import SupervisedEntry, build_entries
from pipeline.training.averaging import AveragingConfig
from pipeline.training.helpers.config import MeanTeacherConfig, TeacherConfig
from serving.contract.errors import UserError, did_you_mean
from serving.contract.schema import Problems, build

_OWN_KEYS = (
    "loss",
    "supervised",
    "averaging",
    "mean_teacher",
    "teacher",
)  # of a method; every other key is a setting of its loss term


@dataclass(frozen=True)
class MethodConfig:
    """One named method: the loss term that it adds, and the supervised loss beside it.

    Attributes:
        loss: name of the loss term in the registry of losses.
        settings: an instance of that term's own `Config`.
        supervised: supervised terms beside the cross entropy.
        averaging: which average of the weights ships; None for the weights of a single iteration.
        mean_teacher: how unlabelled images are learned from; None for not at all.
        teacher: the larger network that is distilled; None for none.
    """

    loss: str
    settings: Any
    supervised: tuple[SupervisedEntry, ...] = ()
    averaging: AveragingConfig | None = None
    mean_teacher: MeanTeacherConfig | None = None
    teacher: TeacherConfig | None = None

    @property
    def is_contrastive(self) -> bool:
        """Whether the loss term contrasts embeddings and so has anchors."""
        return isinstance(self.settings, ContrastConfig)

    def term_iterations(self, iterations: int) -> range:
        """The iterations (from 0) of a training of `iterations` in which the loss term is computed.

        None for a term that is never called, such as the baseline's.
        """
        return self.settings.active(iterations) if isinstance(self.settings, TermConfig) else range(0)


def build_methods(values: object, iterations: int | None, problems: Problems) -> dict[str, MethodConfig]:
    """Build the section `methods`.

    Each entry names its `loss`, has that term's own settings, and may add `supervised`, `averaging`, `mean_teacher` and
    `teacher`.

    Args:
        values: what YAML gave.
        iterations: length of the training, where known; a schedule that leaves the term no step is a problem.
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
        method = _build_method(settings, where, iterations, problems)
        if method is not None:
            methods[str(name)] = method
    return methods


def _build_method(values: object, where: str, iterations: int | None, problems: Problems) -> MethodConfig | None:
    if not isinstance(values, Mapping) or "loss" not in values:
        problems.add(where, f"expected a mapping with the key 'loss' (one of {', '.join(LOSSES)})")
        return None
    terms = values.get("supervised")
    supervised = build_entries(() if terms is None else terms, f"{where}.supervised", problems)
    averaging, mean_teacher, teacher = None, None, None
    if values.get("teacher") is not None:
        teacher = build(TeacherConfig, values["teacher"], f"{where}.teacher", problems)
    if values.get("averaging") is not None:
        averaging = build(AveragingConfig, values["averaging"], f"{where}.averaging", problems)
    if values.get("mean_teacher") is not None:
        mean_teacher = build(MeanTeacherConfig, values["mean_teacher"], f"{where}.mean_teacher", problems)
    try:
        loss = LOSSES.resolve(str(values["loss"]))
    except UserError as error:
        problems.add(f"{where}.loss", str(error))
        return None
    known = [field.name for field in dataclasses.fields(loss.Config)]
    unknown = [key for key in values if key not in (*known, *_OWN_KEYS)]
    for key in unknown:
        problems.add(f"{where}.{key}", f"unknown key{did_you_mean(str(key), [*_OWN_KEYS, *known])}")
    options = {key: value for key, value in values.items() if key in known}
    settings = build(loss.Config, options, where, problems)
    if settings is None or unknown:
        return None
    method = MethodConfig(str(values["loss"]), settings, supervised, averaging, mean_teacher, teacher)
    if mean_teacher is not None and mean_teacher.unreliable_negatives:
        if not loss.takes_unreliable:
            problems.add(
                f"{where}.mean_teacher.unreliable_negatives", f"the loss {values['loss']!r} takes none; set it to 0"
            )
        elif getattr(settings, "semi_hard", False):
            problems.add(
                f"{where}.mean_teacher.unreliable_negatives",
                "does not go with semi_hard; set one of them to 0 or false",
            )
    if iterations is not None and isinstance(settings, TermConfig) and not method.term_iterations(iterations):
        problems.add(
            f"{where}.warmup_fraction",
            f"{settings.warmup_fraction} up to end_fraction {settings.end_fraction} of {iterations} iterations leaves "
            "the loss term no step; lower it, raise end_fraction or train on",
        )
    return method
