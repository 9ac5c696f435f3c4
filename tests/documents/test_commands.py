"""Every command of README and docs runs as it stands, in a copy of the project at toy size, in its page's order."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterable

import psutil
import pytest

from serving.command_line import COMMANDS, STAGES
from serving.contract.command import PROGRAM
from tests.documents.decisions import INSTEAD, PATHS, QUICK, TOY_ARGUMENTS
from tests.documents.markdown import Command, commands, is_history, pages
from tests.documents.project import Project

PAGES = [page for page in pages() if page.startswith(("README", "CONTRIBUTING", "docs/")) and not is_history(page)]
SECONDS = 7200
SERVED = "127.0.0.1:8000"  # where `contrail serve` listens, by the pages


def is_quick(command: Command) -> bool:
    """Whether a command runs in `make test`."""
    return command.text.startswith(QUICK) and "&&" not in command.text


def to_run(page: str) -> list[Command]:
    """The commands of a page that run, each once: those of its blocks."""
    found: dict[str, Command] = {}
    for command in commands(page):
        if not command.not_run and not command.is_inline:
            found.setdefault(command.text, command)
    return list(found.values())


def at_toy_size(command: str) -> str:
    """A command as it is run here."""
    command = INSTEAD.get(command, command)
    for written, there in PATHS.items():
        command = command.replace(written, there)
    # The environment is there, whatever the dates of its files say: make must not install it anew.
    command = re.sub(r"\bmake ", "make -o .venv/.installed ", command)
    for program, arguments in TOY_ARGUMENTS.items():
        command = re.sub(rf"({re.escape(program)}(?![.\w])[^&|;]*)", rf"\g<1> {arguments} ", command)
    assert "/path/to" not in command, f"{command}: tests/documents/decisions.py has nothing in its place"
    return command.strip()


def run_all(project: Project, those: Iterable[Command]) -> None:
    """Run commands in turn; the first that fails ends it. A server runs until the next one, or to the end."""
    with contextlib.ExitStack() as servers:
        address = SERVED
        for command in those:
            shell = at_toy_size(command.text).replace(SERVED, address)
            if shell.startswith("contrail serve "):
                servers.close()
                address = servers.enter_context(project.serving(shell))
                continue
            steps = shell.split(" && ") if "recipe NAME=" in shell else [shell]
            for step in steps:
                done = project.run(step)
                assert done.returncode == 0, f"{command.page}:{command.line}: {step}\n{done.stdout}"
                if "recipe NAME=" in step:
                    project.shrink()


def test_quick_commands_run(project: Project) -> None:
    found = {command.text: command for page in PAGES for command in to_run(page) if is_quick(command)}
    run_all(project, found.values())


def spelt_out(command: str) -> str:
    """A command with the module in place of a verb of `contrail`."""
    words = command.split()
    if words[0] == PROGRAM and len(words) > 1:
        known, rest = (STAGES, words[2:]) if words[1] == "stage" else (COMMANDS, words[1:])
        if rest and rest[0] in known:
            words = ["python", "-m", known[rest[0]].module, *rest[1:]]
    return " ".join(words)


@pytest.mark.parametrize("page", PAGES)
def test_a_command_within_a_line_runs_in_a_block(page: str) -> None:
    """On some page, perhaps with further arguments; or its block says why it does not run."""
    in_blocks = [command.text for each in PAGES for command in commands(each) if not command.is_inline]
    there = [set(spelt_out(step).split()) for text in in_blocks for step in text.split("&&")]
    missing = [
        f"{page}:{command.line}: {command.text}"
        for command in commands(page)
        if command.is_inline and not command.has_placeholder
        if not any(set(spelt_out(command.text).split()) <= words for words in there)
    ]
    assert not missing


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("page", [page for page in PAGES if not all(map(is_quick, to_run(page)))])
def test_every_command_runs(page: str, project_after_repro: Project) -> None:
    run_all(project_after_repro, to_run(page))


def test_a_command_that_fails_is_named(project: Project) -> None:
    with pytest.raises(
        AssertionError, match=r"README.md:7: make -o .venv/.installed recipe NAME=gone\n.*no recipe 'gone'"
    ):
        run_all(project, [Command("README.md", 7, "make recipe NAME=gone")])


def test_decisions_are_about_commands_that_are_there() -> None:
    there = [command.text for page in PAGES for command in commands(page)]
    for written in (*INSTEAD, *TOY_ARGUMENTS, *PATHS, *QUICK):
        assert any(written in text for text in there), f"{written}: no page has it; remove it from decisions.py"


def test_a_command_that_hangs_is_ended_with_what_it_started(project: Project) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        project.run("sleep 600 & echo $! > child; wait", timeout=2)
    child = int((project.root / "child").read_text(encoding="utf-8"))
    with contextlib.suppress(psutil.NoSuchProcess):  # the system may take a moment to bury it
        psutil.Process(child).wait(timeout=30)
