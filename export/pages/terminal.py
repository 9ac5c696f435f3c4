"""Tables in a terminal."""

from __future__ import annotations

import sys

from rich.console import Console


def terminal() -> Console:
    """A console as wide as the terminal, or, in a file or a CI log, wide enough for every table.

    What is printed is shown as it is: a name with brackets or colons in it is no style and no picture of rich's.
    """
    return Console(width=None if sys.stdout.isatty() else 140, markup=False, emoji=False)
