"""Names of files, as they are compared and as they are shown."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from serving.contract.errors import shown


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC): macOS writes `e` and an accent as two, others as one."""
    return unicodedata.normalize("NFC", name)


def relative_name(path: Path, root: Path) -> str:
    """A file's place below the dataset's folder, printable."""
    return shown(Path(os.path.relpath(path, root)).as_posix())
