"""Recipes: overlays of params.yaml that hold only what differs for other data, networks or methods.

Mappings are merged key by key, except `branches`, `exports`, `compiles`, `options` and those whose name ends in
`_options`, which are replaced whole: they belong to one choice of methods, to one dataset or to one head.

`recipes/NAME.yaml` is a recipe. The papers' recipes are composed of parts, one file each, so that no setting is written
twice: DATASET-NETWORK, followed by -METHOD where it is another than the default, and by a way to evaluate, as in
`cityscapes-hrnet48-contextrast-published`.
"""

from __future__ import annotations

import difflib
import importlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.params import read_yaml
from serving.contract.errors import UserError

RECIPES_DIR = Path("recipes")

DEFAULT_METHOD = "pixel_contrast"
NAMED = ("methods", "artifacts", "targets")  # sections of named things, where null is no value but takes one away


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
    """Every recipe by name. Raises UserError where there is no folder of them, as beside an installed package."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder in {Path.cwd()}: recipes are part of the repository and not of the installed "
            "package; run this in a clone of it"
        )
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
        merge(overlay, read_yaml(path), composing=True)
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
    return key in ("branches", "exports", "compiles", "options") or key.endswith("_options")


def merge(base: Any, overlay: Mapping[str, Any], *, composing: bool = False) -> None:
    """Merge `overlay` into the mapping `base`, in place. Null in place of a mapping, such as a target, removes it.

    Args:
        base: what is changed.
        overlay: what differs.
        composing: `base` is an overlay itself, so that what is removed has to stay in it as null.

    Example:
        >>> base = {"train": {"iterations": 220, "batch_size": 6}, "targets": {"ort_fp32": {}, "ort_fp16": {}}}
        >>> merge(base, {"train": {"iterations": 40000}, "targets": {"ort_fp16": None}})
        >>> base
        {'train': {'iterations': 40000, 'batch_size': 6}, 'targets': {'ort_fp32': {}}}
    """
    for key, value in overlay.items():
        if value is None and isinstance(base.get(key), Mapping) and not composing:
            del base[key]
        elif isinstance(value, Mapping) and isinstance(base.get(key), Mapping) and not is_replaced_whole(key):
            merge(base[key], value, composing=composing)
        else:
            base[key] = value


def merge_recipe(values: Any, overlay: Mapping[str, Any]) -> list[str]:
    """Merge a recipe into the content of params.yaml, in place, and write out what its branches have to export.

    Args:
        values: what YAML gave.
        overlay: the recipe.

    Returns:
        What the recipe removes and was not there: `targets.ort_int8`. It may have been merged before, or the name is a
        mistake.
    """
    merge(values, overlay)
    absent = []
    for section in NAMED:
        names = values.get(section) or {}
        for name in [name for name in names if names[name] is None]:
            del names[name]
            absent.append(f"{section}.{name}")
    # By name, since imports go export -> pipeline (as in pipeline.params).
    importlib.import_module("export.targets.sections").fill_in(values)
    return absent


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """One line per setting that differs: `train.batch_size: 8 -> 16`.

    Example:
        >>> list(differences({"train": {"batch_size": 8}}, {"train": {"batch_size": 16, "workers": 2}}))
        ['train.batch_size: 8 -> 16', 'train.workers: (default) -> 2']
    """
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
