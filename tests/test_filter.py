"""Rows of a table are chosen by mouse and by keyboard, and how many are left is announced."""

import shutil

import pandas as pd
import pytest

from psannlm import ROOT
from psannlm.evidence import text as views

pytestmark = pytest.mark.browser
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
STATIC = ROOT / "book" / "_static"
FRAME = pd.DataFrame(
    {
        "page": ["throughput", "memory", "shootout"],
        "bases": [("respsann", "transformer"), ("respsann",), ("gelu",)],
        "machine": ["AMD EPYC, 2 cores", "AMD EPYC, 2 cores", "H200"],
        "speed": ["30", "200", "100"],
    }
)
FILTERS = ("page", "bases", "machine")


@pytest.fixture
def page():
    """The table in Chromium, with the scripts of the book."""
    if CHROMIUM is None:
        pytest.skip("no Chromium found")
    from playwright.sync_api import sync_playwright

    scripts = [(STATIC / name).read_text() for name in ("filter.js", "sortable.js")]
    tables = views.sortable(FRAME, "runs", filters=FILTERS) + views.sortable(FRAME, "plain")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        shown = browser.new_page()
        shown.set_content(f"<body>{tables}<script>{';'.join(scripts)}</script></body>")
        yield shown
        browser.close()


def left(page) -> list[str]:
    """Pages of the rows that are visible, in their order."""
    rows = page.locator("table.filterable tbody tr")
    return [row.locator("td").first.text_content() for row in rows.all() if row.is_visible()]


def test_each_choice_narrows_the_rows_and_says_how_many_are_left(page):
    from playwright.sync_api import expect

    assert left(page) == ["throughput", "memory", "shootout"]

    page.get_by_label("bases").select_option("respsann")
    assert left(page) == ["throughput", "memory"]
    assert page.get_by_role("status").text_content() == "2 of 3 rows"

    page.get_by_label("page").select_option("memory")
    assert left(page) == ["memory"]

    page.get_by_label("machine").select_option("H200")
    assert left(page) == []
    assert page.get_by_role("status").text_content() == "0 of 3 rows"

    page.get_by_role("button", name="show all").click()
    expect(page.get_by_role("status")).to_have_text("3 of 3 rows")
    assert len(left(page)) == 3


def test_values_are_parted_only_where_a_cell_has_several(page):
    options = page.get_by_label("machine").locator("option").all_text_contents()
    bases = page.get_by_label("bases").locator("option").all_text_contents()

    assert options == ["all", "AMD EPYC, 2 cores", "H200"]
    assert bases == ["all", "gelu", "respsann", "transformer"]


def test_the_keyboard_is_enough_and_sorting_keeps_the_choice(page):
    page.get_by_label("bases").focus()
    page.keyboard.press("r")
    assert left(page) == ["throughput", "memory"]

    heading = page.locator("table.filterable").get_by_role("button", name="speed")
    heading.click()
    heading.press("Enter")

    assert left(page) == ["memory", "throughput"]


def test_a_table_without_filters_has_none_and_the_count_is_announced_politely(page):
    assert page.locator("form.filters").count() == 1
    assert page.get_by_role("status").get_attribute("aria-live") == "polite"
    assert page.locator("form.filters").get_attribute("aria-label") == "Filter: runs"
