"""What other programs tell of this machine."""

from __future__ import annotations

import shutil
import subprocess


def output_of(*command: str) -> str | None:
    """Standard output of a command; None when it is not there, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def query_gpus(*fields: str) -> list[list[str]]:
    """One row of texts per NVIDIA GPU; none where there is no driver.

    Args:
        fields: as `nvidia-smi --help-query-gpu` names them.
    """
    text = output_of("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits") or ""
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines()]
    return [row for row in rows if len(row) == len(fields)]
