"""report.html in Debian's chromium: sorting, images by class, a phone, dark, paper, and what axe-core finds."""

from __future__ import annotations

import copy
import shutil

import pytest

from export.checks import CHECKS
from export.report.evidence.gathering import Evidence
from export.report.report import build_report
from export.report.web.page import html_page
from tests.export.report.test_report import inputs

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `dev` is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `dev` is not installed")

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, page_path):
    """The page, in a context that fails on any request and any error of its script."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    problems, asked = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_path.as_uri())
    yield page
    context.close()
    assert [url for url in asked if not url.startswith("data:")] == [page_path.as_uri()] and problems == []


def test_a_header_sorts_its_table_both_ways_by_keyboard(page):
    table = page.locator("#engines table.sortable")
    header = table.get_by_role("columnheader", name="mIoU, %")
    column = header.evaluate("each => each.cellIndex")

    def values():
        return [
            row[column]
            for row in table.evaluate("t => [...t.tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent))")
        ]

    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    numbers = [float(each) for each in values() if each[0].isdigit()]
    assert len(numbers) > 1 and numbers == sorted(numbers)
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    found = values()
    numbers = [float(each) for each in found if each[0].isdigit()]
    assert numbers == sorted(numbers, reverse=True)
    assert all(each == "\N{EN DASH}" for each in found[len(numbers) :]), "what is not known comes last either way"


def test_durations_and_large_counts_sort_by_what_they_stand_for(page):
    said = ["9.5 s", "1 min 9 s", "1 min 17 s", "12 min 0 s", "2 h 5 min", "720", "855.31 K", "3.12 M", "5.16 G"]
    values = page.evaluate("said => said.map(counted)", said)
    assert values == [9.5, 69, 77, 720, 7500, 720, 855310, 3120000, 5160000000]
    assert page.evaluate("['-1.27', '+0.66 (+0.10 to +1.25)', '192x256'].map(counted)") == [-1.27, 0.66, 192]
    assert page.evaluate("['\u2013', 'pass', 'M'].every((each) => Number.isNaN(counted(each)))")


def names_shown(page):
    return [each.split()[0] for each in page.locator(".picture:visible h3").all_inner_texts()]


def test_a_class_shows_the_images_that_are_worst_at_it(page, evidence):
    pictures = evidence.pictures.pictures
    usual = [each.name for each in pictures if each.reason != "worst of a class"]
    assert names_shown(page) == usual and len(usual) < len(pictures), "those of a class are there, and not in sight"
    for name in page.locator("#class option").all_inner_texts()[1:]:
        page.select_option("#class", name)
        places = sorted((each.class_place[name], each) for each in pictures if name in each.class_place)
        assert names_shown(page) == [each.name for _, each in places] and places[0][0] == 1, "the very worst among them"
        images = evidence.pictures.class_images[name]
        said = [f"{name} {100 * each.class_iou[name]:.1f} %, place {place} of {images}" for place, each in places]
        assert page.locator(".picture:visible .class-iou").all_inner_texts() == said
        assert (
            f"{images} images show {name}; below are {len(places)} of them" in page.locator("#class-said").inner_text()
        )
    page.select_option("#class", "")
    assert names_shown(page) == usual and page.locator("#class-said").inner_text() == ""


def test_a_class_is_chosen_by_keyboard_on_a_phone_in_the_dark_and_goes_on_paper(page, evidence):
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    page.locator("#class").focus()
    page.keyboard.press("ArrowDown")
    name = page.locator("#class").input_value()
    shown = names_shown(page)
    assert (
        shown[0] == min((p.class_place[name], p.name) for p in evidence.pictures.pictures if name in p.class_place)[1]
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    drawn = page.locator(".picture:visible img").evaluate_all("all => all.every((image) => image.clientWidth > 100)")
    assert drawn, "large enough to see"
    serious = [
        each["id"] for each in axe.Axe().run(page).response["violations"] if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
    page.emulate_media(media="print")
    assert (
        names_shown(page) == shown
        and page.locator("#class-said").is_visible()
        and not page.locator("#class").is_visible()
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (each["id"], each["impact"], [node["html"][:120] for node in each["nodes"][:3]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_axe_would_find_an_image_without_a_text(page):
    page.evaluate("document.querySelector('.panels img').removeAttribute('alt')")
    assert "image-alt" in [each["id"] for each in axe.Axe().run(page).response["violations"]]


def test_every_check_is_in_sight_on_a_screen(browser, evidence, tmp_path):
    verified = copy.deepcopy(dict(inputs().verified))
    for row in verified.values():
        row["checks"] = [{"name": name, "status": "pass", "detail": ""} for name in CHECKS]
    report = build_report(inputs(verified=verified))
    path = tmp_path / "report.html"
    path.write_text(html_page(report, Evidence(evidence.class_names, evidence.palette), [], {}), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    assert page.locator("#checks th").count() == 2 + len(list(CHECKS))
    assert page.locator("#checks .wide").evaluate("each => each.scrollWidth <= each.clientWidth")


def test_it_fits_a_phone_and_its_plots_stay_large_enough_to_read(page):
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    drawings = page.locator(".drawing")
    assert drawings.count() > 3
    assert drawings.evaluate_all("all => all.every((each) => each.clientWidth < 360 && each.scrollWidth > 500)")


def test_paper_shows_what_is_folded(page):
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden() and len(page.pdf()) > 10_000
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
