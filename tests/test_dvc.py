"""What reruns when something changes, by the real DVC on a copy of the project.

The commands are replaced by one that writes new outputs within milliseconds and notes its stage: what is tested is
dvc.yaml, whose dependencies, parameters and outputs stay as they are.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
LOG = "ran.txt"

ALWAYS = ["device", "watch"]  # they run every time, and find the same while nothing changed

# Outputs with a suffix are files.
STAND_IN = f"""
import sys, uuid
from pathlib import Path

name, *outputs = sys.argv[1:]
for output in map(Path, outputs):
    path = output if output.suffix else output / "content"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("the same" if name in {ALWAYS} else uuid.uuid4().hex)
with open("{LOG}", "a") as file:
    file.write(name + "\\n")
"""


def stand_in(name: str, stage: dict[str, Any]) -> str:
    """The command in place of a stage's own."""
    outputs = [each for kind in ("outs", "metrics", "plots") for each in stage.get(kind, [])]
    paths = [each if isinstance(each, str) else next(iter(each)) for each in outputs]
    return " ".join([Path(sys.executable).as_posix(), "stand_in.py", name, *paths])


class Project:
    """A copy of the project that DVC has brought up to date."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def repro(self) -> set[str]:
        """Stages that a `dvc repro` ran, without those that always do."""
        (self.folder / LOG).unlink(missing_ok=True)
        command = [sys.executable, "-m", "dvc", "repro", "--quiet"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        ran = (self.folder / LOG).read_text().split()
        assert set(ALWAYS) < {*ran, ""} and len(ran) == len(set(ran))
        return set(ran) - set(ALWAYS)

    def params(self) -> dict[str, Any]:
        values: dict[str, Any] = yaml.safe_load((self.folder / "params.yaml").read_text())
        return values

    def write_params(self, values: dict[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))

    def append(self, name: str, text: str) -> None:
        """Add to a file, which may be new."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text)


def copy_project(folder: Path) -> None:
    """The rooms, params.yaml, and dvc.yaml with commands that only stand in for the stages."""
    for room in ("serving", "pipeline", "export"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    for name, stage in content["stages"].items():
        body = stage.get("do", stage)
        body["cmd"] = stand_in(f"{name}@${{key}}" if "foreach" in stage else name, body)
    (folder / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False, width=10_000))
    (folder / "stand_in.py").write_text(STAND_IN)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "project"
    copy_project(folder)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True, timeout=120)
    assert len(Project(folder).repro()) == 21
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    yield Project(folder)
    shutil.rmtree(folder)


JUDGED = {"benchmark", "certify", "report", "gate"}  # they compare the branches


def of_branch(branch: str, *artifacts: str, first: str = "train") -> set[str]:
    """Everything of one branch from a stage on."""
    stages = ["train", "strip"][["train", "strip"].index(first) :] if first in ("train", "strip") else []
    compiled = {f"compile@{branch}-tensorrt_fp16"} if "onnx_fp16" in artifacts else set()
    exports = {f"export@{branch}-{artifact}" for artifact in artifacts}
    return {f"{stage}@{branch}" for stage in stages} | exports | compiled | {f"verify@{branch}"}


DEPLOYED = ("onnx_fp32", "onnx_fp16", "onnx_int8_u8", "onnx_int8_s8")


def test_an_edited_loss_retrains_its_branches_alone(project: Project) -> None:
    project.append("pipeline/losses/contextrast/loss.py", "\n# edited\n")
    assert project.repro() == of_branch("contextrast-s0", "onnx_fp32") | JUDGED


@pytest.mark.slow
def test_a_methods_settings_retrain_its_branches_alone(project: Project) -> None:
    values = project.params()
    values["methods"]["pixel_contrast"]["temperature"] = 0.2
    project.write_params(values)
    assert project.repro() == of_branch("pixel_contrast-s0", *DEPLOYED) | JUDGED


def test_nothing_reruns_when_nothing_changed_or_new_rooms_came_with_their_registry_lines(project: Project) -> None:
    project.append("pipeline/models/heads/psp.py", '"""A new head."""\n')
    project.append("pipeline/models/heads/__init__.py", "# a new line\n")
    project.append("pipeline/data/datasets/mapillary/dataset.py", '"""A new dataset."""\n')
    project.append("pipeline/data/datasets/__init__.py", "# a new line\n")
    project.append("pipeline/losses/region_contrast/loss.py", '"""A new contrast."""\n')
    project.append("pipeline/losses/__init__.py", "# a new line\n")
    project.append("export/artifacts/onnx_int4/export.py", '"""A new kind of artefact."""\n')
    project.append("export/artifacts/__init__.py", "# a new line\n")
    assert project.repro() == set()


def test_what_is_written_beside_engines_about_them_makes_nothing_stale(project: Project) -> None:
    project.append("artifacts/pixel_contrast-s0/tensorrt_fp16/model.plan.runtime-cache", "kernels")
    project.append("artifacts/pixel_contrast-s0/MODEL_CARD.md", "a card")
    project.append("artifacts/pixel_contrast-s0/MODEL_CARD.intoto.json", "its statement")
    assert project.repro() == set()


@pytest.mark.slow
def test_a_new_method_makes_nothing_stale_before_it_has_a_branch(project: Project) -> None:
    values = project.params()
    values["methods"]["warm"] = {"loss": "pixel_contrast", "temperature": 0.3}
    project.write_params(values)
    assert project.repro() <= {"report", "gate"}  # the report names all methods


def test_a_new_seed_trains_strips_exports_and_verifies_nothing_else(project: Project) -> None:
    values = project.params()
    for method in ("cross_entropy", "contextrast"):
        branch = f"{method}-s1"
        values["branches"][branch] = {"method": method, "loss": method, "seed": 1}
        values["exports"][f"{branch}-onnx_fp32"] = {"branch": branch, "artifact": "onnx_fp32", "kind": "onnx_fp32"}
    project.write_params(values)
    expected = of_branch("cross_entropy-s1", "onnx_fp32") | of_branch("contextrast-s1", "onnx_fp32")
    assert project.repro() == expected | JUDGED


@pytest.mark.slow
def test_options_of_an_artifact_make_that_artifact_again_alone(project: Project) -> None:
    values = project.params()
    values["artifacts"]["onnx_int8_s8"]["options"]["images"] = 30
    project.write_params(values)
    made = {"export@pixel_contrast-s0-onnx_int8_s8", "verify@pixel_contrast-s0"}
    assert project.repro() == made | JUDGED


@pytest.mark.slow
def test_shared_code_redoes_everything_that_imports_it(project: Project) -> None:
    project.append("pipeline/losses/shared/term.py", "\n# edited\n")
    ran = project.repro()
    assert {name for name in ran if name.startswith("train@")} == {
        f"train@{method}-s0" for method in ("cross_entropy", "pixel_contrast", "contextrast")
    }
    project.append("export/report/page.py", "\n# edited\n")
    assert project.repro() == {"report", "gate"}
