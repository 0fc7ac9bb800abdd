"""The built book in Chromium, from the file system and from a server: quiet, whole, light."""

import re
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from tests.browsing import SITE, file_of, launched, open_page, pages, served

pytestmark = pytest.mark.browser
ABORTED = "net::ERR_ABORTED"
MOST_BYTES = 10**6
"""Of a page with all that it loads, but for MathJax."""

MATHEMATICS = "tex-svg.js"


@pytest.fixture(scope="module")
def browser():
    with launched() as chromium:
        yield chromium


@pytest.fixture(scope="module", params=["file", "server"])
def base(request, browser):
    """Address of the folder of the built book."""
    if request.param == "file":
        yield SITE.as_uri()
        return
    with served() as address:
        yield address


def address_of(base: str, path) -> str:
    return f"{base}/{path.relative_to(SITE).as_posix()}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_no_page_asks_another_host_complains_or_scrolls_sideways(browser, base, scheme, width):
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    foreign, errors, wide = [], [], []
    own = (base, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else foreign.append(r.url))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    # Going on to the next page aborts an icon that is still on its way.
    page.on("requestfailed", lambda r: None if r.failure == ABORTED else errors.append(r.url))
    page.on("response", lambda r: errors.append(f"{r.status}: {r.url}") if r.status > 399 else None)
    for path in pages():
        open_page(page, address_of(base, path))
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(path.name)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme

    context.close()
    assert (foreign, errors, wide) == ([], [], [])


def test_every_link_leads_to_a_file_and_every_anchor_to_a_place(browser, base):
    page = browser.new_page()
    links = set()
    for path in pages():
        open_page(page, address_of(base, path))
        links |= set(page.eval_on_selector_all("a[href]", "found => found.map(a => a.href)"))
    page.close()

    inner = [link for link in sorted(links) if link.startswith((base, "file:"))]
    assert len(inner) > len(pages())
    assert [link for link in inner if is_dead(link, base)] == []


def is_dead(link: str, base: str) -> bool:
    address, anchor = urldefrag(link)
    file = file_of(address, base)
    if file.is_dir():
        file = file / "index.html"
    if not file.is_file() or (base.startswith("http") and not link.startswith(base)):
        return True
    name = re.escape(unquote(anchor))
    is_page = file.suffix == ".html"
    return bool(anchor) and is_page and not re.search(rf'\sid="{name}"', file.read_text())


def test_a_dead_link_and_a_dead_anchor_are_seen():
    base = SITE.as_uri()

    assert is_dead(f"{base}/no_such_page.html", base)
    assert is_dead(f"{base}/method.html#no-such-place", base)
    assert not is_dead(f"{base}/method.html", base)


def test_every_picture_has_a_text(browser):
    page = browser.new_page()
    silent, told = [], 0
    for path in pages():
        open_page(page, path.as_uri())
        silent += page.evaluate(
            """() => [...document.querySelectorAll("img, svg")]
            .filter(e => !e.closest("[aria-hidden=true], mjx-container, button"))
            .filter(e => !(e.alt || (e.getAttribute("role") === "img"
                && (e.getAttribute("aria-label") || e.querySelector("title")))))
            .map(e => e.outerHTML.slice(0, 200))"""
        )
        told += page.locator("figure svg[aria-label]").count()
    page.close()

    assert silent == []
    assert told > 0


def test_no_two_places_of_a_page_share_a_name(browser):
    page = browser.new_page()
    twice = {}
    for path in pages():
        open_page(page, path.as_uri())
        names = page.eval_on_selector_all(
            "[id]:not(mjx-container *)", "found => found.map(e => e.id)"
        )
        if shared := sorted({name for name in names if names.count(name) > 1}):
            twice[path.name] = shared
    page.close()

    assert twice == {}


def test_every_page_is_light(browser):
    weights = {}
    with served() as base:
        for path in pages():
            page = browser.new_page()
            answers = []
            page.on("response", lambda r, to=answers: to.append(r))
            open_page(page, address_of(base, path))
            page.wait_for_load_state("networkidle")
            loaded = {answer.url: len(answer.body()) for answer in list(answers)}
            weights[path.relative_to(SITE).as_posix()] = loaded
            page.close()

    heavy = {
        name: dict(sorted(loaded.items(), key=lambda item: -item[1])[:3])
        for name, loaded in weights.items()
        if sum(n for url, n in loaded.items() if MATHEMATICS not in urlsplit(url).path) > MOST_BYTES
    }
    assert heavy == {}
    assert all(len(loaded) > 5 for loaded in weights.values())


def test_the_index_leads_to_the_landing_page(browser):
    page = browser.new_page()
    page.goto((SITE / "index.html").as_uri())

    page.wait_for_url("**/intro.html")

    page.close()


def test_formulas_are_drawn(browser):
    page = browser.new_page()
    page.goto((SITE / "model.html").as_uri())

    page.wait_for_selector("mjx-container svg", timeout=20_000)

    page.close()


def test_the_theme_shows_its_icons(browser):
    page = browser.new_page()
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto((SITE / "intro.html").as_uri())
    page.evaluate("document.fonts.ready")

    width = page.locator(".fa-bars").first.evaluate("e => e.getBoundingClientRect().width")
    drawn = page.evaluate('document.fonts.check(\'900 16px "Font Awesome 6 Free"\', "\\uf0c9")')

    page.close()
    assert width > 5
    assert drawn
