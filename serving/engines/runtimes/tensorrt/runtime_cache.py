"""What TensorRT-RTX has compiled for this GPU, kept beside the plan: without it, it compiles anew at every open.

The file is no part of the engine: it may be missing or deleted, and is of one machine. TensorRT-RTX itself refuses one
of another version, GPU or driver, or a damaged one, before it takes anything of it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from serving.contract.errors import UserError
from serving.contract.files import write_atomically

SUFFIX = ".runtime-cache"


class RuntimeCache:
    """The kernels compiled for one plan.

    Args:
        config: runtime configuration of the open engine; the context made with it fills the cache.
        engine_path: of the plan.

    Attributes:
        found: whether kernels of an earlier run are in use.
    """

    def __init__(self, config: Any, engine_path: Path) -> None:
        self._path = engine_path.with_name(engine_path.name + SUFFIX)
        self._cache: Any = config.create_runtime_cache()
        try:
            self._saved = self._path.read_bytes()
        except OSError:
            self._saved = b""
        self.found = bool(self._saved) and bool(self._cache.deserialize(self._saved))
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write down what was compiled since, where the folder can be written; else the next open compiles again."""
        memory = self._cache.serialize()
        compiled = b"" if memory is None else bytes(memory)
        if compiled not in (b"", self._saved):
            with contextlib.suppress(OSError, UserError):
                write_atomically(self._path, compiled)
                self._saved = compiled
