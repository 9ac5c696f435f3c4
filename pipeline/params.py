"""params.yaml as one frozen, validated object."""

from __future__ import annotations

import importlib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from serving.contract.errors import UserError, did_you_mean
from serving.contract.registry import Registry
from serving.contract.schema import Problems, build, convert

# Sections are imported when params.yaml is read, not when this module is: a stage depends on the files of the sections
# that it uses, and a new key for the export does not retrain.
if TYPE_CHECKING:
    from export.checks.examination.config import VerifyConfig
    from export.latency.config import BenchmarkConfig, CertifyConfig
    from export.report.config import GateConfig
    from export.targets.artifact_config import ArtifactConfig
    from export.targets.config import CompileConfig, DeployConfig, ExportConfig, TargetConfig
    from pipeline.data.preparing.config import PrepareConfig
    from pipeline.evaluation.config import EvaluateConfig
    from pipeline.layout.branches import BranchConfig
    from pipeline.models.network.config import ModelConfig
    from pipeline.training.config import TrainConfig
    from pipeline.training.methods import MethodConfig

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
    branches: dict[str, BranchConfig]
    evaluate: EvaluateConfig
    artifacts: dict[str, ArtifactConfig]
    targets: dict[str, TargetConfig]
    deploy: DeployConfig
    exports: dict[str, ExportConfig]
    compiles: dict[str, CompileConfig]
    verify: VerifyConfig
    benchmark: BenchmarkConfig
    certify: CertifyConfig
    gate: GateConfig


# By name, since imports go export -> pipeline: a section's class lies in the room that it configures.
SECTIONS: Registry[Any] = Registry(
    "section",
    {
        "prepare": "pipeline.data.preparing.config:PrepareConfig",
        "model": "pipeline.models.network.config:ModelConfig",
        "train": "pipeline.training.config:TrainConfig",
        "methods": "pipeline.training.methods:build_methods",
        "branches": "pipeline.layout.branches:BranchConfig",
        "evaluate": "pipeline.evaluation.config:EvaluateConfig",
        "artifacts": "export.targets.artifact_config:ArtifactConfig",
        "targets": "export.targets.config:TargetConfig",
        "deploy": "export.targets.config:DeployConfig",
        "exports": "export.targets.config:ExportConfig",
        "compiles": "export.targets.config:CompileConfig",
        "verify": "export.checks.examination.config:VerifyConfig",
        "benchmark": "export.latency.config:BenchmarkConfig",
        "certify": "export.latency.config:CertifyConfig",
        "gate": "export.report.config:GateConfig",
    },
)
_CHECK_REFERENCES = "export.targets.references"  # what must hold between sections
MAPS = ("branches", "artifacts", "targets", "exports", "compiles")  # names of the user's -> settings of one kind


def load_params(path: Path = PARAMS_PATH) -> Params:
    """Read and validate params.yaml.

    Raises:
        UserError: the file is missing or not YAML, or holds problems; all of them are listed.
    """
    return validate_params(read_yaml(path), str(path))


class _Loader(yaml.SafeLoader):
    """Notes keys that are there twice, of which YAML's readers take the last without a word."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.twice: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As the text has it: constructing merges `<<` into nodes, where keys may then well be twice."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    first = lines[key.value]
                    self.twice.append(f"{key.value}: in line {first} and again in line {line}; expected it once")
                else:
                    lines[key.value] = line
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises UserError when the file is missing or is not one, or has a key twice."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        values = loader.get_single_data()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the root of the checkout") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if loader.twice:
        raise UserError("\n".join(f"{path}: {each}" for each in loader.twice))
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: expected a mapping of sections, got {type(values).__name__}")
    return dict(values)


def validate_params(values: Mapping[str, Any], source: str) -> Params:
    """Build Params from what YAML gave. Raises UserError listing every problem, each prefixed with `source`."""
    problems = Problems()
    known = ["profile", *SECTIONS]
    for key in values:
        if key == "matrix":
            problems.add("matrix", _instead_of_matrix(values))
        elif key not in known:
            problems.add(str(key), f"unknown section{did_you_mean(str(key), known)}")
    sections: dict[str, Any] = {"profile": convert(Profile, values.get("profile", "quick"), "profile", problems)}
    for name in SECTIONS:
        config = SECTIONS.resolve(name)
        if name in MAPS:
            sections[name] = convert(types.GenericAlias(dict, (str, config)), values.get(name) or {}, name, problems)
        elif name != "methods":
            sections[name] = build(config, values.get(name), name, problems)
    train = sections["train"]
    build_methods = SECTIONS.resolve("methods")
    sections["methods"] = build_methods(values.get("methods"), train.iterations if train else None, problems)
    # What is wrong in itself is left out here: references to it would be called wrong too.
    sound = sections | {name: {key: entry for key, entry in (sections[name] or {}).items() if entry} for name in MAPS}
    importlib.import_module(_CHECK_REFERENCES).check_references(sound, values, problems)
    if problems:
        listed = "\n".join(f"  {source}: {problem}" for problem in problems)
        raise UserError(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {source}:\n{listed}")
    return Params(**sections)


def _instead_of_matrix(values: Mapping[str, Any]) -> str:
    """What to write where params.yaml still has the section `matrix` of version 0.1."""
    matrix, methods = values.get("matrix") or {}, values.get("methods") or {}
    if not isinstance(matrix, Mapping) or not isinstance(methods, Mapping):
        return "is now `branches`, one line per method and seed; docs/params.md shows it"
    lines = ", ".join(
        f"{name}-s{seed}: {{method: {name}, loss: {(methods.get(name) or {}).get('loss', name)}, seed: {seed}}}"
        for name in matrix.get("methods") or ("cross_entropy", "pixel_contrast")
        for seed in matrix.get("seeds") or (0,)
    )
    return f"replace this section by `branches: {{{lines}}}`"
