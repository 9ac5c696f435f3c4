"""How a command ends where its streams or its folder are not what they should be: in one line, or none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
COMMAND = """
import os, sys
sys.path.insert(0, sys.argv[1])
from serving.contract.errors import run_command
def main():
    sys.stderr.write("note" + chr(10))
    sys.stdout.write(os.path.abspath("x") + chr(10))
    return sys.stdin.read() == "" and 0
run_command(main)
"""
NO_ROOM = "note\nerror: standard output: cannot be written: No space left on device\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize(
    ("shell", "status", "said"),
    [
        (">/dev/full", 1, NO_ROOM),
        (">&-", 0, "note\n"),
        ("2>&-", 0, ""),
        ("<&-", 0, "note\n"),
        ("", 2, "note\nerror: the folder that this was started in is gone; change to one that is there\n"),
    ],
)
def test_streams_that_are_full_or_closed_and_a_folder_that_is_gone_are_no_traceback(tmp_path, shell, status, said):
    gone = "" if shell else "mkdir gone && cd gone && rmdir ../gone && "
    command = f'{gone}"$0" -c "$1" "$2" {shell}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, COMMAND, str(ROOT)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize(
    "module",
    ["pipeline.stages.train", "pipeline.commands.evaluate", "export.stages.verify", "export.commands.readme"],
)
def test_ctrl_c_while_a_command_still_imports_what_it_needs_is_one_line(tmp_path, module):
    """Whatever it imports first of numpy and torch is where the signal comes: each of them takes its time.

    A shell that starts tests in the background has them ignore it, and so the command: it is given its handler back.
    """
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    for name in ("numpy", "torch"):
        (tmp_path / f"{name}.py").write_text(f"import os, signal\n{heard}\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", module], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_other_errors_of_such_a_command_are_shown_as_ever(tmp_path):
    (tmp_path / "numpy.py").write_text("raise RuntimeError('broken')\n")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.stages.train"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" in done.stderr and "RuntimeError: broken" in done.stderr
