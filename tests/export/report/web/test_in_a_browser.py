"""report.html in Debian's chromium: sorting, images by class, a phone, dark, paper, and what axe-core finds."""

from __future__ import annotations

import shutil

import pytest

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


def test_images_are_sorted_by_a_class(page, evidence):
    name = page.locator("#class option").nth(1).inner_text()
    page.select_option("#class", name)
    known = sorted(p.class_iou[name] for p in evidence.pictures.pictures if name in p.class_iou)
    shown = page.locator(".picture:visible .class-iou").all_inner_texts()
    assert shown == [f"{name} {round(100 * each, 1):.1f} %" for each in known]
    page.select_option("#class", "")
    order = page.locator(".picture:visible h3").all_inner_texts()
    assert [each.split()[0] for each in order] == [p.name for p in evidence.pictures.pictures]


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


def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_paper_shows_what_is_folded(page):
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden() and len(page.pdf()) > 10_000
