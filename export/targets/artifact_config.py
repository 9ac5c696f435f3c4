"""Section `artifacts` of params.yaml: what is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from export.artifacts import ARTIFACT_KINDS
from serving.contract.errors import did_you_mean
from serving.contract.schema import Problems, Require, build


@dataclass(frozen=True)
class ArtifactConfig:
    """One artefact: a file exported from a stripped segmentor.

    Attributes:
        kind: which exporter, a name in `export.artifacts.ARTIFACT_KINDS`.
        options: settings of that exporter, the fields of its options class.
    """

    kind: str
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require = Require()
        if self.kind not in ARTIFACT_KINDS:
            require(False, f"kind: unknown kind of artifact {self.kind!r}{did_you_mean(self.kind, ARTIFACT_KINDS)}")
        else:
            for problem in self._build()[1]:
                require(False, problem)
        require.done()

    def exporter_options(self) -> Any:
        """`options` as an instance of the exporter's own options class."""
        options, problems = self._build()
        assert options is not None, problems  # __post_init__ has built it once
        return options

    def _build(self) -> tuple[Any, Problems]:
        problems = Problems()
        return build(ARTIFACT_KINDS.resolve(self.kind).options, self.options, "options", problems), problems
