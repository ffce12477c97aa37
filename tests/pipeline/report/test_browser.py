"""The page in a real browser: nothing of the data runs, nothing is asked for, nothing is blocked, all is laid out."""

import re

import pytest

from pipeline.report.compose import compose
from pipeline.report.page import html_page
from tests.pipeline.report.browser import NAMES, Browser, find_browser
from tests.pipeline.report.documents import HOSTILE, material

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"no browser is installed ({', '.join(NAMES)})")
SIZES = [(390, 844), (1280, 900)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(html_page(compose(material(text=HOSTILE))))
    return path


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_of_hostile_texts_is_only_read(browser, page, width, height, dark):
    browser.open(page, width, height, dark=dark)
    assert browser.ask("typeof window.pwned") == "undefined"
    assert browser.ask("document.scripts.length + document.images.length + document.links.length") == 0
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.ask("document.querySelectorAll('details').length") > 8


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_page_is_no_wider_than_its_window_and_its_figures_have_a_size(browser, page, width, height):
    browser.open(page, width, height)
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.scrollingElement.scrollWidth") <= width
    sizes = browser.ask(
        "[...document.querySelectorAll('svg.picture')].map(e => [e.getBoundingClientRect().width, "
        "e.getBoundingClientRect().height, e.querySelectorAll('text').length])"
    )
    assert len(sizes) == 8
    assert all(wide > 250 and high > 150 and texts > 5 for wide, high, texts in sizes)
    others = "[...document.querySelectorAll('svg:not(.results .interval)')]"  # those a phone has no room for
    assert browser.ask(f"{others}.every(e => e.getBoundingClientRect().width > 0)")


def test_the_style_of_the_page_counts_and_follows_the_dark(browser, page):
    ink = "getComputedStyle(document.body).color + getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('.stroke-second')).stroke"
    seen = []
    for dark in (False, True):
        browser.open(page, 1280, 900, dark=dark)
        seen.append((browser.ask(ink), browser.ask(line)))
    assert seen[0] == ("rgb(31, 39, 48)rgb(255, 255, 255)", "rgb(31, 95, 168)")
    assert seen[1] == ("rgb(223, 229, 236)rgb(20, 24, 29)", "rgb(116, 174, 240)")


@pytest.mark.parametrize(
    ("what", "planted"),
    [
        ("script", "<script>window.pwned = 1</script>"),
        ("style", '<p style="color: red">x</p>'),
        ("image", '<img src="https://example.com/a.png" onerror="window.pwned = 1">'),
    ],
)
def test_what_got_past_the_escaping_would_be_blocked_and_seen_here(browser, page, tmp_path, what, planted):
    """The policy holds by itself, and this test's own eyes are open."""
    broken = tmp_path / "broken.html"
    broken.write_bytes(re.sub(rb"<main>", b"<main>" + planted.encode(), page.read_bytes()))
    browser.open(broken, 1280, 900)
    assert browser.ask("typeof window.pwned") == "undefined"
    assert browser.complaints() and browser.ask("document.querySelectorAll('main > :first-child').length") == 1
    assert [url for url in browser.requests() if not url.startswith("file:")] in ([], ["https://example.com/a.png"])
