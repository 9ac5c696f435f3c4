"""Figures as PNG and SVG files, and as SVG inside a page."""

from __future__ import annotations

import html
import io
import re

import matplotlib
from matplotlib.figure import Figure

_DPI = 160
# Colours of the plots that follow the page's scheme -> the page's variables.
_VARIABLES = {
    "fill: #ffffff": "fill: none",
    "stroke: #ffffff": "stroke: var(--page)",
    "#000000": "currentColor",
    "#e6eaee": "var(--grid)",
    "#dfe9f3": "var(--band)",
    "#f4f6f8": "var(--panel)",
}


def png(figure: Figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, name: str) -> bytes:
    """The figure as SVG with its text as text; equal figures of one name give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def inline_svg(content: bytes, name: str, caption: str) -> str:
    """An SVG file for the inside of a page: without header and size, in the page's colours, ids of its own.

    Args:
        content: what `svg` gave.
        name: unique on the page; goes before every id.
        caption: what a screen reader says of it.
    """
    text = content.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|xlink:href=\"#)([^)\"]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", text)
    text = re.sub(r"(url\(#|xlink:href=\"#)", rf"\1{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    label = html.escape(caption, quote=True)
    head = re.match(r"<svg[^>]*>", text)
    assert head is not None
    box = re.search(r'viewBox="[^"]+"', head[0])
    assert box is not None
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} {box[0]} role="img" aria-label="{label}">' + text[head.end() :]
