"""dvc.yaml against the imports: what a stage imports lies below its `deps`, and it depends on no room that it does not.

Names that are resolved at run time count as imports: `${model.head}` and its like in `deps` say the same in dvc.yaml.
Exempt are the registries themselves and what params.yaml is validated with (`pipeline.params` and the classes of its
sections resolve names only to check settings): what they resolve to is in `deps` and `params`.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from string import Template
from typing import Any, cast

import grimp
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())

# Registry -> its module, and which of its names a stage resolves: those that this key of the branch, export or params
# names, or all of them.
REGISTRIES = {
    "DATASETS": ("pipeline.data.datasets", lambda item: [PARAMS["prepare"]["dataset"]]),
    "HEADS": ("pipeline.models.heads", lambda item: [PARAMS["model"]["head"]]),
    "LOSSES": ("pipeline.losses", lambda item: [item["loss"]]),
    "ARTIFACT_KINDS": ("export.artifacts", lambda item: [item["kind"]]),
    "BACKBONES": ("pipeline.models.network", None),
    "SUPERVISED": ("pipeline.losses.supervised", None),
    "RUNTIMES": ("serving.engines.runtimes", None),
    "CHECKS": ("export.checks", None),
}
# They resolve names to check settings, while params.yaml is read.
OF_PARAMS = {
    "pipeline.params",
    "pipeline.training.methods",
    "pipeline.models.network.config",
    "pipeline.data.preparing.config",
    "export.targets.artifact_config",
    "export.targets.config",
    "export.targets.limits",
}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("serving", "pipeline", "export", exclude_type_checking_imports=True)


def file_of(module: str) -> Path:
    path = Path(*module.split("."))
    return path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")


INTERRUPT = ["from serving.contract.errors import end_on_interrupt", "end_on_interrupt()"]


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((ROOT / file_of(module)).read_text())


@cache
def resolved(module: str) -> set[str]:
    """Registries that a module resolves names of."""
    if module in OF_PARAMS or module in {registry for registry, _ in REGISTRIES.values()}:
        return set()
    return {
        node.func.value.id
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "resolve"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in REGISTRIES
    }


@cache
def named(module: str) -> set[str]:
    """Modules that a module names as `"package.module:attribute"`, to be imported when they are needed."""
    if module in OF_PARAMS or module in {registry for registry, _ in REGISTRIES.values()}:
        return set()
    texts = (node.value for node in ast.walk(tree_of(module)) if isinstance(node, ast.Constant))
    return {
        text.partition(":")[0]
        for text in texts
        if isinstance(text, str) and re.fullmatch(r"(serving|pipeline|export)(\.\w+)+:\w+", text)
    }


def modules_of(registry: str, item: Mapping[str, Any]) -> Iterator[str]:
    """Modules that the names resolve to which a stage with this item uses."""
    module, chosen = REGISTRIES[registry]
    (entries,) = (
        cast(ast.Dict, node.args[1])
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Registry"
    )
    values = {ast.literal_eval(key): value for key, value in zip(entries.keys, entries.values, strict=True)}
    for name in values if chosen is None else chosen(item):
        text = ast.unparse(values[name]).strip("f'\"")
        if not text.startswith("{"):  # backbones: all in one catalogue, imported anyway
            yield text.partition(":")[0]


def used(module: str, item: Mapping[str, Any]) -> set[str]:
    """Modules that a stage imports, directly or not, with the packages that importing them runs."""
    seen: set[str] = set()
    pending = [module]
    while pending:
        found = pending.pop()
        if found in seen or found == "pipeline.params":
            continue
        seen.add(found)
        pending += graph().find_modules_directly_imported_by(found)
        pending += named(found)
        pending += itertools.chain.from_iterable(modules_of(name, item) for name in resolved(found))
        if "." in found:
            pending.append(found.rpartition(".")[0])
    return {name for name in seen if not is_exempt(name)}


def is_exempt(module: str) -> bool:
    """Registries, and packages that hold a docstring alone or import their names when they are asked for.

    The packages of stages have what Ctrl-C says as well, which is no part of what a stage computes.
    """
    body = tree_of(module).body
    registries = {registry for registry, _ in REGISTRIES.values()}
    lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body)
    interrupt = [ast.unparse(node) for node in body[1:]] == INTERRUPT and module.endswith(".stages")
    return module in registries or (file_of(module).name == "__init__.py" and (len(body) == 1 or lazy or interrupt))


def items(stage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the stage loops over; one empty item where it does not."""
    if "foreach" not in stage:
        yield {}
        return
    for key, value in PARAMS[stage["foreach"].strip("${}")].items():
        branch = PARAMS["branches"].get(value.get("branch", key), {})
        yield {"key": key, **branch, **value}


def code_dependencies(stage: Mapping[str, Any], item: Mapping[str, Any]) -> set[Path]:
    """The `deps` that are code, names filled in."""
    values = {f"item.{name}": value for name, value in item.items()} | {"key": item.get("key", "")}
    values |= {"prepare.dataset": PARAMS["prepare"]["dataset"], "model.head": PARAMS["model"]["head"]}

    class Dotted(Template):
        braceidpattern = r"[a-z_.]+"

    paths = {Path(Dotted(text).substitute(values)) for text in stage["deps"]}
    return {path for path in paths if path.parts[0] in ("serving", "pipeline", "export")}


def unlisted(files: set[Path], dependencies: set[Path]) -> list[str]:
    """Files that lie below none of the dependencies."""
    return sorted(
        path.as_posix()
        for path in files
        if not any(path == dependency or dependency in path.parents for dependency in dependencies)
    )


def idle(files: set[Path], dependencies: set[Path]) -> list[str]:
    """Dependencies below which no file lies."""
    return sorted(
        dependency.as_posix()
        for dependency in dependencies
        if not any(path == dependency or dependency in path.parents for path in files)
    )


CHECKED = {name: stage for name, stage in STAGES.items() if not stage.get("always_changed")}


@pytest.mark.parametrize("name", CHECKED)
def test_what_a_stage_imports_lies_below_its_deps_and_nothing_else_does(name: str) -> None:
    stage = CHECKED[name]
    body = stage.get("do", stage)
    module = body["cmd"].split()[2]
    needless: list[set[str]] = []
    for item in items(stage):
        files = {file_of(each) for each in used(module, item)}
        dependencies = code_dependencies(body, item)
        assert unlisted(files, dependencies) == [], item
        needless.append(set(idle(files, dependencies)))
    # One kind of artefact may not need a room that another does.
    assert set.intersection(*needless) == set()


@pytest.mark.parametrize("name", CHECKED)
def test_the_check_sees_a_room_that_is_missing_and_one_too_many(name: str) -> None:
    stage = CHECKED[name]
    body = stage.get("do", stage)
    item = next(items(stage))
    files = {file_of(each) for each in used(body["cmd"].split()[2], item)}
    dependencies = code_dependencies(body, item)
    for room in dependencies:
        assert unlisted(files, dependencies - {room}) or idle(files, {room}), room
    assert idle(files, {Path("pipeline/commands")}) == ["pipeline/commands"]


def test_dvc_yaml_is_written_by_hand_and_short() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= 150
    assert not (ROOT / "branches.yaml").exists() and "[0]" not in text


def test_folders_and_files_stay_small_enough_to_be_seen_whole() -> None:
    for folder in ("serving", "pipeline", "export", "benchmarks", "studies"):
        for package in {path.parent for path in (ROOT / folder).rglob("*.py")}:
            files = [path for path in package.glob("*.py") if path.name != "__init__.py"]
            assert (package / "__init__.py").is_file(), package
            assert len(files) <= 12 or (package.name == "shared" and package.parent.name == "losses"), package
            for path in files:
                assert len(path.read_text().splitlines()) <= 350, path


def test_every_room_says_its_purpose_in_a_sentence() -> None:
    for folder in ("serving", "pipeline", "export", "benchmarks", "studies"):
        for path in (ROOT / folder).rglob("__init__.py"):
            purpose = ast.get_docstring(ast.parse(path.read_text()))
            assert purpose and purpose.partition("\n")[0].endswith("."), path
