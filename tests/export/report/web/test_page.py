"""report.html by its elements: one file, nothing fetched, everything that the report promises in its place."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from export.report.config import GateConfig
from export.report.evidence.gathering import Evidence
from export.report.gate import judge
from export.report.report import build_report
from export.report.web.page import html_page
from tests.export.report.hostile import HOSTILE, SHOWN, Markup, spoil
from tests.export.report.test_report import inputs

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Elements(HTMLParser):
    """All elements with their attributes, the text, and whether every one is closed."""

    def __init__(self):
        super().__init__()
        self.found, self.open, self.texts, self.wrong = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def elements(html):
    parser = Elements()
    parser.feed(html)
    parser.close()
    return parser


def test_every_element_is_closed_and_every_id_is_used_once(elements):
    assert elements.open == [] and elements.wrong == []
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [each["href"] for tag, each in elements.found if tag == "a"]
    assert anchors and all(anchor.startswith("#") and anchor[1:] in ids for anchor in anchors)


def test_nothing_is_fetched(elements, html):
    for tag, attributes in elements.found:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, attributes[name][:60])
    assert "url(http" not in html and "@import" not in html
    policy = next(each["content"] for tag, each in elements.found if each.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_sections_stand_in_their_order(elements):
    ids = [attributes.get("id") for tag, attributes in elements.found if tag == "section"]
    assert " ".join(ids) == (
        "verdict images engines latency accuracy checks embeddings calibration training provenance"
    )


def test_images_have_five_panels_of_one_size_and_say_what_they_are(elements, evidence):
    images = [attributes for tag, attributes in elements.found if tag == "img"]
    assert len(images) == 5 * len(evidence.pictures.pictures) and all(each["alt"] for each in images)
    sizes = set()
    for each in images[:5]:
        with Image.open(io.BytesIO(base64.b64decode(each["src"].partition(",")[2]))) as image:
            sizes.add(image.size)
    assert sizes == {(125, 90)}


def test_one_training_is_labelled_as_what_it_is(html):
    assert "of one training each (seed 0): it says nothing about another training" in html
    assert "with another seed the difference may" in html


def test_pictures_say_of_which_seed_they_are_where_there_are_several(html, evidence):
    values = inputs()
    expected = [*values.expected, dataclasses.replace(values.expected[0], seed=1)]
    said = "the first seed of each"
    assert said not in html and said in html_page(build_report(inputs(expected=expected)), evidence, [], {})


def test_hostile_names_do_not_become_markup(elements, html):
    assert "alert(1)" in "".join(elements.texts)
    assert [tag for tag, _ in elements.found].count("script") == 1 and "<script>alert" not in html


def test_no_text_from_outside_becomes_markup(evidence):
    report = spoil(copy.deepcopy(build_report(inputs())))
    names = (HOSTILE, *evidence.class_names[1:])
    named = dataclasses.replace(evidence, class_names=names, missing={"samples": HOSTILE})
    found = Markup(html_page(report, named, judge(report, GateConfig()), {}))
    ours = Markup(html_page(build_report(inputs()), evidence, [], {})).found
    assert found.found == ours and found.text.count(SHOWN) > 20


def test_what_is_missing_is_said(evidence):
    report = build_report(inputs())
    bare = Evidence(evidence.class_names, evidence.palette, missing={"pictures": "ort_fp32 was not evaluated"})
    page = html_page(report, bare, [], {})
    assert "No images: ort_fp32 was not evaluated" in page and "give no confidence" in page


def test_an_empty_report_still_has_a_page(evidence):
    certificate = dict(inputs().certificate) | {"methods": {}, "control": {"ratio": None, "ci95": None, "pairs": 0}}
    report = build_report(
        inputs(verified={}, benchmark={"targets": []}, certificate=certificate, training={}, commit=None, created=None)
    )
    page = html_page(report, Evidence(evidence.class_names, evidence.palette), [], {})
    assert "the stage verify has no row of it" in page
