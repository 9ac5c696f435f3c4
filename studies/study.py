"""`python -m studies.study`: does the contrast improve the network? Every method, several seeds, one recipe.

    python -m studies.study run --recipe camvid-cpu --seeds 0 1 2       one JSON per run, resumable
    python -m studies.study run --recipe camvid-cpu --worker 0/2 &      two processes share the runs
    python -m studies.study test --recipe camvid-cpu                    the one look at the test split, recorded
    python -m studies.study table --recipe camvid-cpu                   docs/results/<recipe>.json and .md from the runs
    python -m studies.study run --recipe camvid-cpu --over studies/contrast.yaml

`--over` merges a file in the form of a recipe over the recipe: other settings of the methods, another schedule. Its
runs are kept apart, under <recipe>-<file>, and compared with one another.

A run that is there already, under runs/study or in the committed record, is not repeated. `table` writes that record
too: all that is kept of the runs, in one compact file. Settings are chosen on val only.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from export.latency.config import CertifyConfig
from export.targets.sections import branch_entries, fill_in
from pipeline.data.datasets.shared.prepared import Prepared, PreparedSplit, load_prepared, resolve_root
from pipeline.data.preparing.preparation import prepare
from pipeline.evaluation.evaluation import Evaluation, evaluate
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.layout.branches import branch_name
from pipeline.params import PARAMS_PATH, Params, read_yaml, validate_params
from pipeline.recipes import load_recipe, merge
from pipeline.training.checkpoints import load_trainee, method_settings
from pipeline.training.config import decisive_settings
from pipeline.training.experiment import TrainingFiles, TrainingSetup, train_branch
from serving.contract.command import program_name
from serving.contract.errors import UserError, did_you_mean, run_command
from serving.contract.files import read_json, write_json
from studies.record import WORK_DIR, load_runs, refuse_other_settings, run_path
from studies.table import write_table

# Frames of one video are not independent: intervals resample blocks of this many seconds of a recording.
BLOCK_SECONDS = 10


def study_name(recipe: str, over: Path | None) -> str:
    """What the study's files are named after."""
    return f"{recipe}-{over.stem}" if over else recipe


def study_params(
    recipe: str, methods: Sequence[str] | None, seeds: Sequence[int] | None, over: Path | None = None
) -> Params:
    """params.yaml with the recipe, with what `over` holds, and with the study's methods and seeds.

    Raises:
        UserError: a method that is not there, a seed below 0, or params that are not valid; all of a kind at once.
    """
    values = read_yaml(PARAMS_PATH)
    merge(values, load_recipe(recipe))
    if over is not None:
        merge(values, read_yaml(over))
    rows = values["branches"].values()
    methods = list(methods or dict.fromkeys(row["method"] for row in rows))
    # The baseline is always among them: every difference is to its run of the same seed.
    baseline = (values.get("certify") or {}).get("baseline", CertifyConfig.baseline)
    methods = [*([] if baseline in methods else [baseline]), *methods]
    problems = [
        f"--methods: {name!r} is not in the section methods{did_you_mean(name, values['methods'])}"
        for name in methods
        if name not in values["methods"]
    ]
    problems += [f"--seeds: expected at least 0, got {seed}" for seed in seeds or () if seed < 0]
    if problems:
        raise UserError("\n".join(problems))
    values["branches"] = branch_entries(values["methods"], methods, seeds or dict.fromkeys(row["seed"] for row in rows))
    # A study deploys nothing, but the section must name a method that there is.
    values["deploy"] = {"method": methods[-1]}
    fill_in(values)
    source = f"{PARAMS_PATH} with recipe {recipe}" + (f" and {over}" if over else "")
    return validate_params(values, source)


def runs_by_seed(params: Params) -> list[tuple[str, int]]:
    """(method, seed) of every run; the methods of one seed lie together, so that pairs end early."""
    runs = [(branch.method, branch.seed) for branch in params.branches.values()]
    return sorted(runs, key=lambda run: run[1])


def open_prepared(params: Params, study: str) -> Prepared:
    """The study's dataset, prepared once for all its runs."""
    folder = WORK_DIR / study / "prepared"
    root = resolve_root(params.prepare.root)
    if not (folder / "dataset.json").exists():
        prepare(params.prepare, folder, progress=sys.stderr.isatty())
    return load_prepared(folder, root)


def settings_sha256(params: Params, method: str, prepared: Prepared) -> str:
    """Hash of everything that determines a run besides its seed."""
    values = {
        "model": dataclasses.asdict(params.model),
        "train": decisive_settings(params.train),
        **method_settings(params.methods[method]),
        "dataset": prepared.sha256,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def blocks(split: PreparedSplit) -> list[str]:
    """A name per image: what an interval over images draws as one.

    It is the block of `BLOCK_SECONDS` of its recording where the dataset knows when an image was taken, else the whole
    recording, else the image itself. (A number of frames would be ten seconds in one split and less than one in
    another, where that is labelled more densely.)
    """
    named = []
    for index in range(len(split)):
        sequence, seconds = split.sequence(index), split.dataset.seconds(split.name(index))
        if sequence is None:
            named.append(split.name(index))
        else:
            named.append(sequence if seconds is None else f"{sequence}/{int(seconds // BLOCK_SECONDS)}")
    return named


def summarise(evaluation: Evaluation, named: Sequence[str]) -> dict[str, Any]:
    """An evaluation as plain numbers: per class, and per block of images for the bootstrap.

    Args:
        evaluation: of N images.
        named: N names of blocks (`blocks`).
    """
    by_block: dict[str, Any] = {}
    for name, confusion in zip(named, evaluation.confusions, strict=True):
        by_block[name] = by_block.get(name, 0) + confusion.astype("int64")
    return {
        "miou": evaluation.miou,
        "boundary_iou": evaluation.boundary_iou,
        "iou_per_class": evaluation.iou_per_class,
        "boundary_iou_per_class": evaluation.boundary_iou_per_class,
        "confusion_by_block": by_block,
        "protocol": evaluation.protocol,
    }


def evaluate_split(folder: Path, split: str, params: Params, prepared: Prepared) -> dict[str, Any]:
    """Evaluate the shipped part of a trained branch on `split`."""
    trainee, _ = load_trainee(folder, params.train.checkpoint)
    protocol = params.evaluate.protocol
    predict = segmentor_predictor(
        trainee.segmentor, torch.device("cpu"), resize=params.evaluate.resize, protocol=protocol
    )
    found = evaluate(
        predict, prepared.split(split), len(prepared.class_names), prepared.ignore_index, protocol=str(protocol)
    )
    return summarise(found, blocks(prepared.split(split)))


def taken_over(recipe: str, study: str, method: str, seed: int, settings: str) -> bool:
    """Whether the recipe's own study has this very run, which then becomes one of this study too."""
    values = {} if study == recipe else load_runs(recipe).get(method, {}).get(seed, {})
    if values.get("settings_sha256") != settings:
        return False
    write_json(run_path(study, method, seed), {name: value for name, value in values.items() if name != "test"})
    return True


def run(recipe: str, study: str, params: Params, worker: tuple[int, int]) -> None:
    """Train and evaluate on val what is not there yet; this worker's share of the runs."""
    prepared = open_prepared(params, study)
    todo = runs_by_seed(params)
    settings_of = {(method, seed): settings_sha256(params, method, prepared) for method, seed in todo}
    there = load_runs(study)
    refuse_other_settings(study, there, settings_of)
    for method, seed in todo[worker[0] :: worker[1]]:
        path = run_path(study, method, seed)
        settings = settings_of[method, seed]
        if seed in there.get(method, {}) or taken_over(recipe, study, method, seed, settings):
            continue
        folder = WORK_DIR / study / branch_name(method, seed)
        result = train_branch(
            TrainingSetup(method, seed, params.methods[method], params.model, params.train, params.evaluate),
            prepared,
            TrainingFiles(folder, folder / "curves", folder / "checkpoints"),
        )
        final = read_json(folder / "curves" / "metrics.json", made_by="studies.study run")
        write_json(
            path,
            {
                "study": study,
                "method": method,
                "seed": seed,
                "settings_sha256": settings,
                "settings": dataclasses.asdict(params.methods[method].settings),
                "class_names": prepared.class_names,
                "training": dataclasses.asdict(result),
                "last_statistics": final,
                "val": evaluate_split(folder, "val", params, prepared),
            },
        )
        sys.stdout.write(f"{path}: val mIoU {result.miou:.4f} after {result.seconds:.0f} s\n")
        sys.stdout.flush()


def test(study: str, params: Params) -> None:
    """Evaluate every finished run on the test split, once; the runs record that it was used."""
    prepared = open_prepared(params, study)
    runs = load_runs(study)
    for method, seed in runs_by_seed(params):
        path = run_path(study, method, seed)
        values = runs.get(method, {}).get(seed) or read_json(path, made_by="studies.study run")
        if "test" in values:
            continue
        folder = WORK_DIR / study / branch_name(method, seed)
        values["test"] = evaluate_split(folder, "test", params, prepared)
        write_json(path, values)
        sys.stdout.write(f"{path}: test mIoU {values['test']['miou']:.4f}\n")
        sys.stdout.flush()


def main() -> int:
    """Run, look at test once, or write the table."""
    parser = argparse.ArgumentParser(prog=program_name("studies.study"), description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=("run", "test", "table"))
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--over", type=Path, help="a file in the form of a recipe, merged over the recipe")
    parser.add_argument("--methods", nargs="+", help="default: those of the recipe")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of the recipe")
    parser.add_argument("--worker", default="0/1", help="K/N: take every N-th run, from the K-th on")
    arguments = parser.parse_args()
    params = study_params(arguments.recipe, arguments.methods, arguments.seeds, arguments.over)
    study = study_name(arguments.recipe, arguments.over)
    if arguments.command == "run":
        run(arguments.recipe, study, params, _worker(arguments.worker))
    elif arguments.command == "test":
        test(study, params)
    else:
        over = f" --over {arguments.over.as_posix()}" if arguments.over else ""
        command = f"python -m studies.study table --recipe {arguments.recipe}{over}"
        write_table(study, params.certify.baseline, command)
    return 0


def _worker(text: str) -> tuple[int, int]:
    index, separator, count = text.partition("/")
    if not (separator and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"--worker: expected K/N with K below N, such as 0/2, got {text!r}")
    return int(index), int(count)


if __name__ == "__main__":
    run_command(main)
