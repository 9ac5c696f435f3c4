"""A page as a list of blocks, written as Markdown or as one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 (the page's title) to 3."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; `code` and **bold** are marked up."""

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

_STATUS = re.compile(r"^(pass|ok|identical|FAIL|fail|failed|different|inconclusive|skipped)\b")
_TONE = {"pass": "good", "ok": "good", "identical": "good", "inconclusive": "open", "skipped": "open"}


def to_markdown(blocks: Sequence[Block]) -> str:
    """The blocks as GitHub-flavoured Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block], title: str, images: Mapping[str, bytes]) -> str:
    """The blocks as one HTML file that needs nothing else: style inside, images embedded, no script.

    Args:
        blocks: the page.
        title: of the window.
        images: path of each figure -> its PNG bytes; a figure without an entry is left out.
    """
    body = "\n".join(part for block in blocks if (part := _html(block, images)))
    return (
        "<!doctype html>\n"
        f'<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


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


def _html(block: Block, images: Mapping[str, bytes]) -> str | None:
    match block:
        case Heading(level, text):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
        case Table(header, rows, left):
            head = "".join(f"<th{_align(index, left)}>{_inline(cell)}</th>" for index, cell in enumerate(header))
            body = "".join(f"<tr>{''.join(_td(cell, i, left) for i, cell in enumerate(row))}</tr>\n" for row in rows)
            return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>'
        case Figure(path, caption):
            if path not in images:
                return None
            data = base64.b64encode(images[path]).decode("ascii")
            image = f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
            return f"<figure>{image}<figcaption>{_inline(caption)}</figcaption></figure>"


def _td(cell: str, index: int, left: int) -> str:
    match = _STATUS.match(cell)
    tone = f' class="{_TONE.get(match.group(1), "bad")}"' if match else ""
    return f"<td{_align(index, left)}{tone}>{_inline(cell)}</td>"


def _align(index: int, left: int) -> str:
    return "" if index < left else ' style="text-align:right"'


def _inline(text: str) -> str:
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


_STYLE = """:root { color-scheme: light dark; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1c2430; background: #fff; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .6rem; padding-top: .6rem; border-top: 1px solid #d8dde4; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, ul { max-width: 52rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #e3e7ec; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #aeb7c2; white-space: nowrap; }
code { font: .88em ui-monospace, monospace; background: #f0f2f5; padding: .1em .3em; border-radius: 3px; }
figure { margin: 1.25rem 0; }
figure img { max-width: min(100%, 46rem); height: auto; background: #fff; border-radius: 4px; }
figcaption { font-size: .88rem; color: #5a6675; }
td.good { color: #1a6e3c; font-weight: 600; }
td.bad { color: #b3261e; font-weight: 600; }
td.open { color: #8a5a00; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  body { color: #dfe4ea; background: #14181d; }
  h2 { border-color: #333b45; }
  th, td { border-color: #2c343d; }
  th { border-bottom-color: #556070; }
  code { background: #232a32; }
  figcaption { color: #9aa6b4; }
  td.good { color: #6fcf97; }
  td.bad { color: #ff8a80; }
  td.open { color: #f2c06b; }
}
"""
