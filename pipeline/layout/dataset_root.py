"""Where the dataset's folder is: `prepare.root` of params.yaml with its variables. Light to import."""

from __future__ import annotations

import os
import re
from pathlib import Path

from serving.contract.errors import UserError

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def resolve_root(text: str | None) -> Path | None:
    """The dataset's folder from `prepare.root`: environment variables and `~` expanded; None stays None.

    Raises:
        UserError: a variable that is not set or empty; the message lists all of them.
    """
    if text is None:
        return None
    names = [match.group(1).strip("{}") for match in _VARIABLE.finditer(text)]
    unset = [name for name in names if not os.environ.get(name)]
    if unset:
        raise UserError(
            f"prepare.root is {text!r}, but the environment variable {' and '.join(unset)} is not set; "
            f"set it to the dataset's folder: export {unset[0]}=/path/to/dataset"
        )
    return Path(_VARIABLE.sub(lambda match: os.environ[match.group(1).strip("{}")], text)).expanduser()
