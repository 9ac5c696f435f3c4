"""What a report says of one branch: the part that its card and its statement are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.report.gate import Finding

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
        failed: why the gate fails the run, without what is about another branch alone.
    """

    report: Report
    method: str
    seed: int
    targets: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]
    certificate: Mapping[str, Any] | None
    failed: Sequence[Finding]

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


def branch_report(report: Report, findings: Sequence[Finding], method: str, seed: int) -> BranchReport:
    """The part of a report, and of the gate's `findings` in it, that is about one branch."""
    branches = {(row["method"], row["seed"]) for row in report["targets"]}
    others = {f"{name}-s{number}" for name, number in branches if (name, number) != (method, seed)}
    others |= {name for name, _ in branches if name != method}
    failed = [each for each in findings if each.fatal and each.subject.partition("/")[0] not in others]

    def own(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [row for row in rows if row["method"] == method and row["seed"] == seed]

    methods = report["certificate"].get("methods") or {}
    targets, checks = own(report["targets"]), own(report["checks"])
    return BranchReport(report, method, seed, targets, checks, methods.get(method), failed)
