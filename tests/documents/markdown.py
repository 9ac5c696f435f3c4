"""What the Markdown files of the repository hold: blocks of code, commands, links and names in `code`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]

# Pages that tests compare with what a command writes.
GOLDEN = "/golden/"

SHELL = ("sh", "bash")
REASONS = ("GPU", "network", "second machine")
_NOT_RUN = re.compile(rf"# not run: needs ({'|'.join(REASONS)})(?=[\s,;:]|$)")
_COMMENT = re.compile(r"(?:^|\s)#(?:\s.*)?$")
# What in `code` is a command: a program with an argument. `make` and `dvc` alone are words of a sentence.
_COMMAND = re.compile(r"(?:python -m|make|dvc|contrail|pip) \S")
# ENGINE, NAME/, [--json], `...`: words that stand for others.
_PLACEHOLDER = re.compile(r"[\[<]|\.\.\.|(?:^|[ =/])[A-Z][A-Z0-9_]*(?=$|[ /.\]])")


@dataclass(frozen=True)
class Block:
    """One block of code.

    Attributes:
        page: path of the Markdown file from the root.
        line: of the page, counted from 1, where the block begins.
        language: first word behind the fence; empty for an indented block.
        text: what is in it.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def not_run(self) -> str | None:
        """What the block needs that tests do not have, where its first line says so: one of `REASONS`."""
        found = _NOT_RUN.match(self.text)
        return found[1] if found else None

    @property
    def file(self) -> str | None:
        """The file that the block is the whole of, where its first line is a comment with a path and nothing else."""
        found = re.match(r"# ([\w./-]+\.(?:py|yaml))\n", self.text)
        return found[1] if found else None

    @property
    def is_script(self) -> bool:
        """Whether it is Python to be run, and not a file of the project or a part of one."""
        return self.language == "python" and not re.match(r"# (?:in )?[\w/.]+\.py\b", self.text)


@dataclass(frozen=True)
class Command:
    """One command of a page, as a shell takes it.

    Attributes:
        page: path of the Markdown file from the root.
        line: of the page, counted from 1.
        text: without its comment.
        not_run: what it needs that tests do not have, where its block says so.
        is_script: whether it is a block of Python, handed to the interpreter.
        is_inline: whether it stands in `code` within a line: it is named there, and runs in a block of some page.
    """

    page: str
    line: int
    text: str
    not_run: str | None = None
    is_script: bool = False
    is_inline: bool = False

    @property
    def has_placeholder(self) -> bool:
        """Whether it only says what a command looks like (`export.check ENGINE`, `[--json]`), and cannot run."""
        return not self.is_script and _PLACEHOLDER.search(self.text) is not None


@cache
def pages() -> tuple[str, ...]:
    """Every Markdown file of the repository, README first, without golden copies of what commands write."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    found = [page for page in listed if GOLDEN not in page and (ROOT / page).is_file()]
    return tuple(sorted(found, key=lambda page: (page != "README.md", page)))


@cache
def is_history(page: str) -> bool:
    """Whether a page tells what was, and may name what is gone: the changelog, a decision that another has replaced."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(r"^# Changelog|^Status: superseded", text, re.MULTILINE) is not None


@cache
def tokens(page: str) -> tuple[Token, ...]:
    """The page as markdown-it reads it, with tables and GitHub's line rules."""
    parser = MarkdownIt("commonmark").enable("table")
    return tuple(parser.parse((ROOT / page).read_text(encoding="utf-8")))


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Every block of code of a page, fenced or indented, also those inside lists."""
    found = []
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            line = token.map[0] + 1 if token.map else 0
            found.append(Block(page, line, (token.info.split() or [""])[0], token.content))
    return tuple(found)


def inline(page: str) -> Iterator[tuple[int, Token]]:
    """(line, token) of everything inside the page's lines: text, `code`, links, images."""
    for token in tokens(page):
        for child in token.children or ():
            yield (token.map[0] + 1 if token.map else 0), child


def links(page: str) -> list[tuple[int, str]]:
    """(line, target) of every link and image of a page."""
    attributes = {"link_open": "href", "image": "src"}
    return [
        (line, str(token.attrs[attributes[token.type]])) for line, token in inline(page) if token.type in attributes
    ]


def codes(page: str) -> list[tuple[int, str]]:
    """(line, text) of everything that stands in `code` within a line."""
    return [(line, " ".join(token.content.split())) for line, token in inline(page) if token.type == "code_inline"]


def headings(page: str) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = []
    for before, token in zip(tokens(page), tokens(page)[1:], strict=False):
        if before.type == "heading_open":
            text = "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))
            found.append(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return found


def shell_lines(block: Block) -> list[str]:
    """The commands of a block of shell, without comments; what is continued by a backslash is one command."""
    joined = block.text.replace("\\\n", " ")
    lines = [_COMMENT.sub("", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line]


@cache
def commands(page: str) -> tuple[Command, ...]:
    """The commands of a page in their order: of its shell blocks, in `code` within lines, and its Python scripts."""
    found = [
        Command(page, block.line, line, block.not_run)
        for block in blocks(page)
        if block.language in SHELL
        for line in shell_lines(block)
    ]
    found += [Command(page, line, text, is_inline=True) for line, text in codes(page) if _COMMAND.match(text)]
    found += [
        Command(page, block.line, f"python - <<'PYTHON'\n{block.text}PYTHON", block.not_run, is_script=True)
        for block in blocks(page)
        if block.is_script
    ]
    return tuple(sorted(found, key=lambda command: command.line))
