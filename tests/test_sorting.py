"""Tables sort by mouse and keyboard, by what their cells mean."""

import html
import json

import pandas as pd
import pytest

from psannlm import ROOT
from psannlm.evidence import text as views
from tests.browsing import CHROMIUM, FLAGS

pytestmark = pytest.mark.browser
SCRIPT = (ROOT / "book" / "_static" / "sortable.js").read_text()
STYLE = (ROOT / "book" / "_static" / "report.css").read_text()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium found")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser):
    made = browser.new_page()
    made.set_default_timeout(5_000)
    yield made
    made.close()


def show(page, table: str):
    page.set_content(
        f"<body><style>{STYLE}</style>{table}<script>{SCRIPT}</script></body>",
        wait_until="load",
    )
    return page.locator("table.sortable th button")


def column(page) -> list[str]:
    return page.locator("tbody tr td:first-child").all_text_contents()


def arrow(page) -> str:
    return page.locator("th button").first.evaluate("e => getComputedStyle(e, '::after').content")


def test_a_table_sorts_by_mouse_and_by_keyboard_and_shows_which_way(page):
    frame = pd.DataFrame({"tokens/s": ["1,200 (1 – 2)", "90 (1 – 2)", "300 (1 – 2)"]})
    heading = show(page, views.sortable(frame, "speeds")).first
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
    heading = show(page, views.sortable(frame, "cells")).first

    heading.click()
    up = column(page)
    heading.click()

    assert up[: len(known)] == known
    assert column(page)[: len(known)] == known[::-1]
    assert set(up[len(known) :]) == set(column(page)[len(known) :]) == set(unknown)


def test_equal_cells_keep_their_order_both_ways(page):
    frame = pd.DataFrame({"x": ["2", "1", "2", "1"], "y": ["a", "b", "c", "d"]})
    heading = show(page, views.sortable(frame, "ties")).first

    heading.click()
    up = page.locator("tbody td:last-child").all_text_contents()
    heading.click()
    down = page.locator("tbody td:last-child").all_text_contents()

    assert (up, down) == (["b", "d", "a", "c"], ["a", "c", "b", "d"])


def test_data_sort_says_it_better_than_the_text(page):
    cells = {"low": 1, "high": 3, "middle": 2}
    rows = "".join(
        f'<tr><td data-sort="{html.escape(json.dumps(value))}">{text}</td></tr>'
        for text, value in cells.items()
    )
    table = (
        f'<table class="sortable"><thead><tr><th>x</th></tr></thead><tbody>{rows}</tbody></table>'
    )

    show(page, table).first.click()

    assert column(page) == ["low", "middle", "high"]
