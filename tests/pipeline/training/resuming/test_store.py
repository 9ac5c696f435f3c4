"""Checkpoints on disk: whole or none, the last few, of one training, of one process."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.training.resuming import store as module
from pipeline.training.resuming.store import CheckpointStore
from serving.contract.errors import UserError

# Forking is what these tests are about; torch has no threads of its own at one thread.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

MINE = "a" * 64


def opened(folder: Path, said: list[str] | None = None, fingerprint: str = MINE, keep: int = 2) -> CheckpointStore:
    return CheckpointStore(folder, fingerprint, keep=keep, say=(said if said is not None else []).append)


def save(store: CheckpointStore, iteration: int) -> None:
    store.save(iteration, {"weight": torch.full((3,), float(iteration))}, {"note": iteration})


def test_the_newest_comes_back_and_the_last_few_stay(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert store.latest() is None
        for iteration in (50, 100, 150):
            save(store, iteration)
        found = store.latest()
        assert found is not None and found.iteration == 150 and found.state == {"note": 150}
        assert torch.equal(found.tensors["weight"], torch.full((3,), 150.0))
    names = sorted(path.name for path in (tmp_path / MINE[:16]).iterdir())
    assert names == [f"iteration-00000{each}.{end}" for each in (100, 150) for end in ("json", "safetensors")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, header: tensors.write_bytes(tensors.read_bytes()[:-1]),
        lambda tensors, header: tensors.unlink(),
        lambda tensors, header: header.write_text("{"),
        lambda tensors, header: header.write_text("[]"),
        lambda tensors, header: header.write_text(
            json.dumps({**json.loads(header.read_text()), "fingerprint": "b" * 64})
        ),
        lambda tensors, header: header.write_text(header.read_text().replace('"note": 100', '"note": 900')),
    ],
    ids=["cut short", "gone", "no JSON", "other JSON", "of another training", "a changed digit"],
)
def test_a_damaged_one_is_set_aside_with_a_warning(tmp_path: Path, damage: Callable[[Path, Path], None]) -> None:
    said: list[str] = []
    with opened(tmp_path, said) as store:
        save(store, 50)
        save(store, 100)
        newest = tmp_path / MINE[:16] / "iteration-00000100.safetensors"
        damage(newest, newest.with_suffix(".json"))
        found = store.latest()
        assert found is not None and found.iteration == 50
        assert len(said) == 1 and "iteration-00000100.safetensors is damaged" in said[0]
        assert newest.with_name(f"{newest.with_suffix('.json').name}.damaged").exists()
        again = store.latest()
        assert again is not None and again.iteration == 50 and len(said) == 1
        save(store, 100)
        again = store.latest()
        assert again is not None and again.iteration == 100


def test_a_kill_between_the_two_files_leaves_no_checkpoint(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        save(store, 50)
        pid = os.fork()
        if pid == 0:
            module.__dict__["write_json"] = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            save(store, 100)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        (tmp_path / MINE[:16] / ".iteration-00000150.safetensors.x.safetensors").write_bytes(b"half")
        found = store.latest()
        assert found is not None and found.iteration == 50
        assert sorted(path.suffix for path in (tmp_path / MINE[:16]).iterdir()) == [".json", ".safetensors"]


def test_two_processes_do_not_train_one_branch(tmp_path: Path) -> None:
    with opened(tmp_path):
        pid = os.fork()
        if pid == 0:
            try:
                opened(tmp_path).__enter__()
            except UserError as error:
                os._exit(0 if f"process {os.getppid()} trains this branch already" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with opened(tmp_path):
        pass


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    """Its data workers, which end some seconds later, hold it no longer."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        opened(tmp_path).__enter__()
        if os.fork() == 0:
            os.read(reading, 1)  # until the test is done
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(reading)
    os.waitpid(pid, 0)
    with opened(tmp_path):
        pass
    os.close(writing)


def test_states_of_other_trainings_are_said_and_one_is_kept(tmp_path: Path) -> None:
    for index, other in enumerate("bc"):
        with opened(tmp_path, fingerprint=other * 64) as store:
            save(store, 50)
        moment = time.time() - 100 + index
        os.utime(tmp_path / (other * 16), (moment, moment))
    said: list[str] = []
    with opened(tmp_path, said) as store:
        assert store.latest() is None
        save(store, 10)
        store.forget()
    assert len(said) == 1 and f"{tmp_path / ('c' * 16)} holds iteration 50 of a training with other settings" in said[0]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["c" * 16]


def test_a_checkpoint_that_cannot_be_written_leaves_those_before(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: both are an error of the write."""
    import resource

    with opened(tmp_path) as store:
        save(store, 50)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                store.save(100, {"weight": torch.zeros(1_000_000)}, {})
            except UserError as error:
                os._exit(3 if "cannot be written" in str(error) and "those before it are whole" in str(error) else 4)
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        found = store.latest()
        assert found is not None and found.iteration == 50
        assert not [path for path in (tmp_path / MINE[:16]).iterdir() if "100" in path.name]
