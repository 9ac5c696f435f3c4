"""Measure the latency of every engine that works: `python -m export.stages.benchmark`."""

from __future__ import annotations

import argparse

from rich.progress import Progress

from export.latency.benchmark import representative_images, run_benchmark
from export.latency.engines import working_engines
from export.latency.paired_latency import save_samples
from export.records.expected import expected_targets
from export.records.recorded import load_verified
from pipeline.data.datasets.shared.prepared import load_prepared, resolve_root
from pipeline.layout.paths import BENCHMARK_PATH, DEVICE_PATH, PREPARED_DIR, SAMPLES_PATH
from pipeline.params import load_params
from serving.contract.command import program_name
from serving.contract.errors import run_command
from serving.contract.files import atomic_path, file_sha256, read_json, write_json


def main() -> int:
    """Write reports/benchmark.json and the raw samples beside it. What is measured is judged by the gate."""
    argparse.ArgumentParser(prog=program_name("export.stages.benchmark"), description=__doc__).parse_args()
    params = load_params()
    expected = expected_targets(params.branches, params.targets, params.deploy)
    engines = working_engines(expected, load_verified(params.branches), params.targets)
    prepared = load_prepared(PREPARED_DIR, resolve_root(params.prepare.root))
    split = prepared.split(params.evaluate.split)
    with Progress(transient=True) as progress:
        task = progress.add_task("benchmark", total=None)
        result = run_benchmark(
            engines,
            representative_images(split.read_image, len(split), params.benchmark.images),
            config=params.benchmark,
            profile_name=params.profile,
            certify=params.certify,
            hardware_sha256=read_json(DEVICE_PATH, made_by="device")["hardware_sha256"],
            progress=lambda what, done, of: progress.update(task, description=what, completed=done, total=of),
        )
    with atomic_path(SAMPLES_PATH) as temporary:
        save_samples(temporary, result.pairs, result.samples)
    made = {
        "dataset": {"sha256": prepared.sha256, "split": params.evaluate.split},
        "samples_sha256": file_sha256(SAMPLES_PATH),
    }
    write_json(BENCHMARK_PATH, result.summary | made)
    return 0


if __name__ == "__main__":
    run_command(main)
