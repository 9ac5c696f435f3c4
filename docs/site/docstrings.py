"""Docstrings as griffe reads them: an extension of the reference, run while griffe loads the packages.

Of Google's style griffe knows code below `Examples:` only, not below `Example:` or nothing, and one name to a colon.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:\n((?:(?: {4}.*)?(?:\n|\Z))+)", re.MULTILINE)
_PROMPTS = re.compile(r"^>>> (?:.*\S.*(?:\n|\Z))+", re.MULTILINE)
_NAMES = re.compile(r"^ {4}([A-Za-z_]\w*(?:, [A-Za-z_]\w*)+): (.+(?:\n {6,}.+)*)", re.MULTILINE)


def rewritten(docstring: str) -> str:
    """With examples as code, fenced where they have no prompts, and a line for every name."""

    def code(match: re.Match[str]) -> str:
        text = match[1].rstrip("\n")
        if ">>>" not in text:
            text = f"    ```python\n{text}\n    ```"
        return f"Examples:\n{text}\n\n"

    def lines(match: re.Match[str]) -> str:
        return "\n".join(f"    {name}: {match[2]}" for name in match[1].split(", "))

    fenced = _PROMPTS.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", docstring)
    return _EXAMPLE.sub(code, _NAMES.sub(lines, fenced)).rstrip()


class Docstrings(griffe.Extension):
    """Rewrites the docstring of everything that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each object, once its package is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)
