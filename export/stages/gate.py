"""Judge the report; exit 1 when anything in it fails: `python -m export.stages.gate`."""

from __future__ import annotations

import argparse

from export.pages.terminal import terminal
from export.report.gate import findings_table, judge, passed, rules_judged
from export.report.report import load_report
from pipeline.layout.paths import REPORT_PATH
from pipeline.params import load_params
from serving.contract.command import program_name
from serving.contract.errors import run_command


def main() -> int:
    """List everything that breaks a rule of section `gate`."""
    argparse.ArgumentParser(prog=program_name("export.stages.gate"), description=__doc__).parse_args()
    report = load_report(REPORT_PATH)
    findings = judge(report, load_params().gate)
    console = terminal()
    if findings:
        console.print(findings_table(findings))
    opens = passed(findings)
    label = " (profile quick: brief measurements)" if report["profile"] == "quick" else ""
    console.print(f"gate: {'passed' if opens else 'FAILED'}: {rules_judged(report)} results judged{label}")
    return 0 if opens else 1


if __name__ == "__main__":
    run_command(main)
