"""The in-toto statement of a branch: which files, by SHA-256, and what was found of them on which machine. Unsigned.

Statement: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. Predicate: in-toto's test result,
https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md, with the certificate and the device in
a further field, as its parsing rules allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.report.cards.branch import BranchReport
from serving.card.checking import STATEMENT_TYPE

PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"


def statement(branch: BranchReport, files: Mapping[str, str], params_sha256: str) -> dict[str, Any]:
    """The statement.

    Args:
        branch: what the report says.
        files: name in the branch's folder -> SHA-256, of everything that ships and of the card.
        params_sha256: of params.yaml.
    """
    report = branch.report
    passed, failed = ([_name(check) for check in branch.checks_of(status)] for status in ("pass", "fail"))
    warned = [_name(check) for check in branch.checks_of("inconclusive", "skipped")]
    verdict = None if branch.certificate is None else branch.certificate["verdict"]
    if verdict is not None:
        {"pass": passed, "fail": failed}.get(verdict, warned).append("certificate")
    # An engine that opens nowhere, or whose numbers do not belong together, has no check of its own that says so.
    judged = {check["target"] for check in branch.checks_of("fail")}
    failed += [row["target"] for row in branch.targets if row["status"] == "failed" and row["target"] not in judged]
    warned += [row["target"] for row in branch.targets if row["status"] == "skipped"]
    if branch.failed:
        failed += [f"gate: {finding.subject}: {finding.rule}" for finding in branch.failed]
    else:
        passed.append("gate")
    configuration = [{"name": "params.yaml", "digest": {"sha256": params_sha256}}]
    if report["dataset"].get("sha256"):
        configuration.append({"name": report["dataset"]["name"], "digest": {"sha256": report["dataset"]["sha256"]}})
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(files.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": "FAILED" if failed else "WARNED" if warned else "PASSED",
            "configuration": configuration,
            "passedTests": passed,
            "warnedTests": warned,
            "failedTests": failed,
            "contrail": {
                "branch": branch.name,
                "profile": report["profile"],
                "commit": report["commit"],
                "created": report["created"],
                "targets": list(branch.targets),
                "checks": list(branch.checks),
                "certificate": {
                    key: report["certificate"].get(key) for key in ("baseline", "target", "margin", "control")
                }
                | {"method": branch.certificate},
                "device": report["device"],
            },
        },
    }


def _name(check: Mapping[str, Any]) -> str:
    return f"{check['target']}/{check['name']}"
