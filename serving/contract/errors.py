"""Errors meant for the person at the keyboard, and how a command shows them."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

_INTERRUPTED, _INTERRUPTED_STATUS = "interrupted\n", 130


class UserError(Exception):
    """Something the user can mend. The message says what, got, expected and what to do; no traceback is shown."""


class UnavailableError(UserError):
    """This machine lacks what the request needs (a package, a GPU, an instruction set); the files may be fine."""


class EngineError(UserError):
    """The engine failed on an image that is sound; others may go through it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` when a known name is close to `name`, else the list of known names.

    Example:
        >>> did_you_mean("contrst", ["contrast", "cross_entropy"])
        "; did you mean 'contrast'?"
        >>> did_you_mean("dice", ["contrast", "cross_entropy"])
        '; known: contrast, cross_entropy'
    """
    known = sorted(known)
    import difflib  # only now: few runs hold a slip, and every cold start would wait for it

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known) or 'none'}"


def shown(text: object) -> str:
    r"""A name as one line that any terminal takes and none obeys.

    File names may hold line breaks, escape sequences and bytes that are no UTF-8 (which Python keeps as lone
    surrogates): each is written as an escape.

    >>> shown("caf\udce9\n.jpg")
    'caf\\xe9\\n.jpg'
    """
    name = str(text)
    return name if name.isprintable() else "".join(map(_shown_character, name))


def end_on_interrupt() -> None:
    """From now on Ctrl-C is one line and status 130 where nothing else handles it, as in `run_command`.

    For packages of commands: importing what a command needs takes seconds, and comes before `run_command`.
    """
    before = sys.excepthook

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write(_INTERRUPTED)
            sys.exit(_INTERRUPTED_STATUS)
        before(kind, error, trace)

    sys.excepthook = end


def run_command(main: Callable[[], int]) -> None:
    """Run a command's `main` and exit with its status: 2 and one message on a `UserError`, 130 on Ctrl-C.

    Output that the terminal's encoding does not hold is escaped; where nobody reads it any more (`| head`), the command
    ends with status 141, as one that the closed pipe killed. Where there is no room for it, that is one line and
    status 1; where a stream was closed before the command began (`>&-`), what goes there is dropped.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main()
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write("error: " + "\n".join(map(shown, str(error).split("\n"))) + "\n")
        status = 2
    except KeyboardInterrupt:
        sys.stderr.write(_INTERRUPTED)
        status = _INTERRUPTED_STATUS
    except BrokenPipeError:
        _drop_output()
        status = 141
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            sys.stderr.write(f"error: standard output: cannot be written: {error.strerror}\n")
            _drop_output()
            status = 1
        elif isinstance(error, FileNotFoundError) and not _is_somewhere():
            sys.stderr.write("error: the folder that this was started in is gone; change to one that is there\n")
            status = 2
        else:
            raise
    sys.exit(status)


def _drop_output() -> None:
    """Let nothing be written any more, or the interpreter fails as it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_somewhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _shown_character(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"  # a byte of an undecodable name
    import unicodedata  # only now: few names need it

    # Controls, formats (they turn the direction of writing), surrogates, separators of lines and paragraphs.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character
