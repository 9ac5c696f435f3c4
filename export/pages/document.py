"""A page as a list of blocks, written as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 (the page's title) to 3."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text, in Markdown."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table; the first `left` columns are text, the others numbers, right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True)
class Figure:
    """An image file named relative to the page."""

    path: str
    caption: str


Block = Heading | Paragraph | Bullets | Table | Figure


def to_markdown(blocks: Sequence[Block]) -> str:
    """The blocks as GitHub-flavoured Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table(header, rows, left):
            rule = ["---" if index < left else "---:" for index in range(len(header))]
            lines = [header, rule, *[[_cell(cell) for cell in row] for row in rows]]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Figure(path, caption):
            return f"![{caption}]({path})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
