"""The proof of zero cost on networks of every architecture: `python -m benchmarks.proof [--structure-only] [--json]`.

Of each network the baseline and each contrastive method are built with their training heads, stripped and exported, and
certified as the stage `certify` does: the same graph, and the same latency in fresh session pairs beside a control. As
the negative control one trainee ships whole, its projection heads as further outputs: it must fail on both.

`--experiment NAME` certifies the arms of `studies/NAME.yaml` instead, whatever training needs for them (supervised
terms, averages of the weights, teachers), and writes proof-NAME.json and .md.

Untrained networks serve, each from a seed of its own: neither structure nor speed depends on what was learned. Latency
needs a quiet machine; `--structure-only` leaves it out. The result is written after every network, and a later run
(`--networks`) keeps those of the others, whatever `--pairs` was, if all other settings and the device are the same.
Exit status 1 when a method fails or the negative control does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.progress import Progress

from benchmarks.networks import NETWORKS
from benchmarks.trainees import NUM_CLASSES, build, export_whole, random_images
from export.artifacts.onnx_fp32.export import export
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.certificate.certificate import GraphPair, LatencyRule, MethodInputs, certify
from export.certificate.page import certificate_blocks
from export.checks.examination.images import scene
from export.latency.config import QuickProfileConfig
from export.latency.engine_latency import Engine
from export.latency.latency import check_stopwatch
from export.latency.paired_latency import PairPlan, PairSamples, SessionComparison, measure_comparisons
from export.machine import load as machine
from export.machine.device import read_device
from export.machine.hardware import device_summary
from export.pages.document import Block, Heading, Paragraph, to_markdown
from export.targets.config import CONTROL
from pipeline.layout.branches import methods_of
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import SegmentorInfo
from pipeline.models.training_heads.trainee import strip
from pipeline.params import load_params
from pipeline.training.methods import MethodConfig
from serving.contract.errors import UserError, run_command
from serving.contract.files import atomic_path, read_json, write_json
from serving.contract.manifest import read_sidecar
from studies.experiments.protocol import arm_params, load_experiment

RESULTS_DIR = Path("docs/results")
NAME = "proof-networks"
KEPT = "projection_kept"  # the negative control, among the methods of its certificate
TARGET = "ort_fp32"


@dataclass(frozen=True)
class Settings:
    """How the networks are compared.

    Attributes:
        side: height and width of the image in pixels.
        threads: of every session.
        plan: how much is measured; None leaves latency out.
        margin: see `LatencyRule`.
        seed: of the weights, the images and every random order.
    """

    side: int
    threads: int
    plan: PairPlan | None
    margin: float = 0.02
    seed: int = 0


def prove(model: ModelConfig, methods: Mapping[str, MethodConfig], settings: Settings) -> dict[str, Any]:
    """The certificate of one network, the negative control among its methods.

    Args:
        model: the network.
        methods: the baseline first; the first method with contrast also gives the negative control.
        settings: how they are compared.

    Raises:
        UserError: none of the methods has a contrast.
    """
    shape = (1, settings.side, settings.side, 3)
    baseline, *others = methods
    whole = next((name for name in others if methods[name].is_contrastive), None)
    if whole is None:
        raise UserError("expected a method with contrast: its trainee, shipped whole, is the negative control")
    with tempfile.TemporaryDirectory(prefix="contrail-proof-") as name:
        folder = Path(name)
        engines: dict[str, Engine] = {}
        for index, (method, config) in enumerate(methods.items()):
            images = random_images(settings.seed)
            trainee = build(model, config, images, settings.seed + index)
            segmentor = strip(trainee, trainee.segmentor.normalise(images))
            engines[method] = _engine(folder / method, method, segmentor, settings.threads)
            if method == whole:
                manifest = read_sidecar(engines[method].path)
                path = export_whole(trainee, manifest, shape, folder / KEPT)
                engines[KEPT] = _described(path, KEPT, settings.threads)
        graphs = {method: onnx.load(engine.path) for method, engine in engines.items()}
        pairs = _measure(engines, baseline, settings)
    inputs = {
        method: MethodInputs(
            [GraphPair(settings.seed, graphs[baseline], graphs[method], shape)],
            pairs.get(method, ()),
            missing={"accuracy": "untrained", "latency": "not measured (--structure-only)"},
        )
        for method in (*others, KEPT)
    }
    rule = LatencyRule(settings.margin, seed=settings.seed)
    return certify(inputs, pairs.get(CONTROL, ()), rule, baseline=baseline, target=TARGET, profile="quick")


def experiment_methods(name: str) -> dict[str, MethodConfig]:
    """The arms of an experiment that wait for nothing, first the baseline of its first comparison.

    Raises:
        UserError: there is no such experiment.
    """
    experiment = load_experiment(name)
    baseline = experiment.comparisons[0].baseline
    arms = [arm for arm, config in experiment.arms.items() if not config.needs and arm != baseline]
    return {arm: arm_params(experiment, arm).methods[arm] for arm in (baseline, *arms)}


def failures(certificate: Mapping[str, Any]) -> list[str]:
    """What contradicts the claim, in words; in a brief measurement latency may be undecided either way."""
    found = []
    for method, entry in certificate["methods"].items():
        if method != KEPT:
            if entry["structure"]["verdict"] != "pass" or entry["verdict"] == "fail":
                found.append(f"{method}: {'; '.join(entry['reasons'])}")
        elif entry["structure"]["verdict"] != "fail":
            found.append(f"{method}: its structure was not told from the baseline's")
        elif entry["latency"]["pairs"] and entry["latency"]["verdict"] == "pass":
            found.append(f"{method}: its latency was not told from the baseline's")
    return found


def _engine(folder: Path, method: str, segmentor: Segmentor, threads: int) -> Engine:
    folder.mkdir()
    names = tuple(f"class {index}" for index in range(NUM_CLASSES))
    palette = tuple((index, index, index) for index in range(NUM_CLASSES))
    info = SegmentorInfo(segmentor.config, NUM_CLASSES, names, palette, 255, provenance={"method": method})
    path = export(segmentor, ExportContext("onnx_fp32", folder, info), OutputOptions())
    return _described(path, method, threads)


def _described(path: Path, method: str, threads: int) -> Engine:
    sha256 = read_sidecar(path).sha256
    assert sha256 is not None
    return Engine(method, 0, TARGET, path, sha256, "onnxruntime", {"threads": threads})


def _measure(engines: Mapping[str, Engine], baseline: str, settings: Settings) -> dict[str, list[PairSamples]]:
    """Session pairs of every engine beside the baseline's; the control is the baseline's beside itself.

    Raises:
        UserError: the stopwatch is wrong.
    """
    if settings.plan is None:
        return {}
    generator = np.random.default_rng(settings.seed)
    batches = [scene(settings.side, settings.side, generator)[None] for _ in range(4)]
    opener = engines[baseline].open
    comparisons = [
        SessionComparison(CONTROL if method == baseline else method, ((opener, engine.open),))
        for method, engine in engines.items()
    ]
    tests = [check_stopwatch()]
    with Progress(transient=True) as progress:
        task = progress.add_task("session pairs", total=settings.plan.looks[-1])
        pairs = measure_comparisons(
            comparisons,
            batches,
            settings.plan,
            decided=lambda _: False,
            generator=generator,
            progress=lambda done, _: progress.update(task, completed=done),
        )
    tests.append(check_stopwatch())
    wrong = [test for test in tests if not test.passed]
    if wrong:
        raise UserError(f"the stopwatch is off by {wrong[0].deviation:+.1%}: is the machine overloaded?")
    return pairs


def page(result: Mapping[str, Any], experiment: str | None = None) -> list[Block]:
    """The result as tables; of what, the title says: every architecture, or the arms of an experiment."""
    settings = result["settings"]
    threads = "1 thread" if settings["threads"] == 1 else f"{settings['threads']} threads"
    blocks: list[Block] = [
        Heading(1, f"Zero cost of {experiment}'s arms" if experiment else "Zero cost on every architecture"),
        Paragraph(
            f"Untrained networks, {NUM_CLASSES} classes, one image of {settings['side']}x{settings['side']}, "
            f"{threads}, ONNX Runtime fp32, profile `quick`: {result['device']}. "
            f"`{KEPT}` is the negative control, the first contrastive method's trainee shipped whole: it must fail."
        ),
    ]
    for name, entry in result["networks"].items():
        blocks.append(Heading(2, f"{name}: {entry['backbone']}, {entry['head']}"))
        if not entry["pairs"]:
            blocks.append(Paragraph("Structure only: latency was not measured, so that no method passes as a whole."))
        blocks += certificate_blocks(entry["certificate"], accuracy=False)
    return blocks


def main() -> int:
    """Compare, print and write."""
    params = load_params()
    contrastive = {name: method for name, method in params.methods.items() if method.is_contrastive}
    chosen = [name for name in methods_of(params.branches) if name in contrastive]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", choices=list(contrastive), default=chosen or list(contrastive))
    parser.add_argument("--experiment", metavar="NAME", help="certify the arms of studies/NAME.yaml instead")
    parser.add_argument("--side", type=int, default=256, help="height and width in pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=QuickProfileConfig.pairs, help="session pairs per comparison")
    parser.add_argument("--structure-only", action="store_true", help="measure no latency")
    parser.add_argument("--output", type=Path, default=RESULTS_DIR, metavar="DIR", help="for the .json and .md file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    if arguments.side < 32 or arguments.side % 32 or arguments.threads < 1:
        raise UserError("expected --side in multiples of 32 and --threads of at least 1")
    profile = QuickProfileConfig(pairs=arguments.pairs, max_pairs=arguments.pairs)
    plan = PairPlan(profile.looks, profile.pair_seconds, profile.min_blocks, profile.warm_up_seconds)
    settings = Settings(
        arguments.side,
        arguments.threads,
        None if arguments.structure_only else plan,
        params.certify.margin,
        params.certify.seed,
    )
    torch.set_num_threads(arguments.threads)
    title = load_experiment(arguments.experiment).experiment if arguments.experiment else None
    if arguments.experiment is None:
        methods = {name: params.methods[name] for name in (params.certify.baseline, *arguments.methods)}
        path = arguments.output / f"{NAME}.json"
    else:
        methods = experiment_methods(arguments.experiment)
        path = arguments.output / f"proof-{arguments.experiment}.json"

    def save(result: dict[str, Any]) -> None:
        write_json(path, result)
        with atomic_path(path.with_suffix(".md")) as temporary:
            temporary.write_text(to_markdown(page(result, title)), encoding="utf-8")

    result = run(
        {name: NETWORKS[name] for name in arguments.networks},
        methods,
        settings,
        earlier=read_json(path, made_by="benchmarks.proof") if path.exists() else None,
        save=save,
    )
    sys.stdout.write(json.dumps(result, indent=2) + "\n" if arguments.json else to_markdown(page(result, title)))
    for line in result["failures"]:
        sys.stderr.write(f"FAILED: {line}\n")
    return 1 if result["failures"] else 0


def run(
    networks: Mapping[str, ModelConfig],
    methods: Mapping[str, MethodConfig],
    settings: Settings,
    *,
    earlier: Mapping[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """The JSON of all networks: their certificates, what failed, and on which machine.

    Args:
        networks: what is certified now.
        methods: see `prove`.
        settings: see `prove`.
        earlier: a result of this function: the networks that it has and `networks` has not are kept, when it was made
            with the same settings on the same device; how many pairs were measured is each network's own.
        save: is given the result after every network.
    """
    result: dict[str, Any] = {
        "settings": {
            "side": settings.side,
            "threads": settings.threads,
            "seed": settings.seed,
        },
        "device": device_summary(read_device()),
        "networks": {},
        "failures": [],
    }
    if earlier and all(earlier[key] == result[key] for key in ("settings", "device")):
        result["networks"] = dict(earlier["networks"])
    for name, model in networks.items():
        before = machine.look()
        certificate = prove(model, methods, settings)
        result["networks"][name] = {
            "backbone": model.backbone,
            "head": model.head,
            "pairs": settings.plan.looks[-1] if settings.plan else 0,
            "machine": machine.between(before, machine.look()),
            "certificate": certificate,
        }
        result["failures"] = [
            f"{known}, {line}" for known, entry in result["networks"].items() for line in failures(entry["certificate"])
        ]
        save(result)
    return result


if __name__ == "__main__":
    run_command(main)
