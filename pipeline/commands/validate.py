"""`python -m pipeline.commands.validate`: say all that is wrong with params.yaml, and what DVC would stumble over.

DVC has no defaults for parameters, and needs a repository and a folder for its locks; it fails on each in words of its
own, in the middle of a run.
"""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.params import PARAMS_PATH, Params, load_params, read_yaml
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command

DVC_YAML = Path("dvc.yaml")

_NAME = re.compile(r"\$\{([^}]+)\}")
_SITE_CACHE = "DVC_SITE_CACHE_DIR"


def main() -> int:
    """Nothing is printed where all is well."""
    argparse.ArgumentParser(prog=program_name("pipeline.commands.validate"), description=__doc__).parse_args()
    params = load_params()
    if not params.branches:
        raise UserError(
            f"{PARAMS_PATH}: branches: expected at least one, such as\n"
            "  branches: {cross_entropy-s0: {method: cross_entropy, loss: cross_entropy, seed: 0}}"
        )
    if DVC_YAML.is_file():
        values = read_yaml(PARAMS_PATH)
        missing = missing_parameters(read_yaml(DVC_YAML).get("stages") or {}, values)
        if missing:
            raise UserError(
                f"{PARAMS_PATH} lacks {', '.join(missing)}, which {DVC_YAML} asks for; DVC knows no defaults. Add\n"
                f"{lines_to_add(missing, params, values)}"
            )
    if Path(".dvc").is_dir():
        problems = problems_of_place(Path())
        if problems:
            raise UserError("\n".join(problems))
    return 0


def missing_parameters(stages: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Dotted names that dvc.yaml asks params.yaml for and that are not there, in the order of dvc.yaml.

    Args:
        stages: of dvc.yaml.
        values: what stands in params.yaml.
    """
    return [name for name in dict.fromkeys(_asked_for(stages)) if not _is_there(name, values)]


def lines_to_add(missing: list[str], params: Params, values: Mapping[str, Any]) -> str:
    """YAML to put into params.yaml: the defaults of what is missing.

    Args:
        missing: dotted names.
        params: with all defaults filled in.
        values: what stands in params.yaml.
    """
    lines: dict[str, Any] = {}
    for name in missing:
        section, *keys = name.split(".")
        if not keys:
            value = getattr(params, section, {})
            lines.setdefault(section, {} if dataclasses.is_dataclass(value) else _plain(value))
            continue
        inner, value = lines.setdefault(section, {}), getattr(params, section, None)
        for key in keys[:-1]:
            inner, value = inner.setdefault(key, {}), _inside(value, key)
        inner[keys[-1]] = _plain(_inside(value, keys[-1]))
    texts = []
    for section, content in lines.items():
        style = None if isinstance(content, (dict, list)) else False  # None would put a lone value into braces
        text = yaml.safe_dump({section: content}, default_flow_style=style, sort_keys=False, width=1000).rstrip()
        texts.append(f"# to the section {section} that is there:\n{text}" if section in values else text)
    return "\n".join(texts)


def problems_of_place(project: Path) -> list[str]:
    """What keeps DVC from working in a project, one line each with what to do.

    Args:
        project: the folder with `.dvc`.
    """
    found = []
    if not _has_git(project) and not _does_without_git(project):
        found.append(
            "this is no git repository, and DVC looks for one: run `git init`, or `dvc config core.no_scm true` to do "
            "without"
        )
    if not _is_writable(project):
        found.append(f"{project.resolve()}: the project cannot be written to; copy it to where it can")
    site = Path(os.environ.get(_SITE_CACHE) or "/var/tmp/dvc")
    if os.name == "posix" and not _is_writable(site):
        found.append(f"{site}: DVC cannot write there, where it keeps its locks: export {_SITE_CACHE}=/another/folder")
    return found


def _asked_for(stages: Mapping[str, Any]) -> Iterator[str]:
    """Parameters of stages, and names in `${}` that are no item's."""
    for stage in stages.values():
        yield from _NAME.findall(str(stage.get("foreach", "")))
        body = stage.get("do", stage)
        for parameter in body.get("params", []):
            yield str(parameter).partition(".${")[0]
        for text in (*map(str, body.get("deps", [])), str(body.get("cmd", ""))):
            yield from (name for name in _NAME.findall(text) if name != "key" and not name.startswith("item."))


def _is_there(name: str, values: Mapping[str, Any]) -> bool:
    inner: Any = values
    for part in name.split("."):
        if not isinstance(inner, Mapping) or part not in inner:
            return False
        inner = inner[part]
    return True


def _inside(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)


def _plain(value: Any) -> Any:
    """A setting as YAML has it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _has_git(project: Path) -> bool:
    folder = project.resolve()
    return any((each / ".git").exists() for each in (folder, *folder.parents))


def _does_without_git(project: Path) -> bool:
    for name in ("config", "config.local"):
        parser = configparser.ConfigParser(strict=False)
        try:
            parser.read_string((project / ".dvc" / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        if parser.get("core", "no_scm", fallback="").strip().lower() in ("true", "1", "yes", "on"):
            return True
    return False


def _is_writable(path: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it is not there yet."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


if __name__ == "__main__":
    run_command(main)
