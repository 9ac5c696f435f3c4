"""Write the zero-cost certificate of every method: `python -m export.stages.certify`."""

from __future__ import annotations

import argparse

from export.certificate.certificate import LatencyRule, certify
from export.certificate.inputs import load_method_inputs
from export.certificate.measured import measured_pairs
from export.certificate.page import certificate_page
from export.latency.paired_latency import load_pairs
from export.pages.document import to_markdown
from export.targets.config import CONTROL
from pipeline.layout.branches import seeds_of
from pipeline.layout.paths import BENCHMARK_PATH, CERTIFICATE_PATH, SAMPLES_PATH
from pipeline.params import load_params
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from serving.contract.files import atomic_path, file_sha256, read_json, write_json


def main() -> int:
    """Write reports/certificate.json and certificate.md. The verdicts are the gate's to act on."""
    argparse.ArgumentParser(prog=program_name("export.stages.certify"), description=__doc__).parse_args()
    params = load_params()
    benchmark, pairs = read_json(BENCHMARK_PATH, made_by="benchmark"), load_pairs(SAMPLES_PATH)
    if benchmark.get("samples_sha256") != file_sha256(SAMPLES_PATH):
        raise UserError(f"{SAMPLES_PATH}: not the samples that {BENCHMARK_PATH} is of: run benchmark again")
    config = params.certify
    methods = load_method_inputs(params.branches, params.targets, config, benchmark, pairs)
    # Without the control's the certificate says of every method what is missing.
    seeds = seeds_of(params.branches, config.baseline)
    control, _ = measured_pairs(
        CONTROL, config.baseline, seeds, params.targets[config.target], config, benchmark, pairs
    )
    certificate = certify(
        methods,
        control,
        LatencyRule(config.margin, len(benchmark["settings"]["looks"]), config.resamples, config.seed),
        baseline=config.baseline,
        target=config.target,
        profile=benchmark["profile"],
    )
    write_json(CERTIFICATE_PATH, certificate)
    with atomic_path(CERTIFICATE_PATH.with_suffix(".md")) as temporary:
        temporary.write_text(to_markdown(certificate_page(certificate)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
