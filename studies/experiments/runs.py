"""One run of an experiment: an arm with a seed, trained and judged; what it came to is kept, its weights are not."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.compute.devices import select_device
from pipeline.data.datasets.shared.dataset import Dataset, LabelFile
from pipeline.data.datasets.shared.prepared import FILE_NAME, Prepared, load_prepared, resolve_root
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.data.preparing.watching import take_snapshot
from pipeline.layout.branches import branch_name
from pipeline.layout.paths import OUTPUT_PATHS
from pipeline.params import Params
from pipeline.training.checkpoints import load_trainee, method_settings
from pipeline.training.config import decisive_settings
from pipeline.training.experiment import TrainingFiles, TrainingSetup, train_branch
from pipeline.training.performance.timing import device_name
from pipeline.training.resuming.fingerprint import PACKAGES
from serving.contract.errors import UserError, did_you_mean
from serving.contract.files import read_json, write_json
from studies.experiments.measures import TrainedRun, measure
from studies.experiments.pairs import locked
from studies.experiments.protocol import Experiment, arm_params, teacher_params
from studies.experiments.teachers import CHECKPOINT, full_precision, trained_teacher
from studies.features import part_of

WORK_DIR = Path("runs/experiments")

# What pairs are made with; tests, reports and documents are no part of it.
CODE = ("pipeline", "serving", "studies")


@dataclass(frozen=True)
class Workplace:
    """Where the runs of an experiment lie.

    Attributes:
        folder: for this protocol and this data.
        commit: of the code that runs.
        data: hash of the whole dataset's files.
        code: hash of the code that runs.
    """

    folder: Path
    commit: str | None
    data: str
    code: str

    @property
    def prepared(self) -> Path:
        """Folder of the prepared datasets."""
        return self.folder.parent / "prepared"


def settings_sha256(experiment: Experiment, arms: dict[str, Params]) -> str:
    """Hash of everything in the protocol that determines a pair besides its seed, defaults of the code included.

    What is off (null) is left out, so that a setting which Contrail gains later and which is off by default changes
    nothing.

    Args:
        experiment: the protocol.
        arms: its arms' params, without what depends on the seed.
    """
    settings = {
        name: {
            "prepare": {"dataset": params.prepare.dataset, "options": dict(params.prepare.options)},
            **_trained_with(params, name),
            "ignore_classes": experiment.arms[name].ignore_classes,
        }
        for name, params in arms.items()
    }
    protocol = {
        "comparisons": [dataclasses.asdict(comparison) for comparison in experiment.comparisons],
        "pairs": dataclasses.asdict(experiment.pairs),
        "judged": dataclasses.asdict(experiment.judged),
        "hold_out_in_turn": experiment.hold_out_in_turn,
    }
    teacher = None
    if experiment.teacher is not None and any(map(experiment.is_taught, arms)):
        teacher = {**_trained_with(teacher_params(experiment), "teacher"), "seed": experiment.teacher.seed}
    return _sha256(_without_nulls({"arms": settings, "protocol": protocol, "teacher": teacher}))


def _trained_with(params: Params, method: str) -> dict[str, object]:
    """The settings of a training, as plain values."""
    return {
        "model": dataclasses.asdict(params.model),
        "train": decisive_settings(params.train),
        "evaluate": dataclasses.asdict(params.evaluate),
        "method": method_settings(params.methods[method]),
    }


def _without_nulls(value: object) -> object:
    """Plain values without the keys of mappings whose value is None."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list | tuple) else value


def open_prepared(config: PrepareConfig, folder: Path) -> Prepared:
    """A dataset by its settings and by what its files hold now, prepared once below `folder` by whoever comes first."""
    root = resolve_root(config.root)
    files = None if root is None else take_snapshot(root, content=True, leave_out=OUTPUT_PATHS).sha256
    name = _sha256({"config": dataclasses.asdict(config), "files": files})[:12]
    with locked(folder / f"{name}.lock", wait=True):
        if not (folder / name / FILE_NAME).exists():
            prepare(config, folder / name)
    return load_prepared(folder / name, root)


def data_sha256(config: PrepareConfig, folder: Path) -> str:
    """Hash of the classes and of every file of the whole dataset, whatever part of it is trained on."""
    rest = {
        key: value for key, value in config.options.items() if key not in ("hold_out", "train_images", "subset_seed")
    }
    prepared = open_prepared(dataclasses.replace(config, options=rest), folder)
    files = {
        name: [(entry.name, entry.image_sha256, entry.label_sha256) for entry in split.entries]
        for name, split in prepared.splits.items()
    }
    return _sha256({"classes": prepared.class_names, "files": files})


def code_sha256() -> str:
    """Hash of the code that trains and judges, and of the versions of the packages that compute.

    All of the three packages counts, not only what a training imports: the arms of a pair are hours apart at most, and
    to train one of them anew costs less than to find out what may differ.
    """
    digest = hashlib.sha256(repr([(name, importlib.metadata.version(name)) for name in PACKAGES]).encode())
    for package in CODE:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def run_arm(experiment: Experiment, arm: str, seed: int, workplace: Workplace) -> dict[str, Any]:
    """Train an arm with a seed and judge it, or take what an earlier call came to, of this code on the same device.

    Returns:
        `outcomes` (outcome -> value), `commit`, `code`, `device`, `cpu_minutes` and, where it had one, its teacher's
        `teacher_sha256`.

    Raises:
        UserError: as training and judging raise it, the data changed meanwhile, or an outcome is not a number.
    """
    folder = workplace.folder / branch_name(arm, seed)
    config, params = experiment.arms[arm], arm_params(experiment, arm, seed)
    device = device_name(select_device(params.train.device))
    if (folder / "outcome.json").exists():
        found: dict[str, Any] = read_json(folder / "outcome.json", made_by="studies.run")
        if isinstance(found, dict) and (found.get("code"), found.get("device")) == (workplace.code, device):
            return found
    if data_sha256(params.prepare, workplace.prepared) != workplace.data:
        raise UserError(
            f"{experiment.experiment}, {arm}, seed {seed}: the dataset's files changed since the experiment was "
            "opened; put them back, or run it under another name"
        )
    prepared = open_prepared(params.prepare, workplace.prepared)
    ignored = class_indices(prepared, config.ignore_classes)
    seen = without_classes(prepared, ignored)
    if experiment.is_taught(arm):
        taught_by = trained_teacher(experiment, seed, seen, workplace.folder / "teachers")
        params = arm_params(experiment, arm, seed, taught_by=taught_by)
    started = time.process_time()  # the teacher's training is no part of the run: pairs share it
    train_branch(
        TrainingSetup(arm, seed, params.methods[arm], params.model, full_precision(params.train), params.evaluate),
        seen,
        TrainingFiles(folder, folder / "curves", folder / "checkpoints"),
    )
    judged = part_of(
        prepared.split(experiment.judged.split), every=experiment.judged.every, first=experiment.judged.first
    )
    trainee, _ = load_trainee(folder, CHECKPOINT)
    run = TrainedRun(trainee.segmentor, prepared, judged, params, folder / "curves", seed, ignored)
    outcomes = measure(run, outcomes_of(experiment, arm))
    broken = [name for name, value in outcomes.items() if not math.isfinite(value)]
    if broken:
        raise UserError(f"{experiment.experiment}, {arm}, seed {seed}: no number came out for {', '.join(broken)}")
    result = {
        "outcomes": outcomes,
        "commit": workplace.commit,
        "code": workplace.code,
        "device": device,
        "cpu_minutes": round((time.process_time() - started) / 60, 2),
    }
    if experiment.is_taught(arm):
        result["teacher_sha256"] = taught_by["sha256"]
    write_json(folder / "outcome.json", result)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    shown = ", ".join(f"{name} {value:.4f}" for name, value in outcomes.items())
    sys.stdout.write(f"{branch_name(arm, seed)}: {shown} ({result['cpu_minutes']} CPU minutes)\n")
    sys.stdout.flush()
    return result


def outcomes_of(experiment: Experiment, arm: str) -> list[str]:
    """The outcomes that the comparisons take of an arm, each once."""
    return list(
        dict.fromkeys(
            comparison.outcome
            for comparison in experiment.comparisons
            if arm in (comparison.method, comparison.baseline)
        )
    )


def class_indices(prepared: Prepared, names: Sequence[str]) -> tuple[int, ...]:
    """Train ids of classes by their names. Raises UserError naming all that the dataset does not have."""
    unknown = [
        f"ignore_classes: the dataset has no class {name!r}{did_you_mean(name, prepared.class_names)}"
        for name in names
        if name not in prepared.class_names
    ]
    if unknown:
        raise UserError("\n".join(unknown))
    return tuple(prepared.class_names.index(name) for name in names)


def without_classes(prepared: Prepared, classes: Collection[int]) -> Prepared:
    """The dataset with the pixels of some classes ignored in train; val and test have all their labels."""
    if not classes:
        return prepared
    train = prepared.splits["train"]
    pixels = tuple(0 if index in classes else count for index, count in enumerate(prepared.class_pixels["train"]))
    return dataclasses.replace(
        prepared,
        splits={**prepared.splits, "train": dataclasses.replace(train, dataset=_ignoring(train.dataset, classes))},
        class_pixels={**prepared.class_pixels, "train": pixels},
        class_frequencies=tuple(count / max(sum(pixels), 1) for count in pixels),
        sha256=_sha256({"dataset": prepared.sha256, "without": sorted(classes)}),
    )


def _ignoring(dataset: Dataset, classes: Collection[int]) -> Dataset:
    """The dataset, but that the pixels of some classes are ignored in the labels it decodes."""
    changed = copy.copy(dataset)
    ids = list(classes)

    def decode_labels(files: Sequence[LabelFile]) -> NDArray[np.uint8]:
        label = np.array(dataset.decode_labels(files))
        label[np.isin(label, ids)] = dataset.ignore_index
        return label

    changed.decode_labels = decode_labels  # type: ignore[method-assign]
    return changed


def _sha256(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=dict).encode()).hexdigest()
