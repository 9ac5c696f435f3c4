""".dvcignore: every line is true of a file that this code writes, and without it DVC would take that for an output."""

from __future__ import annotations

from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.layout.paths import MODEL_NAME, PLAN_NAME, SKIPPED_NAME, artifact_dir, branch_dir, stripped_dir
from serving.card.checking import CARD_NAME, STATEMENT_NAME, shipped_files
from serving.contract.manifest import SIDECAR_NAME
from serving.engines.runtimes.onnxruntime import contexts
from serving.engines.runtimes.tensorrt import runtime_cache
from serving.golden.golden import FOLDER_NAME, LATENCY_NAME

DVCIGNORE = Path(__file__).parents[1] / ".dvcignore"
LINES = [line for line in DVCIGNORE.read_text().splitlines() if line and not line.startswith("#")]
ARTIFACT = artifact_dir("pixel_contrast", 0, "onnx_fp32")

# A line, and a file that it is about, as the code that writes it calls it.
ABOUT = {
    "__pycache__/": Path("export/checks/__pycache__/verification.cpython-311.pyc"),
    "*.pyc": Path("export/checks/verification.pyc"),
    ".venv/": Path(".venv/bin/python"),
    "*.runtime-cache": ARTIFACT.with_name("plan") / f"{PLAN_NAME}.0123456789abcdef{runtime_cache.SUFFIX}",
    "*.ep-context": ARTIFACT / f"{MODEL_NAME}.0123456789abcdef.0123456789abcdef{contexts.SUFFIX}",
    "latency.json": ARTIFACT / FOLDER_NAME / LATENCY_NAME,
    "MODEL_CARD.md": branch_dir("pixel_contrast", 0) / CARD_NAME,
    "MODEL_CARD.intoto.json": branch_dir("pixel_contrast", 0) / STATEMENT_NAME,
}
OUTPUTS = (
    *(
        ARTIFACT / name
        for name in (MODEL_NAME, SIDECAR_NAME, f"{FOLDER_NAME}/golden.json", f"{FOLDER_NAME}/golden.npz")
    ),
    *(ARTIFACT.with_name("plan") / name for name in (PLAN_NAME, SKIPPED_NAME)),
    stripped_dir("pixel_contrast", 0) / "segmentor.json",
    Path("data/prepared/dataset.json"),
    Path("reports/report.json"),
    Path("export/checks/verification.py"),
)


def ignored(folder: Path, lines: list[str]) -> set[Path]:
    """Which of the files DVC passes by in a project with this .dvcignore."""
    (folder / ".dvcignore").write_text("\n".join(lines) + "\n")
    for path in (*ABOUT.values(), *OUTPUTS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    with Repo(str(folder)) as repo:
        seen = {Path(root) / name for root, _, names in repo.dvcignore.walk(repo.fs, str(folder)) for name in names}
    return {path for path in (*ABOUT.values(), *OUTPUTS) if folder / path not in seen}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of DVC's with nothing in it."""
    Repo.init(str(tmp_path), no_scm=True).close()
    return tmp_path


def test_every_line_is_of_a_file_that_is_no_output_and_no_output_is_passed_by(project: Path) -> None:
    assert list(ABOUT) == LINES, "a line without a file here, or the reverse"
    assert ignored(project, LINES) == set(ABOUT.values())


@pytest.mark.parametrize("line", [line for line in LINES if line not in ("__pycache__/", "*.pyc")])
def test_without_a_line_its_file_would_be_part_of_an_output(project: Path, line: str) -> None:
    assert ignored(project, [each for each in LINES if each != line]) == set(ABOUT.values()) - {ABOUT[line]}


def test_of_compiled_python_one_line_holds_for_the_other(project: Path) -> None:
    """Python 3 writes them into `__pycache__`; both names are there for what lies beside a module all the same."""
    rest = [line for line in LINES if line != "*.pyc"]
    assert ABOUT["*.pyc"] not in ignored(project, rest)


def test_what_dvc_passes_by_in_a_branch_is_what_no_statement_lists(project: Path) -> None:
    passed_by = {path for path in ignored(project, LINES) if path.is_relative_to("artifacts")}
    folder = branch_dir("pixel_contrast", 0)
    listed = {folder / name for name in shipped_files(project / folder)}
    in_a_branch = {path for path in (*ABOUT.values(), *OUTPUTS) if path.is_relative_to(folder)}
    assert in_a_branch - listed - passed_by == {ARTIFACT.with_name("plan") / SKIPPED_NAME}
    assert not listed & passed_by
