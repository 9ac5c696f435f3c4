"""Checkpoints of an unfinished training: whole files, the last few kept, for one set of settings, data and code.

    runs/BRANCH/checkpoints/
        lock                                  held while a training of the branch runs
        FINGERPRINT/                          one folder per set of settings, data and code
            iteration-00000150.safetensors    the tensors
            iteration-00000150.json           {iteration, fingerprint, sha256 (of the tensors), state, state_sha256}

The JSON is written last and names the hashes of the tensors' file and of its own state: without it, or with another
hash, there is no checkpoint.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from pipeline.models.network.weights import load_tensors, save_tensors
from serving.contract.errors import UserError
from serving.contract.files import file_sha256, require_writable, write_json

_LOCK = "lock"
_OTHERS_KEPT = 1  # states of other settings, data or code, the newest: a run by mistake must not cost a long training


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One state of a training.

    Attributes:
        iteration: finished iterations.
        tensors: by name.
        state: the rest, as JSON holds it.
    """

    iteration: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one branch; a context in which no other process trains it.

    Args:
        folder: for the branch; an attribute too.
        fingerprint: of everything that determines the training; what was written under another one is not read.
        keep: how many checkpoints stay, at least 1.
        say: shows one line to whoever started the training.

    Raises:
        UserError: entering: another process trains this branch, or the folder cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: str, *, keep: int, say: Callable[[str], None]) -> None:
        self.folder = folder
        self._fingerprint = fingerprint
        self._own = folder / fingerprint[:16]
        self._keep = keep
        self._say = say
        self._lock: int | None = None

    def __enter__(self) -> CheckpointStore:
        require_writable(self.folder)
        self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # A lock of the process: one of the open file would outlive a killed training in its data workers.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX leaves open which
            holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise UserError(
                f"{self.folder}: process {holder} trains this branch already; wait until it ends, or end it"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)  # which gives the lock up
            self._lock = None

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None. Damaged ones that are newer are set aside, with a warning."""
        self._clean()
        for iteration in reversed(self._iterations()):
            tensors_path, header_path = self._paths(iteration)
            try:
                header = json.loads(header_path.read_text(encoding="utf-8"))
                if file_sha256(tensors_path) != header["sha256"]:
                    raise ValueError("the tensors are not those that were written")
                if _state_sha256(header["state"]) != header["state_sha256"]:
                    raise ValueError("the state is not the one that was written")
                if header["fingerprint"] != self._fingerprint or header["iteration"] != iteration:
                    raise ValueError("it belongs to another training")
                return Checkpoint(iteration, load_tensors(tensors_path, made_by="train"), header["state"])
            except (UserError, OSError, ValueError, KeyError, TypeError) as error:
                for path in (tensors_path, header_path):
                    if path.exists():
                        path.replace(path.with_name(path.name + ".damaged"))
                detail = " ".join(str(error).split())
                self._say(f"warning: {tensors_path} is damaged ({detail}); it is set aside as *.damaged")
        return None

    def save(self, iteration: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, whole or not at all, and remove those before the last `keep`.

        Raises:
            UserError: it cannot be written; the earlier ones are as they were.
        """
        tensors_path, header_path = self._paths(iteration)
        try:
            header_path.unlink(missing_ok=True)  # a damaged one may have had this iteration
            save_tensors(tensors, tensors_path)
            header = {"iteration": iteration, "fingerprint": self._fingerprint, "state": state}
            hashes = {"sha256": file_sha256(tensors_path), "state_sha256": _state_sha256(state)}
            write_json(header_path, {**header, **hashes})
        except UserError as error:
            tensors_path.unlink(missing_ok=True)
            raise UserError(
                f"{error}; this was a checkpoint of the training: those before it are whole, and once there is room "
                "the same command goes on from the last one"
            ) from error
        for old in self._iterations()[: -self._keep]:
            self._remove(old)

    def forget(self) -> None:
        """Remove the state of this training: it is finished, or starts over."""
        shutil.rmtree(self._own, ignore_errors=True)

    def _clean(self) -> None:
        """Remove what a killed process left half-written; say what other settings left, and keep the newest of it."""
        for path in self._own.glob(".*"):
            path.unlink()
        for path in self._own.glob("*.safetensors"):
            if not path.with_suffix(".json").exists():
                path.unlink()
        others = [path for path in self.folder.iterdir() if path.is_dir() and path != self._own]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[_OTHERS_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
        for path in others[:_OTHERS_KEPT]:
            if found := _iterations_in(path):
                self._say(
                    f"{path} holds iteration {found[-1]} of a training with other settings, data or code: it is not "
                    "used, and replaced by the next such state"
                )

    def _iterations(self) -> list[int]:
        return _iterations_in(self._own)

    def _paths(self, iteration: int) -> tuple[Path, Path]:
        path = self._own / f"iteration-{iteration:08}"
        return path.with_suffix(".safetensors"), path.with_suffix(".json")

    def _remove(self, iteration: int) -> None:
        for path in reversed(self._paths(iteration)):  # the JSON first: without it the rest is no checkpoint
            path.unlink(missing_ok=True)


def _state_sha256(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _iterations_in(folder: Path) -> list[int]:
    names = (path.stem.removeprefix("iteration-") for path in folder.glob("iteration-*.json"))
    return sorted(int(name) for name in names if name.isdecimal())
