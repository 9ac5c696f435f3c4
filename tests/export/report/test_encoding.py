"""Figures as files, and inside a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from export.report.encoding import inline_svg, png, svg


def figure():
    drawn = Figure(figsize=(3, 2))
    axes = drawn.add_subplot()
    axes.plot([1, 2], [3, 4], "o-", color="#0072B2")
    axes.set_xlabel("latency, ms & more")
    return drawn


def test_equal_figures_give_equal_files_whose_text_is_text():
    first = svg(figure(), "one")
    assert first == svg(figure(), "one") and b"latency, ms &amp; more</text>" in first
    assert png(figure()).startswith(b"\x89PNG") and b"<dc:date>" not in first


def test_inside_a_page_ids_are_its_own_and_its_colours_follow_the_page():
    text = inline_svg(svg(figure(), "one"), "one", 'Says "what"')
    tree = ElementTree.fromstring(text)
    assert tree.get("aria-label") == 'Says "what"' and tree.get("width") is None and tree.get("viewBox")
    ids = re.findall(r' id="([^"]+)"', text)
    assert ids and all(each.startswith("one-") for each in ids)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    assert used == set(ids), "what is referred to is there, and nothing else has an id"
    assert "#000000" not in text and "currentColor" in text and "#0072b2" in text.lower()
