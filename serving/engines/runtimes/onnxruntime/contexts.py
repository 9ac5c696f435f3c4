"""What an execution provider compiled of an engine, kept beside it: an ONNX graph of `EPContext` nodes.

The file is no part of the engine: it may be missing or deleted, and is of one machine. Its name holds the engine's
sha256, and its first line that of all that it was compiled for and of its content, so that one of another engine,
device, version or option, or a damaged one, is not opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from serving.contract.errors import UserError
from serving.contract.files import write_atomically

SUFFIX = ".ep-context"
_DIGITS = 16  # of a hash, in the name


class ContextCache:
    """The compiled form of one engine for one provider on one device.

    Args:
        engine_path: the ONNX file.
        sha256: of it.
        compiled_for: all else that the compiled form depends on, as plain values.
    """

    def __init__(self, engine_path: Path, sha256: str, compiled_for: Mapping[str, object]) -> None:
        described = json.dumps([sha256, compiled_for], sort_keys=True, default=str)
        self._key = hashlib.sha256(described.encode()).hexdigest()
        self._folder, self._prefix = engine_path.parent, f"{engine_path.name}."
        self._own = f"{self._prefix}{sha256[:_DIGITS]}"
        self.path = self._folder / f"{self._own}.{self._key[:_DIGITS]}{SUFFIX}"

    def read(self) -> bytes | None:
        """The compiled graph; None where there is none that is whole and of this engine."""
        try:
            header, _, content = self.path.read_bytes().partition(b"\n")
        except OSError:
            return None
        return content if header == self._header(content) else None

    def write(self, content: bytes) -> None:
        """Keep a compiled graph, where the folder can be written, and remove those of earlier engines of this name."""
        with contextlib.suppress(OSError, UserError):
            write_atomically(self.path, self._header(content) + b"\n" + content)
            for other in self._folder.glob(f"*{SUFFIX}"):
                if other.name.startswith(self._prefix) and not other.name.startswith(f"{self._own}."):
                    other.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what the provider no longer opens."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _header(self, content: bytes) -> bytes:
        return hashlib.sha256(self._key.encode() + content).hexdigest().encode()
