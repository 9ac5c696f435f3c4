"""The page, driven in Debian's chromium: file, drop, paste, opacity, hover, legend, downloads, keyboard, a phone."""

from __future__ import annotations

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="the extra `dev` is not installed")
from tests.serving.server.running import running  # noqa: E402

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]
DONE = "64 \u00d7 48"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """The page, in a context that fails on any request to elsewhere and on any error of its script."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    problems, asked = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    playwright.expect(page.locator("#engine option")).to_have_count(2)
    yield page
    context.close()
    elsewhere = [url for url in asked if not url.startswith((server.url, "blob:", "data:"))]
    assert not elsewhere
    assert not [problem for problem in problems if "400" not in problem]


@pytest.fixture
def street(tmp_path, photo):
    path = tmp_path / "street.png"
    Image.fromarray(photo(48, 64)).save(path)
    return path


def choose(page, path):
    page.set_input_files("#file", path)
    playwright.expect(page.locator("#status")).to_contain_text(DONE)


def shown_mask(page):
    """The mask that the page holds, `[H,W]`."""
    values, height, width = page.evaluate("[Array.from(state.classes), state.height, state.width]")
    return np.array(values, np.uint8).reshape(height, width)


def test_an_image_that_is_chosen_is_segmented(page, street, predictor):
    choose(page, street)
    expected = predictor.predict(np.asarray(Image.open(street)))
    assert np.array_equal(shown_mask(page), expected)
    shares = dict(
        zip(page.locator("#classes th").all_inner_texts(), page.locator("#classes td").all_inner_texts(), strict=True)
    )
    for index, name in enumerate(["red", "green", "blue"]):
        assert shares[name] == f"{100 * (expected == index).mean():.1f} %"
    assert "engine" in page.inner_text("#latency") and "ms in all" in page.inner_text("#latency")


def test_a_class_that_is_there_has_no_share_of_nothing(page, street):
    choose(page, street)
    page.evaluate("state.classes = new Uint8Array(10000).fill(1); state.classes[7] = 2; list();")
    assert page.locator("#classes td").all_inner_texts() == ["100.0 %", "< 0.1 %", "0.0 %"]
    assert page.locator("#classes tr.absent th").all_inner_texts() == ["red"]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_an_image_may_be_dropped_or_pasted(page, street, predictor, event):
    content = base64.b64encode(street.read_bytes()).decode()
    page.evaluate(
        """([event, content]) => {
            const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "street.png", { type: "image/png" }));
            const init = { bubbles: true, cancelable: true };
            document.dispatchEvent(event === "drop"
                ? new DragEvent("drop", { ...init, dataTransfer: data })
                : new ClipboardEvent("paste", { ...init, clipboardData: data }));
        }""",
        [event, content],
    )
    playwright.expect(page.locator("#status")).to_contain_text(DONE)
    assert np.array_equal(shown_mask(page), predictor.predict(np.asarray(Image.open(street))))


def test_hovering_names_the_class_under_the_pointer(page, street):
    choose(page, street)
    box = page.locator("#image").bounding_box()
    mask = shown_mask(page)
    for row, column in [(5, 5), (40, 60), (24, 32)]:
        page.mouse.move(box["x"] + (column + 0.5) / 64 * box["width"], box["y"] + (row + 0.5) / 48 * box["height"])
        name = ["red", "green", "blue"][mask[row, column]]
        assert page.inner_text("#under") == name
        assert page.locator("tr.here th").inner_text() == name
    page.mouse.move(2, 2)
    assert page.locator("#under").is_hidden()


def test_the_slider_sets_the_opacity_by_keyboard(page, street):
    choose(page, street)
    page.focus("#opacity")
    page.keyboard.press("End")
    assert page.evaluate("document.getElementById('mask').style.opacity") == "1"
    assert page.inner_text("#opacity-value") == "100 %"
    page.keyboard.press("Home")
    assert page.evaluate("document.getElementById('mask').style.opacity") == "0"


def test_mask_and_overlay_are_downloaded(page, street, predictor):
    choose(page, street)
    with page.expect_download() as download:
        page.click("#download-mask")
    assert download.value.suggested_filename == "street.png"
    with Image.open(download.value.path()) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), predictor.predict(np.asarray(Image.open(street))))
    with page.expect_download() as download:
        page.click("#download-overlay")
    assert download.value.suggested_filename == "street.overlay.png"
    with Image.open(io.BytesIO(download.value.path().read_bytes())) as image:
        assert image.size == (64, 48)


def test_what_is_no_image_is_told_on_the_page(page, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.wait_for_selector("#status.error")
    assert "is no image" in page.inner_text("#status")
    assert page.inner_text("#status").startswith("notes.txt: a file") and "still" not in page.inner_text("#status")


def test_a_download_keeps_the_name_of_the_image_that_is_shown(page, street, tmp_path, photo):
    choose(page, street)
    (tmp_path / "notes.png").write_text("hello")
    page.set_input_files("#file", tmp_path / "notes.png")  # refused: the image before it stays
    page.wait_for_selector("#status.error")
    said = page.inner_text("#status")
    assert said.startswith("notes.png: a file") and said.endswith(" Below is still street.png.")
    for link, name in (("#download-mask", "street.png"), ("#download-overlay", "street.overlay.png")):
        with page.expect_download() as download:
            page.click(link)
        assert download.value.suggested_filename == name
    Image.fromarray(photo(32, 32)).save(tmp_path / "other.png")
    with page.expect_download() as download:  # another comes between the click and the mask
        page.evaluate(
            """() => {
                const fetched = fetchMask;
                fetchMask = async () => {
                    const mask = await fetched();
                    while (state.width !== 32) await new Promise(requestAnimationFrame);
                    return mask;
                };
                at("download-mask").click();
            }"""
        )
        page.set_input_files("#file", tmp_path / "other.png")
    assert download.value.suggested_filename == "street.png"


def test_another_engine_segments_the_image_again(page, street):
    choose(page, street)
    page.select_option("#engine", "confident")
    playwright.expect(page.locator("#status")).to_contain_text("confident")


def test_everything_is_reached_by_tab_and_has_a_name(page, street):
    choose(page, street)
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    expected = ["engine", "file", "opacity", "download-mask", "download-overlay"]
    assert [each for each in dict.fromkeys(reached) if each in expected] == expected
    nameless = page.evaluate(
        """[...document.querySelectorAll("input, select, button, a")].filter((each) => !each.closest("[hidden]")
            && !(each.labels && each.labels.length) && !each.textContent.trim()).map((each) => each.outerHTML)"""
    )
    assert nameless == []
    assert page.get_by_role("slider", name="Opacity").is_visible()
    assert page.locator("#status[role=status]").inner_text() and page.get_by_role("table").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_that_wcag_asks_for(page, street, scheme):
    """4.5 : 1 between text and what is behind it (WCAG 2.2, 1.4.3)."""
    page.emulate_media(color_scheme=scheme)
    choose(page, street)
    found = page.evaluate(
        """() => {
            const parse = (text) => text.match(/[\\d.]+/g).map(Number);
            const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((sum, v, index) => sum + v * [0.2126, 0.7152, 0.0722][index], 0);
            const behind = (each) => {
                for (let at = each; at; at = at.parentElement) {
                    const color = parse(getComputedStyle(at).backgroundColor);
                    if (color.length === 3 || color[3] > 0.5) return color;
                }
                return [255, 255, 255];
            };
            return [...document.querySelectorAll("body *")].filter((each) => each.offsetParent !== null
                && [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())).map((each) => {
                    const [one, other] = [light(parse(getComputedStyle(each).color)), light(behind(each))];
                    return [each.textContent.trim().slice(0, 30),
                        (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
                });
        }"""
    )
    assert len(found) > 10 and not [each for each in found if each[1] < 4.5]


def test_it_fits_a_phone(page, street):
    page.set_viewport_size({"width": 360, "height": 740})
    choose(page, street)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.evaluate(
        """[...document.querySelectorAll(".button, button, #opacity")].filter((each) => each.offsetParent
            && each.getBoundingClientRect().height < 44).map((each) => each.outerHTML)"""
    )
    assert small == []


def test_a_server_with_a_token_asks_for_it(browser, engine_files, street):
    secret = "a-token-of-some-length"
    with running(engine_files["onnx_fp32"], CONTRAIL_TOKEN=secret) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("#token-form:not([hidden])")
        page.fill("#token", "not this one, certainly")
        page.click("#token-form button")
        page.wait_for_selector("#status.error")
        page.fill("#token", secret)
        page.keyboard.press("Enter")
        playwright.expect(page.locator("#engine option")).to_have_count(1)
        choose(page, street)
        page.close()
