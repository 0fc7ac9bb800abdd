"""The built book in Chromium, opened from the file system: quiet, whole, and fit for a phone."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from psannlm import ROOT
from psannlm.report import runner, views

pytestmark = pytest.mark.browser
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SITE = ROOT / "_build" / "html"
LEFT_OUT = {"index.html", "search.html", "genindex.html"}
"""Pages without content of ours; the first forwards to the landing page, as a test of it shows."""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium found")
    assert runner.build_book()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


def pages() -> list[Path]:
    return [
        p
        for p in sorted(SITE.rglob("*.html"))
        if p.name not in LEFT_OUT and "_static" not in p.parts
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_no_page_asks_another_host_complains_or_scrolls_sideways(browser, scheme, width):
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    foreign, errors, wide = [], [], []
    page.on("request", lambda r: foreign.append(r.url) if r.url.startswith("http") else None)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    for path in pages():
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(path.name)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme

    context.close()
    assert (foreign, errors, wide) == ([], [], [])


def test_every_link_leads_to_a_file_and_every_anchor_to_a_place(browser):
    page = browser.new_page()
    links = set()
    for path in pages():
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        links |= set(page.eval_on_selector_all("a[href]", "found => found.map(a => a.href)"))
    page.close()

    assert [link for link in sorted(links) if link.startswith("file://") and is_dead(link)] == []


def is_dead(link: str) -> bool:
    address, _, anchor = link.partition("#")
    file = Path(address.removeprefix("file://"))
    if not file.exists():
        return True
    return bool(anchor) and file.suffix == ".html" and f'id="{anchor}"' not in file.read_text()


def test_every_picture_has_a_text(browser):
    page = browser.new_page()
    silent = []
    for path in pages():
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        silent += page.eval_on_selector_all(
            "img:not([alt]), figure svg:not([aria-label])", "found => found.map(e => e.outerHTML)"
        )
    page.close()

    assert silent == []


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


def test_a_table_sorts_by_mouse_and_by_keyboard(browser):
    frame = pd.DataFrame({"tokens/s": ["1,200 (1 – 2)", "90 (1 – 2)", "300 (1 – 2)"]})
    script = (ROOT / "book" / "_static" / "sortable.js").read_text()
    page = browser.new_page()
    page.set_content(f"<body>{views.sortable(frame, 'speeds')}<script>{script}</script></body>")
    heading = page.locator("table.sortable th button").first

    heading.click()
    up = page.locator("tbody td").all_text_contents()
    heading.focus()
    page.keyboard.press("Enter")
    down = page.locator("tbody td").all_text_contents()
    state = page.locator("table.sortable th").first.get_attribute("aria-sort")
    page.close()

    assert [text.split()[0] for text in up] == ["90", "300", "1,200"]
    assert down == up[::-1]
    assert state == "descending"
