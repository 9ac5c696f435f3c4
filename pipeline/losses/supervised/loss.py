"""The supervised loss of a method: the cross entropy, and the terms that its section `supervised` adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.losses.supervised import SUPERVISED
from pipeline.losses.supervised.cross_entropy import CrossEntropyTermConfig, auxiliary_cross_entropy
from pipeline.losses.supervised.term import LabelledLogits, SupervisedConfig, Supervision
from pipeline.models.network.head import Logits
from serving.contract.errors import UserError
from serving.contract.schema import Problems, build

CROSS_ENTROPY = "cross_entropy"
_AUXILIARY = "auxiliary_cross_entropy"


@dataclass(frozen=True)
class SupervisedEntry:
    """One entry of a method's list `supervised`.

    Attributes:
        term: name in the registry of supervised terms.
        settings: an instance of that term's own `Config`.
    """

    term: str
    settings: SupervisedConfig


@dataclass(frozen=True)
class SupervisedOutput:
    """The supervised loss of one batch.

    Attributes:
        loss: scalar, the weighted sum of the terms.
        values: the terms by name, detached 0-d tensors, not weighted.
    """

    loss: Tensor
    values: dict[str, Tensor]


class SupervisedLoss:
    """The weighted sum of the cross entropy, of weight 1 unless an entry says otherwise, and the entries' terms.

    Auxiliary classifiers have a cross entropy of their own weight, whatever the entries say of the main one.

    Args:
        entries: of the method.
        supervision: what all terms share.
    """

    def __init__(self, entries: Sequence[SupervisedEntry], supervision: Supervision) -> None:
        if all(entry.term != CROSS_ENTROPY for entry in entries):
            entries = [SupervisedEntry(CROSS_ENTROPY, CrossEntropyTermConfig()), *entries]
        self.supervision = supervision
        self._terms = {
            entry.term: (entry.settings.weight, SUPERVISED.resolve(entry.term)(entry.settings, supervision))
            for entry in entries
        }

    def __call__(self, logits: Logits, labels: Tensor) -> SupervisedOutput:
        """The loss of one batch, in float32 or wider whatever autocast says.

        Args:
            logits: main `[B,C,h,w]` and auxiliary, each at its own resolution.
            labels: `[B,H,W]` int64.
        """
        with torch.autocast(labels.device.type, enabled=False):
            batch = LabelledLogits(logits, labels, self.supervision.ignore_index)
            values = {name: term(batch) for name, (_, term) in self._terms.items()}
            (first, *others) = [self._terms[name][0] * value for name, value in values.items()]
            if logits.auxiliary:
                values[_AUXILIARY] = auxiliary_cross_entropy(batch, self.supervision)
                others.append(self.supervision.auxiliary_weight * values[_AUXILIARY])
            return SupervisedOutput(sum(others, first), {name: value.detach() for name, value in values.items()})


def build_entries(values: object, where: str, problems: Problems) -> tuple[SupervisedEntry, ...]:
    """Build a method's list `supervised`: each entry names its `term` and that term's own settings.

    Args:
        values: what YAML gave.
        where: dotted path of `values`, for messages.
        problems: every problem found is added here.
    """
    if not isinstance(values, (list, tuple)):
        problems.add(where, f"expected a list of terms such as [{{term: dice, weight: 1.0}}], got {values!r}")
        return ()
    entries: list[SupervisedEntry] = []
    for index, value in enumerate(values):
        entry = _build_entry(value, f"{where}[{index}]", problems)
        if entry is not None and any(entry.term == other.term for other in entries):
            problems.add(f"{where}[{index}].term", f"{entry.term!r} is there already; give each term once")
        elif entry is not None:
            entries.append(entry)
    if entries and not any(entry.settings.weight for entry in entries) and CROSS_ENTROPY in {e.term for e in entries}:
        problems.add(where, "every term has the weight 0: nothing would be learned; give one a weight above 0")
    return tuple(entries)


def _build_entry(value: object, where: str, problems: Problems) -> SupervisedEntry | None:
    if not isinstance(value, Mapping) or "term" not in value:
        problems.add(where, f"expected a mapping with the key 'term' (one of {', '.join(SUPERVISED)})")
        return None
    try:
        term = SUPERVISED.resolve(str(value["term"]))
    except UserError as error:
        problems.add(f"{where}.term", str(error))
        return None
    options: dict[Any, Any] = {key: setting for key, setting in value.items() if key != "term"}
    settings = build(term.Config, options, where, problems)
    return None if settings is None else SupervisedEntry(str(value["term"]), settings)
