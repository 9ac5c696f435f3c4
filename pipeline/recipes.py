"""`python -m pipeline.recipes`: list the recipes, or merge one into params.yaml.

A recipe is an overlay that holds only what differs. Mappings are merged key by key, except `options` and those whose
name ends in `_options`: they belong to one dataset or head and are replaced whole. Comments in params.yaml stay.

`recipes/NAME.yaml` is a recipe. The papers' recipes are composed of parts, one file each, so that no setting is written
twice: DATASET-NETWORK, followed by -METHOD where it is another than the default, and by a way to evaluate, as in
`cityscapes-hrnet48-contextrast-published`.
"""

from __future__ import annotations

import argparse
import difflib
import io
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from pipeline.artifacts import atomic_path
from pipeline.config.params import PARAMS_PATH, read_yaml, validate_params
from serving.errors import UserError, run_command

RECIPES_DIR = Path("recipes")

DEFAULT_METHOD = "pixel_contrast"


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        files: what it is merged from, in this order.
        summary: what it is, in one line.
    """

    files: tuple[Path, ...]
    summary: str


def parts(kind: str, folder: Path = RECIPES_DIR) -> dict[str, Path]:
    """The parts of a kind (`datasets`, `networks`, `methods`, `evaluation`) by name, sorted."""
    return {path.stem: path for path in sorted((folder / kind).glob("*.yaml"))}


def whole_recipes(folder: Path = RECIPES_DIR) -> dict[str, Recipe]:
    """The recipes that are one file each."""
    return {path.stem: Recipe((path,), summary(path)) for path in sorted(folder.glob("*.yaml"))}


def composed_recipes(folder: Path = RECIPES_DIR) -> dict[str, Recipe]:
    """Every network on every dataset with every method and every way to evaluate.

    The dataset's part is merged after those of method and network, so that it can adapt them.
    """
    datasets, networks, methods, evaluations = (
        parts(kind, folder) for kind in ("datasets", "networks", "methods", "evaluation")
    )
    said = {path: summary(path) for kind in (datasets, networks, methods, evaluations) for path in kind.values()}
    found: dict[str, Recipe] = {}
    for data, network, method, evaluation in itertools.product(
        datasets, networks, (None, *methods), (None, *evaluations)
    ):
        trained_by = methods.get(method or DEFAULT_METHOD)
        judged_by = evaluations[evaluation] if evaluation else None
        files = [path for path in (trained_by, networks[network], datasets[data], judged_by) if path is not None]
        named = [path for path in (trained_by if method else None, judged_by) if path is not None]
        line = f"{said[networks[network]]} on {said[datasets[data]]}"
        name = "-".join(part for part in (data, network, method, evaluation) if part)
        found[name] = Recipe(tuple(files), "; ".join([line, *(said[path] for path in named)]))
    return found


def all_recipes(folder: Path = RECIPES_DIR) -> dict[str, Recipe]:
    """Every recipe by name."""
    return whole_recipes(folder) | composed_recipes(folder)


def recipe_names(folder: Path = RECIPES_DIR) -> list[str]:
    """Names of all recipes without the suffixes that choose a method or a way to evaluate, sorted."""
    cells = {f"{data}-{network}" for data in parts("datasets", folder) for network in parts("networks", folder)}
    return sorted(cells | whole_recipes(folder).keys())


def load_recipe(name: str, folder: Path = RECIPES_DIR) -> dict[str, Any]:
    """The overlay `name`, composed. Raises UserError with the list of recipes when there is none such."""
    recipes = all_recipes(folder)
    if name not in recipes:
        close = difflib.get_close_matches(name, recipes, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"no recipe {name!r}{hint}; recipes:\n{rendered_list(folder)}")
    overlay: dict[str, Any] = {}
    for path in recipes[name].files:
        merge(overlay, read_yaml(path))
    return overlay


def rendered_list(folder: Path = RECIPES_DIR) -> str:
    """All recipes, one line each, and the suffixes that choose a method or a way to evaluate."""
    recipes = all_recipes(folder)
    rows = [(name, recipes[name].summary) for name in recipe_names(folder)]
    suffixes = [
        (f"-{name}", f"{summary(path)}{' (the default)' if name == DEFAULT_METHOD else ''}")
        for kind in ("methods", "evaluation")
        for name, path in parts(kind, folder).items()
        if parts("datasets", folder)
    ]
    width = max((len(name) for name, _ in rows + suffixes), default=0)
    lines = [f"  {name:{width}}  {said}".rstrip() for name, said in rows]
    if suffixes:
        lines.append("DATASET-NETWORK may be followed by a method, and that by `published`:")
        lines += [f"  {name:{width}}  {said}" for name, said in suffixes]
    return "\n".join(lines)


def summary(path: Path) -> str:
    """What a recipe or a part says of itself: its first comment line."""
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def is_replaced_whole(key: str) -> bool:
    """Whether a mapping of this name is replaced and not merged."""
    return key == "options" or key.endswith("_options")


def merge(base: Any, overlay: Mapping[str, Any]) -> None:
    """Merge `overlay` into the mapping `base`, in place. Null in place of a mapping, such as a target, removes it."""
    for key, value in overlay.items():
        if value is None and isinstance(base.get(key), Mapping):
            del base[key]
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping) and not is_replaced_whole(key):
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
    yaml.Representer = _Representer
    yaml.width = 120
    merged: Any = yaml.load(params_path.read_text(encoding="utf-8"))
    before = read_yaml(params_path)
    merge(merged, _lists_on_one_line(overlay))
    stream = io.StringIO()
    yaml.dump(merged, stream)
    after = YAML(typ="safe").load(stream.getvalue())
    validate_params(after, f"{params_path} with recipe {name}")
    with atomic_path(params_path) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8")
    return list(differences(before, after))


class _Representer(RoundTripRepresenter):
    """Writes null as `null`, as params.yaml does, and not as nothing."""

    def represent_none(self, data: Any) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def _lists_on_one_line(value: Any) -> Any:
    """`value` with its lists marked so that ruamel.yaml writes `[1, 2]`."""
    if isinstance(value, Mapping):
        return {key: _lists_on_one_line(item) for key, item in value.items()}
    if isinstance(value, list):
        marked = CommentedSeq(value)
        marked.fa.set_flow_style()
        return marked
    return value


def main() -> int:
    """List the recipes, or merge one."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.recipes", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the recipes")
    commands.add_parser("apply", help="merge one into params.yaml").add_argument("name")
    arguments = parser.parse_args()
    if arguments.command == "list":
        sys.stdout.write(rendered_list() + "\n")
        return 0
    lines = apply(arguments.name)
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{len(lines)} settings changed in {PARAMS_PATH}\n")
    return 0


if __name__ == "__main__":
    run_command(main)
