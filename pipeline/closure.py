"""Which source files a module really uses: its static import closure within the project.

DVC stages list these files as dependencies, so that an edit reruns what it can change and nothing else. Names resolved
at run time through a registry are not imports: whoever builds the list adds them (see `pipeline.branches`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGES = ("serving", "pipeline", "export")


def module_file(module: str, root: Path) -> Path | None:
    """The file of a dotted module, relative to `root`; None for what is not a module of the project."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (root / candidate).is_file():
            return candidate
    return None


@cache
def direct_imports(path: Path, root: Path) -> tuple[str, ...]:
    """Dotted modules that a file imports when it runs; blocks under `if TYPE_CHECKING` are not run."""
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    found: list[str] = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))
    return tuple(found)


def closure(modules: Iterable[str], root: Path) -> set[Path]:
    """Files of the modules and of everything of the project that they import, directly or not, relative to `root`.

    Importing `a.b.c` runs the `__init__` of `a` and of `a.b` too: those count where they hold code.
    """
    seen: set[Path] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        parent = module.rpartition(".")[0]
        if parent:
            pending.append(parent)
        path = module_file(module, root)
        if path is None or path in seen:
            continue
        seen.add(path)
        pending.extend(direct_imports(path, root))
    return {path for path in seen if (root / path).stat().st_size > 0}


def sections_used(module: str, root: Path) -> set[str]:
    """Names read as `params.NAME` in a stage's module: the sections of params.yaml it uses."""
    path = module_file(module, root)
    assert path is not None, f"{module} is not a module of the project"
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
