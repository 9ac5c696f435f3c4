"""What a report says of one branch: the part that its card and its statement are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]


@dataclass(frozen=True)
class BranchReport:
    """A branch in report.json.

    Attributes:
        report: all of it.
        method: of the branch.
        seed: of the branch.
        targets: its rows of `targets`.
        checks: its rows of `checks`.
        certificate: entry of its method in the certificate; None for the baseline and what was not compared.
    """

    report: Report
    method: str
    seed: int
    targets: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]
    certificate: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """Of the branch."""
        return f"{self.method}-s{self.seed}"

    @property
    def is_baseline(self) -> bool:
        """Whether the others are compared with it."""
        return bool(self.method == self.report["baseline"])

    def checks_of(self, *statuses: str) -> list[Mapping[str, Any]]:
        """The checks that ended so."""
        return [check for check in self.checks if check["status"] in statuses]


def branch_report(report: Report, method: str, seed: int) -> BranchReport:
    """The part of a report that is about one branch."""

    def own(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [row for row in rows if row["method"] == method and row["seed"] == seed]

    methods = report["certificate"].get("methods") or {}
    return BranchReport(report, method, seed, own(report["targets"]), own(report["checks"]), methods.get(method))
