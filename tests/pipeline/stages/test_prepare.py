"""The stage leaves nothing half-written behind, however it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.data.preparing import preparation
from pipeline.data.preparing.config import PrepareConfig
from pipeline.stages import prepare


@pytest.fixture
def handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handlers")
def test_sigterm_removes_what_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PrepareConfig(options={"train": 2, "val": 1, "test": 1, "height": 32, "width": 32})
    monkeypatch.setattr(prepare, "load_params", lambda: SimpleNamespace(prepare=config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prepare"])

    def look_at(*arguments: object, **options: object) -> None:
        (partial,) = Path("data").iterdir()
        assert len(list(partial.rglob("*.png"))) == 8
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(preparation, "look_at", look_at)
    signal.signal(signal.SIGTERM, lambda number, frame: pytest.fail("the stage takes SIGTERM itself"))
    with pytest.raises(SystemExit) as caught:
        prepare.main()
    assert caught.value.code == 128 + signal.SIGTERM
    assert list(Path("data").iterdir()) == []
