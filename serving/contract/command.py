"""How a command calls itself in its help and errors: by what the user typed; and which distribution it is from."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping

from serving.contract.errors import UserError

PROGRAM = "contrail"


def program_name(module: str) -> str:
    """`contrail VERB` when the program `contrail` runs the command, else `python -m MODULE`.

    Args:
        module: dotted name of the command's module.
    """
    typed = sys.argv[0]
    return typed if typed.startswith(f"{PROGRAM} ") else f"python -m {module}"


def require_at_least(arguments: argparse.Namespace, least: Mapping[str, int]) -> None:
    """Refuse numbers that are too small, all of them at once; None is one that was not given.

    Args:
        arguments: as parsed.
        least: name of an argument -> the smallest value that it may have.

    Raises:
        UserError: a line for each.
    """
    wrong = [
        f"--{name.replace('_', '-')}: expected at least {smallest}, got {value}"
        for name, smallest in least.items()
        if (value := getattr(arguments, name)) is not None and value < smallest
    ]
    if wrong:
        raise UserError("\n".join(wrong))


def require_one_distribution() -> None:
    """Refuse an environment into which both `contrail-seg` and `contrail-serving` were installed.

    Both hold the package `serving`: whichever came last has overwritten the other's files, and pip does not notice.

    Raises:
        UserError: with what to do.
    """
    found: set[str] = set()
    for folder in sys.path:
        try:
            with os.scandir(folder or os.curdir) as entries:
                found |= {entry.name.partition("-")[0] for entry in entries if entry.name.endswith(".dist-info")}
        except OSError:
            continue
    if {"contrail_seg", "contrail_serving"} <= found:
        raise UserError(
            "contrail-seg and contrail-serving are both installed here and hold the same files: pip uninstall "
            "contrail-serving, then pip install --force-reinstall --no-deps contrail-seg"
        )
