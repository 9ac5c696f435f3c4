"""`python -m export.commands.recipe`: list the recipes, or merge one into params.yaml, where comments stay."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from pipeline.params import PARAMS_PATH, read_yaml, validate_params
from pipeline.recipes import RECIPES_DIR, differences, load_recipe, merge_recipe, rendered_list
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from serving.contract.files import atomic_path

ROW_SECTIONS = ("branches", "exports", "compiles")  # one line per entry


def apply(name: str, params_path: Path = PARAMS_PATH, folder: Path = RECIPES_DIR) -> tuple[list[str], list[str]]:
    """Merge the recipe `name` into params.yaml; returns the differences, a line each, and what there was none of.

    Raises:
        UserError: no such recipe, or params.yaml is not valid, before or merged; then it is left as it was.
    """
    overlay = load_recipe(name, folder)
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = 120
    before = read_yaml(params_path)
    try:
        merged: Any = yaml.load(params_path.read_text(encoding="utf-8"))
    except YAMLError as error:  # it follows YAML 1.2, what stages read params.yaml with 1.1
        raise UserError(f"{params_path}: not YAML: {error}") from None
    validate_params(before, str(params_path))
    absent = merge_recipe(merged, _flow(overlay))
    for section in ROW_SECTIONS:
        merged[section] = CommentedMap({key: _on_one_line(row) for key, row in (merged.get(section) or {}).items()})
    stream = io.StringIO()
    yaml.dump(merged, stream)
    after = YAML(typ="safe").load(stream.getvalue())
    validate_params(after, f"{params_path} with recipe {name}")
    with atomic_path(params_path) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8")
    return list(differences(before, after)), absent


class _Representer(RoundTripRepresenter):
    """Writes null as `null`, as params.yaml does, and not as nothing."""

    def represent_none(self, data: Any) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def _flow(value: Any) -> Any:
    """`value` with its lists marked so that ruamel.yaml writes `[1, 2]`."""
    if isinstance(value, Mapping):
        return {key: _flow(item) for key, item in value.items()}
    return _on_one_line(value) if isinstance(value, list) else value


def _on_one_line(value: Any) -> Any:
    """A list or a mapping marked so that ruamel.yaml writes it on one line."""
    marked: Any = CommentedSeq(value) if isinstance(value, list) else CommentedMap(value)
    marked.fa.set_flow_style()
    return marked


def main() -> int:
    """List the recipes, or merge one."""
    parser = argparse.ArgumentParser(
        prog=program_name("export.commands.recipe"), description=__doc__.partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the recipes")
    commands.add_parser("apply", help="merge one into params.yaml").add_argument("name")
    arguments = parser.parse_args()
    if arguments.command == "list":
        sys.stdout.write(rendered_list() + "\n")
        return 0
    lines, absent = apply(arguments.name)
    for line in lines:
        sys.stdout.write(f"{line}\n")
    for name in absent:
        sys.stdout.write(f"{name}: the recipe removes it, and {PARAMS_PATH} has none of that name\n")
    sys.stdout.write(f"{len(lines)} settings changed in {PARAMS_PATH}\n")
    return 0


if __name__ == "__main__":
    run_command(main)
