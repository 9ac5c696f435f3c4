"""Markdown as HTML."""

from __future__ import annotations

from export.pages.document import Paragraph, Table, to_markdown
from export.report.web.markdown import to_html


def test_a_table_scrolls_by_keyboard_aligns_its_numbers_and_colours_what_cells_say():
    text = to_markdown(
        [Table(["name", "status", "ms"], [["`a`", "ok", "1.5"], ["b|c", "FAIL: x", "\N{EN DASH}"]], left=2)]
    )
    html = to_html(text, "engines")
    assert '<div class="wide" tabindex="0" role="region" aria-label="engines"><table class="sortable">' in html
    assert '<td class="good">ok</td>' in html and '<td class="bad">FAIL: x</td>' in html
    assert '<td class="number">1.5</td>' in html and '<th class="number" scope="col">ms</th>' in html
    assert "<td>b|c</td>" in html and "style=" not in html


def test_two_tables_have_two_names():
    html = to_html(to_markdown([Table(["a"], [["1"]]), Table(["b"], [["2"]])]), "engines")
    assert 'aria-label="engines"' in html and 'aria-label="engines, table 2"' in html


def test_markup_inside_is_text_and_links_to_scripts_are_none():
    html = to_html(to_markdown([Paragraph("<b>x</b> `<i>` **bold** [a](javascript:alert(1))")]), "t")
    assert "&lt;b&gt;" in html and "<code>&lt;i&gt;</code>" in html and "<strong>bold</strong>" in html
    assert "<a " not in html
