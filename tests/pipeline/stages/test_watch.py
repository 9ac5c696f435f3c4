"""`dvc repro` notices that the data changed, and does nothing where it did not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.stages import watch
from serving.contract.errors import UserError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Eight pairs of three classes."""
    root = tmp_path / "own"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for index in range(8):
        add_pair(root, index)
    (root / "classes.txt").write_text("ground\ndisc\nbar\n")
    return root


def add_pair(root: Path, index: int) -> None:
    noise = np.random.default_rng(index).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / f"images/p{index:02}.png")
    label = np.repeat(np.arange(12, dtype=np.uint8)[None] // 4, 8, axis=0)
    Image.fromarray(np.roll(label, index)).save(root / f"labels/p{index:02}.png")


def write_params(folder: Path, **prepare: Any) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump({"prepare": prepare}))


class TestStage:
    @pytest.fixture(autouse=True)
    def workplace(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["watch"])

    def run(self) -> dict[str, Any]:
        assert watch.main() == 0
        content: dict[str, Any] = json.loads(Path("data/watched.json").read_text())
        return content

    def test_a_generated_dataset_never_changes(self, tmp_path: Path) -> None:
        write_params(tmp_path, dataset="streets", root=None)
        assert self.run() == {"files": 0, "sha256": "", "size_bytes": 0}

    def test_the_folder_is_looked_at(self, tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OWN_DATA", str(own))
        write_params(tmp_path, dataset="folder", root="$OWN_DATA")
        before = self.run()
        assert before["files"] == 17
        add_pair(own, 8)
        assert self.run()["files"] == 19

    def test_content_is_read_when_asked(self, tmp_path: Path, own: Path) -> None:
        write_params(tmp_path, dataset="folder", root=str(own), hash="content")
        before, path = self.run(), own / "classes.txt"
        times = path.stat()
        path.write_text("ground\nring\nbar\n"[: times.st_size])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert self.run() != before

    def test_the_project_may_lie_in_its_own_data(self, tmp_path: Path, own: Path) -> None:
        write_params(tmp_path, dataset="folder", root=".")
        assert self.run() == self.run()

    @pytest.mark.parametrize("prepare", [{"dataset": "folder", "root": 3}, ["folder"], "folder"])
    def test_what_is_no_section_is_one_message(self, tmp_path: Path, prepare: Any) -> None:
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"prepare": prepare}))
        with pytest.raises(UserError, match="prepare"):
            watch.main()


@pytest.mark.slow
def test_dvc_prepares_again_what_changed_and_nothing_else(repository: Path, tmp_path: Path, own: Path) -> None:
    """Labels that were corrected and pairs that were added after the first run; a copy of the data, touched."""
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    stages = {name: stages[name] for name in ("watch", "prepare")}
    code = [path for path in stages["prepare"]["deps"] if not path.startswith("data/")]
    stages["prepare"]["deps"] = [path for path in stages["prepare"]["deps"] if path not in code]
    project = tmp_path / "project"
    project.mkdir()
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    params = yaml.safe_load((repository / "params.yaml").read_text())
    params["prepare"] = {"dataset": "folder", "root": str(own), "options": {"test_fraction": 0.2}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": search, "PYTHONPATH": str(repository), "DVC_NO_ANALYTICS": "1"}
    environment |= {"DVC_SITE_CACHE_DIR": str(tmp_path / "site")}

    def dvc(*arguments: str) -> str:
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def prepared() -> dict[str, Any]:
        content: dict[str, Any] = json.loads((project / "data/prepared/dataset.json").read_text())
        return content

    dvc("init", "--no-scm", "--quiet")
    dvc("repro")
    first = prepared()
    assert "Stage 'prepare' didn't change" in dvc("repro")
    for path in sorted((own / "labels").iterdir()):
        label = np.array(Image.open(path))
        label[label == 1] = 2
        label[0, 0] = 1
        Image.fromarray(label).save(path)
    add_pair(own, 20)
    assert "Running stage 'prepare'" in dvc("repro")
    second = prepared()
    assert sum(map(len, second["splits"].values())) == 9 and second["class_pixels"] != first["class_pixels"]
    assert second["sha256"] != first["sha256"]
    os.utime(own / "classes.txt", ns=(0, 0))
    dvc("repro")
    assert prepared() == second
