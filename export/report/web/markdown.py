"""Markdown as HTML for a page, by markdown-it-py."""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

_STATUS = re.compile(r"^(pass|ok|identical|FAIL|fail|failed|different|inconclusive|skipped)\b")
_TONE = {"pass": "good", "ok": "good", "identical": "good", "inconclusive": "open", "skipped": "open"}

Environment = MutableMapping[str, Any]


class _Renderer(RendererHTML):
    """Tables that scroll by themselves and by keyboard, and cells coloured by what they say."""

    def table_open(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
        env["tables"] = env.get("tables", 0) + 1
        label = env["label"] + (
            f", table {env['tables']}" if env["tables"] > 1 else ""
        )  # regions are told by their names
        return f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table class="sortable">\n'

    def table_close(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
        return "</table></div>\n"

    def th_open(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
        _align(tokens[index])
        tokens[index].attrSet("scope", "col")
        return self.renderToken(tokens, index, options, env)

    def td_open(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: Environment) -> str:
        _align(tokens[index])
        match = _STATUS.match(tokens[index + 1].content)
        if match:
            tokens[index].attrJoin("class", _TONE.get(match[1], "bad"))
        return self.renderToken(tokens, index, options, env)


def _align(token: Token) -> None:
    """A class in place of the style that Markdown's tables give their cells."""
    if token.attrs.pop("style", None) == "text-align:right":
        token.attrJoin("class", "number")


_MARKDOWN = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")


def to_html(markdown: str, label: str) -> str:
    """CommonMark with tables as HTML; HTML inside it is text, whatever it says.

    Args:
        markdown: the text.
        label: what its tables are called by a screen reader.
    """
    return str(_MARKDOWN.render(markdown, {"label": label}))
