"""Put everything together: report.{json,md,html}, plots, a card of each branch: `python -m export.stages.report`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from export.pages.document import to_markdown
from export.report.cards.writing import card_files
from export.report.charts import charts
from export.report.encoding import png, svg
from export.report.evidence.gathering import gather_evidence
from export.report.gate import judge
from export.report.inputs import load_report_inputs
from export.report.page import report_page
from export.report.plots import plots
from export.report.report import build_report
from export.report.web.page import html_page
from pipeline.data.datasets.shared.prepared import load_prepared, resolve_root
from pipeline.layout.branches import methods_of
from pipeline.layout.paths import PREPARED_DIR, REPORT_PATH
from pipeline.params import PARAMS_PATH, load_params
from serving.contract.command import program_name
from serving.contract.errors import run_command
from serving.contract.files import json_bytes, write_atomically, write_json


def main() -> int:
    """Write the report."""
    argparse.ArgumentParser(prog=program_name("export.stages.report"), description=__doc__).parse_args()
    params = load_params()
    inputs = load_report_inputs(
        profile=params.profile,
        dataset={"name": params.prepare.dataset, "split": params.evaluate.split},
        losses={name: params.methods[name].loss for name in methods_of(params.branches)},
        branches=params.branches,
        targets=params.targets,
        deploy=params.deploy,
        baseline=params.certify.baseline,
    )
    report = json.loads(json_bytes(build_report(inputs)))  # pages show what the file says
    prepared = load_prepared(PREPARED_DIR, resolve_root(params.prepare.root))
    evidence = gather_evidence(
        report,
        prepared,
        split=params.evaluate.split,
        branches=params.branches,
        targets=params.targets,
        target=params.certify.target,
        checkpoint=params.train.checkpoint,
    )
    if evidence.pictures is not None:
        report["pictures"] = {"differing": sorted(evidence.pictures.differing)}
    figures = plots(report)
    all_figures = figures | charts(report, evidence)
    contents: dict[Path, bytes] = {}
    for name, figure in all_figures.items():
        contents[REPORT_PATH.parent / name] = png(figure)
        contents[(REPORT_PATH.parent / name).with_suffix(".svg")] = svg(figure, name)
    contents[REPORT_PATH.with_suffix(".md")] = to_markdown(report_page(report, tuple(figures))).encode()
    findings = judge(report, params.gate)
    contents[REPORT_PATH.with_suffix(".html")] = html_page(report, evidence, findings, all_figures).encode()
    contents |= card_files(report, findings, params.branches, prepared.class_names, PARAMS_PATH)
    # The gate reads report.json alone: while the rest is written there is none, so that half a report passes no gate.
    REPORT_PATH.unlink(missing_ok=True)
    for path, content in contents.items():
        write_atomically(path, content)
    write_json(REPORT_PATH, report)
    return 0


if __name__ == "__main__":
    run_command(main)
