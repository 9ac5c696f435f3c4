"""The documentation as a site: each page is in it, each link leads to something in it, it is built and looked at."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documents.markdown import ROOT, links
from tests.documents.project import copy_of_tracked_files

CHROMIUM = shutil.which("chromium")
SITE = ROOT / "docs" / "site"
ENVIRONMENT = ROOT / ".docs"


def stage_module() -> Any:
    spec = importlib.util.spec_from_file_location("stage", SITE / "stage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STAGE = stage_module()
STAGED = set(STAGE.staged_files())
CONFIG = yaml.safe_load((SITE / "mkdocs.yml").read_text(encoding="utf-8"))


def pages_of(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages_of(each)


def test_every_page_is_in_the_navigation_once_and_every_entry_is_a_page() -> None:
    reference = {f"docs/reference/{name}.md" for name in STAGE.REFERENCE}
    found = list(pages_of(CONFIG["nav"]))
    assert sorted(found) == sorted({name for name in STAGED if name.endswith(".md")} | reference)


def test_every_link_leads_to_something_that_the_site_holds() -> None:
    broken = []
    for page in (name for name in STAGED if name.endswith(".md")):
        for line, target in links(page):
            path = target.partition("#")[0]
            if path and not re.match(r"(?:https?|mailto):", target):
                file = Path(os.path.normpath(Path(page).parent / path)).as_posix()
                if file not in STAGED:
                    broken.append(f"{page}:{line}: {target}")
    assert broken == [], "LINKED of docs/site/stage.py names what pages link to"


def test_the_reference_is_of_modules_that_are_there_and_holds_no_engine() -> None:
    modules = [module for _, _, listed in STAGE.REFERENCE.values() for module in listed]
    assert len(set(modules)) == len(modules) >= 30
    missing = [module for module in modules if not (ROOT / f"{module.replace('.', '/')}.py").is_file()]
    assert not missing
    assert "::: serving.engines.predictor" in STAGE.reference_page("serving")
    assert not [name for name in STAGED if name.endswith((".onnx", ".npz"))]


def test_what_builds_it_is_pinned() -> None:
    lines = [line for line in (SITE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 20 and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` does, without a network."""
    if not (ENVIRONMENT / "bin" / "python").is_file():
        pytest.skip(f"no environment {ENVIRONMENT}: make docs")
    project = copy_of_tracked_files(tmp_path_factory.mktemp("site") / "contrail")
    (project / ".docs").symlink_to(ENVIRONMENT)
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-o", ".docs/.installed", "docs"]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return project / "build" / "site"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_it_is_built_and_its_first_page_has_no_serious_fault_for_axe(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `dev` is not installed")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `dev` is not installed")
    assert "serving.engines.predictor.Predictor" in (site / "docs" / "reference" / "serving.html").read_text()
    for name in STAGE.REFERENCE:
        reference = (site / "docs" / "reference" / f"{name}.html").read_text()
        assert "&gt;&gt;&gt; " in reference and "<blockquote>" not in reference, "examples are code"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto((site / "index.html").as_uri())
            page.wait_for_selector(".md-typeset__scrollwrap[tabindex]", state="attached")
            found = axe.Axe().run(page).response["violations"]
            assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == [], scheme
            assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
        browser.close()
