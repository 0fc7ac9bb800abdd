"""The built book for those who see little, use no mouse, or read on a phone: axe finds nothing."""

import pytest

from tests.browsing import AXE, SITE, launched, open_page, pages

pytestmark = pytest.mark.browser
GRAVE = {"serious", "critical"}
ASK = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(
    rule => ({id: rule.id, impact: rule.impact, at: rule.nodes.map(n => n.target.join(" "))})))"""


@pytest.fixture(scope="module")
def browser():
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci --prefix tests")
    with launched() as chromium:
        yield chromium


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_nothing_grave_on_any_page(browser, scheme, width):
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    script = AXE.read_text()
    found = []
    for path in pages():
        open_page(page, path.as_uri())
        page.evaluate(script)
        found += [
            f"{path.relative_to(SITE)}: {rule['id']}: {rule['at'][:3]}"
            for rule in page.evaluate(ASK)
            if rule["impact"] in GRAVE
        ]

    context.close()
    assert found == []


def test_axe_sees_what_is_wrong(browser):
    page = browser.new_page()
    page.set_content('<html><body><img src="x.png"><button></button></body></html>')
    page.evaluate(AXE.read_text())

    found = {rule["id"] for rule in page.evaluate(ASK) if rule["impact"] in GRAVE}

    page.close()
    assert {"image-alt", "button-name", "html-has-lang"} <= found


def test_what_scrolls_sideways_on_a_phone_is_reached_by_keyboard(browser):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    unreached = {}
    for path in pages():
        open_page(page, path.as_uri())
        boxes = page.evaluate(
            """() => [...document.querySelectorAll(".bd-article *")].filter(e =>
            e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
            && ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
            && e.tabIndex < 0 && !e.querySelector("a, button, [tabindex='0']"))
            .map(e => e.outerHTML.slice(0, 80))"""
        )
        if boxes:
            unreached[path.name] = boxes
    page.close()

    assert unreached == {}
