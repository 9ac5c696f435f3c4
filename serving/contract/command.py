"""How a command calls itself in its help and errors: by what the user typed."""

from __future__ import annotations

import sys

PROGRAM = "contrail"


def program_name(module: str) -> str:
    """`contrail VERB` when the program `contrail` runs the command, else `python -m MODULE`.

    Args:
        module: dotted name of the command's module.
    """
    typed = sys.argv[0]
    return typed if typed.startswith(f"{PROGRAM} ") else f"python -m {module}"
