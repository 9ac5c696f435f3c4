"""Everything that a page names is there: links, files, modules, their flags, targets of make, recipes."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline.recipes import load_recipe
from serving.command_line import COMMANDS, STAGES
from serving.contract.command import PROGRAM
from serving.contract.errors import UserError
from tests.documents.markdown import ROOT, Command, blocks, codes, commands, headings, is_history, links, pages

PAGES = pages()
LIVING = [page for page in PAGES if not is_history(page)]
FOLDERS = ("pipeline", "export", "serving", "tests", "docs", "recipes", "studies", "benchmarks", "metrics", ".github")
_PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./*{{}},-]*")
_DOTTED = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:\.\w+)+")
# What users write where they like, and what a page proposes to write.
PROPOSED = ("docs/extending.md",)


def _broken_links(page: str) -> Iterator[str]:
    for line, target in links(page):
        if re.match(r"(?:https?|mailto):", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists():
            yield f"{page}:{line}: {target}: no such file"
        elif anchor and file.suffix == ".md" and anchor not in headings(str(file.resolve().relative_to(ROOT))):
            yield f"{page}:{line}: {target}: no such heading"


def _braced(pattern: str) -> list[str]:
    """`a.{b,c}` as a shell expands it."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    return [each for choice in found[1].split(",") for each in _braced(pattern.replace(found[0], choice.strip(), 1))]


def _missing_paths(page: str) -> Iterator[str]:
    for line, code in codes(page):
        for path in _braced(code) if _PATH.fullmatch(code) else ():
            there = list(ROOT.glob(path.rstrip("/"))) if "*" in path else [ROOT / path]
            placeholder = any(part.isupper() for part in re.split(r"[./]", path))
            if not placeholder and not (there and there[0].exists()):
                yield f"{page}:{line}: {path}: no such file or folder"


def _exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            if importlib.util.find_spec(".".join(parts[:end])) is None:
                continue
        except ModuleNotFoundError:
            continue
        found: object = importlib.import_module(".".join(parts[:end]))
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def _missing_names(page: str) -> Iterator[str]:
    for line, code in codes(page):
        name = code.removesuffix("()")
        if _DOTTED.fullmatch(name) and not re.search(r"\.(py|md|yaml|json|onnx|svg)$", name) and not _exists(name):
            yield f"{page}:{line}: {code}: no such module, nor anything of that name in one"


@cache
def targets_of_make() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@cache
def help_of(module: str) -> str:
    """What `python -m module --help` writes."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"python -m {module} --help: {done.stderr}"
    return done.stdout


def simple_commands(command: Command) -> Iterator[list[str]]:
    """The words of each program that a line calls: what `&&`, `;`, `|` and a final `&` separate."""
    if command.is_script:
        return
    for part in re.split(r"&&|;|\||&$", command.text.replace("[", " ").replace("]", " ")):
        words = shlex.split(part)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables of this command alone
            words = words[1:]
        if words:
            yield words


def modules_run(page: str) -> Iterator[tuple[Command, str, list[str]]]:
    """(command, module, its arguments) of every `python -m module` and every `contrail VERB` of a page."""
    for command in commands(page):
        for words in simple_commands(command):
            if Path(words[0]).name == "python" and words[1:2] == ["-m"] and len(words) > 2:
                yield command, words[2], words[3:]
            if words[0] == PROGRAM and not words[1].startswith("-"):
                known, rest = (STAGES, words[2:]) if words[1] == "stage" else (COMMANDS, words[1:])
                if rest and not rest[0].startswith("-"):
                    yield command, known[rest[0]].module if rest[0] in known else f"no verb {rest[0]}", rest[1:]


def _unknown_programs(page: str) -> Iterator[str]:
    for command in commands(page):
        where = f"{command.page}:{command.line}: {command.text}"
        for words in simple_commands(command):
            if words[0] == "make":
                named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
                yield from (f"{where}: no target {each}" for each in named if each not in targets_of_make())
    for command, module, _ in modules_run(page):
        runs = f"{module}.__main__" if not _is_file(module) else module
        if not _is_file(runs):
            yield f"{command.page}:{command.line}: {command.text}: nothing to run in {module}"


def _is_file(module: str) -> bool:
    ours = module.startswith("no verb") or module.split(".")[0] in FOLDERS
    return not ours or (ROOT / Path(*module.split("."))).with_suffix(".py").is_file()


def _unknown_recipes(page: str) -> Iterator[str]:
    for command in commands(page):
        for name in re.findall(r"(?:\bNAME=|--recipe )([\w-]+)", command.text):
            try:
                load_recipe(name, ROOT / "recipes")
            except UserError as error:
                if not name.isupper():
                    yield f"{command.page}:{command.line}: {str(error).splitlines()[0]}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert not list(_broken_links(page))


@pytest.mark.parametrize("page", LIVING)
def test_every_path_in_the_checkout_exists(page: str) -> None:
    assert page in PROPOSED or not list(_missing_paths(page))


@pytest.mark.parametrize("page", LIVING)
def test_every_dotted_name_exists(page: str) -> None:
    assert page in PROPOSED or not list(_missing_names(page))


@pytest.mark.parametrize("page", LIVING)
def test_every_module_and_target_of_make_exists(page: str) -> None:
    assert not list(_unknown_programs(page))


@pytest.mark.parametrize("page", LIVING)
def test_every_recipe_exists(page: str) -> None:
    assert not list(_unknown_recipes(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", LIVING)
def test_every_flag_is_one_of_its_command(page: str) -> None:
    unknown = []
    for command, module, words in modules_run(page):
        if module.split(".")[0] in FOLDERS:
            flags = [word.partition("=")[0] for word in words if word.startswith("--")]
            unknown += [f"{command.text}: {flag}" for flag in flags if flag not in help_of(module).split()]
    assert not unknown


class TestWhatIsWrongIsFound:
    """Each check beside a page that breaks it."""

    def _page(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> str:
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
        for module in (sys.modules[__name__], sys.modules["tests.documents.markdown"]):
            monkeypatch.setattr(module, "ROOT", tmp_path)
        for cached in (blocks, commands, sys.modules["tests.documents.markdown"].tokens):
            cached.cache_clear()
        return "page.md"

    @pytest.mark.parametrize(
        "text", ["[x](gone.md)", "[x](#gone)", "![x](images/gone.png)", "| [x](gone.md) |\n|---|\n"]
    )
    def test_a_link(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
        assert len(list(_broken_links(self._page(monkeypatch, tmp_path, text)))) == 1

    @pytest.mark.parametrize("text", ["`export/gone.py`", "`docs/{a,b}.md`", "`recipes/*.gone`"])
    def test_a_path(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
        assert list(_missing_paths(self._page(monkeypatch, tmp_path, text)))

    @pytest.mark.parametrize("text", ["`serving.gone`", "`pipeline.params.gone`", "`pipeline.params.Params.gone`"])
    def test_a_name(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
        assert len(list(_missing_names(self._page(monkeypatch, tmp_path, text)))) == 1

    @pytest.mark.parametrize("text", ["`python -m export.gone`", "```sh\nCOLUMNS=80 python -m studies.gone --x\n```"])
    def test_a_module(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
        (tmp_path / "Makefile").write_text("test:\n", encoding="utf-8")
        assert len(list(_unknown_programs(self._page(monkeypatch, tmp_path, text)))) == 1

    @pytest.mark.parametrize("text", ["`contrail gone x`", "`contrail stage gone`", "```sh\ncontrail gone\n```"])
    def test_a_verb(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
        assert len(list(_unknown_programs(self._page(monkeypatch, tmp_path, text)))) == 1

    def test_a_target_of_make(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert len(list(_unknown_programs(self._page(monkeypatch, tmp_path, "`make branches`")))) == 1

    def test_a_recipe(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert len(list(_unknown_recipes(self._page(monkeypatch, tmp_path, "`make recipe NAME=gone`")))) == 1
