"""The built book in Chromium, from files and from a server: quiet, whole, light, accessible."""

import re
from urllib.parse import unquote, urldefrag

import pytest

from psannlm.run import preset as runner
from tests.browsing import AXE, SITE, each_page, file_of, launched, pages, served

pytestmark = pytest.mark.browser
ABORTED = "net::ERR_ABORTED"
MOST_BYTES = 10**6  # of a page with all that it loads, but for MathJax
ASK = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(
    rule => ({id: rule.id, impact: rule.impact, at: rule.nodes.map(n => n.target.join(" "))})))"""
SIDEWAYS = """() => [...document.querySelectorAll(".bd-article *")].filter(e =>
    e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
    && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
    && e.tabIndex < 0 && !e.querySelector("a, button, [tabindex='0']"))
    .map(e => e.outerHTML.slice(0, 80))"""
SILENT = """() => [...document.querySelectorAll("img, svg")]
    .filter(e => !e.closest("[aria-hidden=true], mjx-container, button"))
    .filter(e => !(e.alt || (e.getAttribute("role") === "img"
        && (e.getAttribute("aria-label") || e.querySelector("title")))))
    .map(e => e.outerHTML.slice(0, 200))"""
each_look = pytest.mark.parametrize(
    ("scheme", "width"), [(scheme, width) for scheme in ("light", "dark") for width in (1400, 390)]
)


@pytest.fixture(scope="module")
def browser():
    """Chromium beside a book that was just built without a warning."""
    with launched() as chromium:
        assert runner.build_book()
        yield chromium


@pytest.fixture
def page(browser):
    made = browser.new_page()
    yield made
    made.close()


@pytest.fixture(scope="module", params=["file", "server"])
def base(request, browser):
    """Address of the folder of the built book."""
    if request.param == "file":
        yield SITE.as_uri()
        return
    with served() as address:
        yield address


@each_look
def test_no_page_asks_another_host_complains_or_scrolls_sideways(browser, base, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    foreign, errors, wide = [], [], []
    own = (base, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else foreign.append(r.url))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    # Going on to the next page aborts an icon that is still on its way.
    page.on("requestfailed", lambda r: None if r.failure == ABORTED else errors.append(r.url))
    page.on("response", lambda r: errors.append(f"{r.status}: {r.url}") if r.status > 399 else None)
    for path in each_page(page, base):
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(path.name)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme

    page.close()
    assert (foreign, errors, wide) == ([], [], [])


def test_every_link_leads_to_a_file_and_every_anchor_to_a_place(page, base):
    links = set()
    for _ in each_page(page, base):
        links |= set(page.eval_on_selector_all("a[href]", "found => found.map(a => a.href)"))

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


def test_every_picture_has_a_text_and_no_two_places_of_a_page_share_a_name(page):
    silent, twice, told = [], {}, 0
    for path in each_page(page):
        silent += page.evaluate(SILENT)
        told += page.locator("figure svg[aria-label]").count()
        places = "[id]:not(mjx-container *)"
        names = page.eval_on_selector_all(places, "found => found.map(e => e.id)")
        if shared := sorted({name for name in names if names.count(name) > 1}):
            twice[path.name] = shared

    assert (silent, twice) == ([], {})
    assert told > 0


def test_every_page_is_light(browser):
    weights = {}
    with served() as base:
        for path in pages():
            page = browser.new_page()
            answers = []
            page.on("response", lambda r, to=answers: to.append(r))
            page.goto(f"{base}/{path.relative_to(SITE).as_posix()}", wait_until="networkidle")
            loaded = {answer.url: len(answer.body()) for answer in list(answers)}
            weights[path.relative_to(SITE).as_posix()] = loaded
            page.close()

    heavy = {
        name: dict(sorted(loaded.items(), key=lambda item: -item[1])[:3])
        for name, loaded in weights.items()
        if sum(n for url, n in loaded.items() if "tex-svg.js" not in url) > MOST_BYTES
    }
    assert heavy == {}
    assert all(len(loaded) > 5 for loaded in weights.values())


def test_the_index_leads_to_the_landing_page_and_formulas_are_drawn(page):
    page.goto((SITE / "index.html").as_uri())
    page.wait_for_url("**/intro.html")

    page.goto((SITE / "model.html").as_uri())
    page.wait_for_selector("mjx-container svg", timeout=20_000)


def test_the_theme_shows_its_icons(page):
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto((SITE / "intro.html").as_uri())
    page.evaluate("document.fonts.ready")

    width = page.locator(".fa-bars").first.evaluate("e => e.getBoundingClientRect().width")
    drawn = page.evaluate('document.fonts.check(\'900 16px "Font Awesome 6 Free"\', "\\uf0c9")')

    assert width > 5
    assert drawn


# For those who see little, use no mouse, or read on a phone


@pytest.fixture(scope="module")
def axe():
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci --prefix tests")
    return AXE.read_text()


def grave(page, axe):
    """What axe finds on a page that keeps people out."""
    page.evaluate(axe)
    return [rule for rule in page.evaluate(ASK) if rule["impact"] in {"serious", "critical"}]


@each_look
def test_axe_finds_nothing_grave_on_any_page(browser, axe, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    found = [
        f"{path.relative_to(SITE)}: {rule['id']}: {rule['at'][:3]}"
        for path in each_page(page)
        for rule in grave(page, axe)
    ]

    page.close()
    assert found == []


def test_axe_sees_what_is_wrong(page, axe):
    page.set_content('<html><body><img src="x.png"><button></button></body></html>')

    found = {rule["id"] for rule in grave(page, axe)}

    assert {"image-alt", "button-name", "html-has-lang"} <= found


def test_what_scrolls_sideways_on_a_phone_is_reached_by_keyboard(page):
    page.set_viewport_size({"width": 390, "height": 900})

    assert {path.name: page.evaluate(SIDEWAYS) for path in each_page(page)} == {
        path.name: [] for path in pages()
    }
