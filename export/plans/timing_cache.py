"""Measured times of TensorRT's kernels, shared by all builds of one graph structure on one machine.

TensorRT chooses kernels by timing them, and noise decides where two are near each other: two builds of one graph may
get other kernels. What was timed once is taken from the cache, so that equal graphs get equal kernels whatever their
weights, and who compares two methods does not compare two draws.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.layout.paths import RUNS_DIR
from serving.contract.files import write_atomically

TIMING_CACHES_DIR = RUNS_DIR / "timing-caches"  # of no stage: what one build has timed the next one needs


@dataclass(frozen=True)
class TimingCaches:
    """The caches of a machine.

    Attributes:
        folder: that they lie in.
        hardware_sha256: of the machine, as in device.json.
    """

    folder: Path
    hardware_sha256: str

    def of(self, library: Any, gpu: str, structure_sha256: str) -> TimingCache:
        """The cache for one graph structure, of any weights.

        Args:
            library: `tensorrt`; caches are of one version.
            gpu: name of the GPU that it builds on.
            structure_sha256: as in the manifest of the ONNX file.
        """
        key = "\n".join((self.hardware_sha256, gpu, library.__name__, library.__version__, structure_sha256))
        return TimingCache(self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.cache")


class TimingCache:
    """The cache of one build.

    Args:
        path: of the shared file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._given = path.read_bytes() if path.exists() else b""

    def attach(self, config: Any) -> None:
        """Let a builder use what was timed before; a cache that it does not take is begun anew."""
        if not config.set_timing_cache(config.create_timing_cache(self._given), ignore_mismatch=False):
            self._given = b""
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def keep(self, config: Any) -> str:
        """Save what the build has timed beyond what was there; returns the SHA-256 of the file."""
        timed = bytes(config.get_timing_cache().serialize())
        # Entries are only added, so that equally many bytes are the same entries, perhaps in another order.
        if len(timed) != len(self._given):
            write_atomically(self._path, timed)
            self._given = timed
        return hashlib.sha256(self._given).hexdigest()
