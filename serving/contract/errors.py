"""Errors meant for the person at the keyboard, and how a command shows them."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user can mend. The message says what, got, expected and what to do; no traceback is shown."""


class UnavailableError(UserError):
    """This machine lacks what the request needs (a package, a GPU, an instruction set); the files may be fine."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` when a known name is close to `name`, else the list of known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known) or 'none'}"


def run_command(main: Callable[[], int]) -> None:
    """Run a command's `main` and exit with its status: 2 and one message on a `UserError`, 130 on Ctrl-C."""
    try:
        status = main()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        status = 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        status = 130
    sys.exit(status)
