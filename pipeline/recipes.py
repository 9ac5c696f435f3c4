"""`python -m pipeline.recipes`: list the recipes, or merge one into params.yaml.

A recipe is an overlay that holds only what differs. Mappings are merged key by key, except `options` and those whose
name ends in `_options`: they belong to one dataset or head and are replaced whole. Comments in params.yaml stay.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.artifacts import atomic_path
from pipeline.config.params import PARAMS_PATH, read_yaml, validate_params
from serving.errors import UserError, did_you_mean, run_command

RECIPES_DIR = Path("recipes")


def recipe_names(folder: Path = RECIPES_DIR) -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_recipe(name: str, folder: Path = RECIPES_DIR) -> dict[str, Any]:
    """The overlay `name`. Raises UserError with the list of recipes when there is none such."""
    names = recipe_names(folder)
    if name not in names:
        listed = "\n".join(f"  {known}" for known in names)
        raise UserError(f"no recipe {name!r}{did_you_mean(name, names) if names else ''}; recipes:\n{listed}")
    return read_yaml(folder / f"{name}.yaml")


def summary(path: Path) -> str:
    """What a recipe says of itself: its first comment line."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def is_replaced_whole(key: str) -> bool:
    """Whether a mapping of this name is replaced and not merged."""
    return key == "options" or key.endswith("_options")


def merge(base: Any, overlay: Mapping[str, Any]) -> None:
    """Merge `overlay` into the mapping `base`, in place."""
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping) and not is_replaced_whole(key):
            merge(base[key], value)
        else:
            base[key] = value


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """One line per setting that differs: `train.batch_size: 8 -> 16`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            path = f"{where}.{key}" if where else str(key)
            if key not in after:
                yield f"{path}: {before[key]} -> (removed)"
            elif key not in before:
                yield f"{path}: (default) -> {after[key]}"
            else:
                yield from differences(before[key], after[key], path)
    elif before != after:
        yield f"{where}: {before} -> {after}"


def apply(name: str, params_path: Path = PARAMS_PATH, folder: Path = RECIPES_DIR) -> list[str]:
    """Merge the recipe `name` into params.yaml; returns the differences.

    Raises:
        UserError: no such recipe, or the merged params are not valid; then params.yaml is left as it was.
    """
    overlay = load_recipe(name, folder)
    yaml = YAML()
    yaml.width = 120
    merged: Any = yaml.load(params_path.read_text(encoding="utf-8"))
    before = read_yaml(params_path)
    merge(merged, overlay)
    stream = io.StringIO()
    yaml.dump(merged, stream)
    after = YAML(typ="safe").load(stream.getvalue())
    validate_params(after, f"{params_path} with recipe {name}")
    with atomic_path(params_path) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8")
    return list(differences(before, after))


def main() -> int:
    """List the recipes, or merge one."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.recipes", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the recipes")
    commands.add_parser("apply", help="merge one into params.yaml").add_argument("name")
    arguments = parser.parse_args()
    if arguments.command == "list":
        names = recipe_names()
        width = max(map(len, names), default=0)
        for name in names:
            sys.stdout.write(f"{name:{width}}  {summary(RECIPES_DIR / f'{name}.yaml')}\n")
        return 0
    lines = apply(arguments.name)
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{len(lines)} settings changed in {PARAMS_PATH}\n")
    return 0


if __name__ == "__main__":
    run_command(main)
