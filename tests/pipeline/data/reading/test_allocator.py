from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from pipeline.data.reading.allocator import keep_freed_memory

# 24 MB taken and freed over and over: without the setting every round maps its pages anew.
CHURN = """
import resource
import sys
from pipeline.data.reading.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
blocks = [bytearray(64 * 1024) for _ in range(100)]
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [bytearray(64 * 1024) + b"x" for _ in range(100)]
    whole = b"".join(blocks)
    del blocks, whole
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_memory_is_mapped_once() -> None:
    faults = {}
    for mode in ("keep", "default"):
        run = subprocess.run([sys.executable, "-c", CHURN, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(run.stdout)
    assert faults["default"] > 5 * faults["keep"]


def test_another_c_library_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
    monkeypatch.setattr("sys.platform", "darwin")
    assert keep_freed_memory() is False
