"""params.yaml as one frozen, validated object."""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from pipeline.config.schema import Problems, build, convert
from serving.errors import UserError, did_you_mean
from serving.registry import Registry

# Sections are imported when params.yaml is read, not when this module is: a stage depends on the files of the sections
# that it uses, and a new key for the export does not retrain.
if TYPE_CHECKING:
    from pipeline.config.artifacts import ArtifactConfig, DeployConfig, TargetConfig
    from pipeline.config.benchmark import BenchmarkConfig
    from pipeline.config.certify import CertifyConfig
    from pipeline.config.evaluate import EvaluateConfig
    from pipeline.config.gate import GateConfig
    from pipeline.config.methods import MatrixConfig, MethodConfig
    from pipeline.config.model import ModelConfig
    from pipeline.config.prepare import PrepareConfig
    from pipeline.config.train import TrainConfig
    from pipeline.config.verify import VerifyConfig

PARAMS_PATH = Path("params.yaml")

Profile = Literal["quick", "release"]


@dataclass(frozen=True)
class Params:
    """Every tunable, one section per stage. Stages pass sections on, never the whole.

    Attributes:
        profile: `quick` measures briefly and is labelled so in every table; `release` keeps to the full minima.
    """

    profile: Profile
    prepare: PrepareConfig
    model: ModelConfig
    train: TrainConfig
    methods: dict[str, MethodConfig]
    matrix: MatrixConfig
    evaluate: EvaluateConfig
    artifacts: dict[str, ArtifactConfig]
    targets: dict[str, TargetConfig]
    deploy: DeployConfig
    verify: VerifyConfig
    benchmark: BenchmarkConfig
    certify: CertifyConfig
    gate: GateConfig


SECTIONS: Registry[Any] = Registry(
    "section",
    {
        "prepare": "pipeline.config.prepare:PrepareConfig",
        "model": "pipeline.config.model:ModelConfig",
        "train": "pipeline.config.train:TrainConfig",
        "methods": "pipeline.config.methods:build_methods",
        "matrix": "pipeline.config.methods:MatrixConfig",
        "evaluate": "pipeline.config.evaluate:EvaluateConfig",
        "artifacts": "pipeline.config.artifacts:ArtifactConfig",
        "targets": "pipeline.config.artifacts:TargetConfig",
        "deploy": "pipeline.config.artifacts:DeployConfig",
        "verify": "pipeline.config.verify:VerifyConfig",
        "benchmark": "pipeline.config.benchmark:BenchmarkConfig",
        "certify": "pipeline.config.certify:CertifyConfig",
        "gate": "pipeline.config.gate:GateConfig",
    },
)
MAPS = ("artifacts", "targets")  # sections that map names of the user's to settings of one kind
TAKEN = ("curves", "stripped", "trained")  # what a branch's folder holds besides
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def load_params(path: Path = PARAMS_PATH) -> Params:
    """Read and validate params.yaml.

    Raises:
        UserError: the file is missing or not YAML, or holds problems; all of them are listed.
    """
    return validate_params(read_yaml(path), str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises UserError when the file is missing or is not one."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the root of the checkout") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    return dict(values)


def validate_params(values: Mapping[str, Any], source: str) -> Params:
    """Build Params from what YAML gave. Raises UserError listing every problem, each prefixed with `source`."""
    problems = Problems()
    known = ["profile", *SECTIONS]
    for key in values:
        if key not in known:
            problems.add(str(key), f"unknown section{did_you_mean(str(key), known)}")
    sections: dict[str, Any] = {"profile": convert(Profile, values.get("profile", "quick"), "profile", problems)}
    for name in SECTIONS:
        config = SECTIONS.resolve(name)
        if name in MAPS:
            sections[name] = convert(types.GenericAlias(dict, (str, config)), values.get(name, {}), name, problems)
        elif name != "methods":
            sections[name] = build(config, values.get(name), name, problems)
    train = sections["train"]
    build_methods = SECTIONS.resolve("methods")
    sections["methods"] = build_methods(values.get("methods"), train.iterations if train else None, problems)
    _check_references(sections, values, problems)
    if problems:
        listed = "\n".join(f"  {source}: {problem}" for problem in problems)
        raise UserError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {source}:\n{listed}")
    return Params(**sections)


def _check_references(sections: Mapping[str, Any], values: Mapping[str, Any], problems: Problems) -> None:
    """Names in one section that must exist in another, and names that become folders."""

    def expect(path: str, name: str, known: Collection[str], where: str) -> None:
        if name not in known:
            problems.add(path, f"{name!r} is not in {where}{did_you_mean(name, known)}")

    methods = values.get("methods")
    targets, artifacts = sections["targets"] or {}, sections["artifacts"] or {}
    matrix, deploy, certify, gate = (sections[name] for name in ("matrix", "deploy", "certify", "gate"))
    if matrix:
        for name in matrix.methods:
            expect("matrix.methods", name, list(methods) if isinstance(methods, Mapping) else [], "the section methods")
        if deploy:
            expect("deploy.method", deploy.method, matrix.methods, "matrix.methods")
        if certify:
            expect("certify.baseline", certify.baseline, matrix.methods, "matrix.methods")
    for name in deploy.everywhere if deploy else ():
        expect("deploy.everywhere", name, targets, "the section targets")
    if certify:
        expect("certify.target", certify.target, targets, "the section targets")
        if deploy and certify.target in targets:
            expect("certify.target", certify.target, deploy.everywhere, "deploy.everywhere: every branch must have it")
    for name in gate.required if gate else ():
        expect("gate.required", name, targets, "the section targets")
    for name, target in targets.items():
        if target:
            expect(f"targets.{name}.artifact", target.artifact, artifacts, "the section artifacts")
    for section in MAPS:
        for name in sections[section] or {}:
            if not _FOLDER_NAME.fullmatch(name):
                problems.add(f"{section}.{name}", "names become folders: expected letters, digits, '_' and '-' only")
            elif name in TAKEN:
                problems.add(f"{section}.{name}", f"a branch has a folder of that name; expected none of {TAKEN}")
    for name in artifacts.keys() & {name for name, target in targets.items() if target and target.compiled}:
        problems.add(f"targets.{name}", "an artifact has that name, and both would be files of one folder")
