"""Tables sort by what their cells mean, and rows are chosen, by mouse and by keyboard."""

import pandas as pd
import pytest

from psannlm import ROOT
from psannlm.evidence.text import sortable
from tests.browsing import launched

pytestmark = pytest.mark.browser
STATIC = ROOT / "book" / "_static"


@pytest.fixture(scope="module")
def browser():
    with launched() as chromium:
        yield chromium


@pytest.fixture
def page(browser):
    made = browser.new_page()
    made.set_default_timeout(5_000)
    yield made
    made.close()


def show(page, table: str):
    """The headings that sort a table; it stands on the page with style and scripts of the book."""
    scripts = ";".join((STATIC / name).read_text() for name in ("filter.js", "sortable.js"))
    style = (STATIC / "report.css").read_text()
    page.set_content(f"<body><style>{style}</style>{table}<script>{scripts}</script></body>")
    return page.locator("table.sortable th button")


def column(page) -> list[str]:
    return page.locator("tbody tr td:first-child").all_text_contents()


def arrow(page) -> str:
    return page.locator("th button").first.evaluate("e => getComputedStyle(e, '::after').content")


def test_a_table_sorts_by_mouse_and_by_keyboard_and_shows_which_way(page):
    frame = pd.DataFrame({"tokens/s": ["1,200 (1 – 2)", "90 (1 – 2)", "300 (1 – 2)"]})
    heading = show(page, sortable(frame, "speeds")).first
    unsorted = arrow(page)

    heading.click()
    up, arrow_up = column(page), arrow(page)
    heading.focus()
    page.keyboard.press("Enter")
    down, arrow_down = column(page), arrow(page)
    state = page.locator("table.sortable th").first.get_attribute("aria-sort")
    page.keyboard.press("Space")

    assert [text.split()[0] for text in up] == ["90", "300", "1,200"]
    assert down == up[::-1]
    assert state == "descending"
    assert column(page) == up
    assert len({unsorted, arrow_up, arrow_down}) == 3


@pytest.mark.parametrize(
    "rising",
    [
        ["−12.5", "-3", "+0.02", "1", "1,024", "10,000"],
        ["-0.0856 (-0.1347 to -0.0364)", "+0.0206 (-0.2247 to +0.2659)", "+0.2176 (+0.02 to +1)"],
        ["9.5%", "24.8%", "100%"],
        ["900", "10 k", "2 M", "1.5 G"],
        ["812 MFLOP", "5.51 GFLOP", "1.2 PFLOP"],
        ["800 KiB", "3 MiB", "2 GiB"],
        ["7 µs", "12 ms", "59.9 s", "4 min 10 s", "12 min 3 s", "3 h 20 min", "1 d 2 h"],
        ["< 0.001", "1.5e-2", "≤ 0.5", "1.05×"],
        ["2025-11-07 23:59", "2026-11-22 09:13", "2026-11-22 17:46"],
        ["20261122_091313", "20261122_174654_base_shootout", "20261122_185157"],
        ["0", "7", "gelu", "respsann", "—", ""],
        ["batch 8", "batch 32", "batch 128"],
    ],
)
def test_cells_sort_by_what_they_mean(page, rising):
    unknown = [text for text in rising if text in ("—", "")]
    known = rising[: len(rising) - len(unknown)]
    frame = pd.DataFrame({"x": [*unknown, *known[1::2], *known[::2]]})
    heading = show(page, sortable(frame, "cells")).first

    heading.click()
    up = column(page)
    heading.click()

    assert up[: len(known)] == known
    assert column(page)[: len(known)] == known[::-1]
    assert set(up[len(known) :]) == set(column(page)[len(known) :]) == set(unknown)


def test_equal_cells_keep_their_order_both_ways(page):
    frame = pd.DataFrame({"x": ["2", "1", "2", "1"], "y": ["a", "b", "c", "d"]})
    heading = show(page, sortable(frame, "ties")).first

    heading.click()
    up = page.locator("tbody td:last-child").all_text_contents()
    heading.click()
    down = page.locator("tbody td:last-child").all_text_contents()

    assert (up, down) == (["b", "d", "a", "c"], ["a", "c", "b", "d"])


# Rows


FRAME = pd.DataFrame(
    [
        ("throughput", ("respsann", "transformer"), "AMD EPYC, 2 cores", "30"),
        ("memory", ("respsann",), "AMD EPYC, 2 cores", "200"),
        ("shootout", ("gelu",), "H200", "100"),
    ],
    columns=["page", "bases", "machine", "speed"],
)


@pytest.fixture
def filtered(page):
    """A table whose rows can be chosen, and one beside it whose rows cannot."""
    show(
        page,
        sortable(FRAME, "runs", filters=("page", "bases", "machine")) + sortable(FRAME, "plain"),
    )
    return page


def left(page) -> list[str]:
    """Pages of the rows that are visible, in their order."""
    rows = page.locator("table.filterable tbody tr")
    return [row.locator("td").first.text_content() for row in rows.all() if row.is_visible()]


def test_each_choice_narrows_the_rows_and_says_how_many_are_left(filtered):
    from playwright.sync_api import expect

    assert left(filtered) == ["throughput", "memory", "shootout"]

    filtered.get_by_label("bases").select_option("respsann")
    assert left(filtered) == ["throughput", "memory"]
    assert filtered.get_by_role("status").text_content() == "2 of 3 rows"

    filtered.get_by_label("page").select_option("memory")
    assert left(filtered) == ["memory"]

    filtered.get_by_label("machine").select_option("H200")
    assert left(filtered) == []
    assert filtered.get_by_role("status").text_content() == "0 of 3 rows"

    filtered.get_by_role("button", name="show all").click()
    expect(filtered.get_by_role("status")).to_have_text("3 of 3 rows")
    assert len(left(filtered)) == 3


def test_values_are_parted_only_where_a_cell_has_several(filtered):
    options = filtered.get_by_label("machine").locator("option").all_text_contents()
    bases = filtered.get_by_label("bases").locator("option").all_text_contents()

    assert options == ["all", "AMD EPYC, 2 cores", "H200"]
    assert bases == ["all", "gelu", "respsann", "transformer"]


def test_the_keyboard_is_enough_and_sorting_keeps_the_choice(filtered):
    filtered.get_by_label("bases").focus()
    filtered.keyboard.press("r")
    assert left(filtered) == ["throughput", "memory"]

    heading = filtered.locator("table.filterable").get_by_role("button", name="speed")
    heading.click()
    heading.press("Enter")

    assert left(filtered) == ["memory", "throughput"]


def test_a_table_without_filters_has_none_and_the_count_is_announced_politely(filtered):
    assert filtered.locator("form.filters").count() == 1
    assert filtered.get_by_role("status").get_attribute("aria-live") == "polite"
    assert filtered.locator("form.filters").get_attribute("aria-label") == "Filter: runs"
