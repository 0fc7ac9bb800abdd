"""The book is printed whole and on white; without a browser it says what to do."""

import re
import shutil
import stat

import pytest

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.run import preset
from psannlm.run.preset import find_browser, print_book, printed
from tests.browsing import launched

needs_chromium = pytest.mark.skipif(
    not any(map(shutil.which, preset.BROWSERS)), reason="no Chromium found"
)


def program(path, script):
    """A shell script that can be run; returns its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


PRINTS = (
    'for a; do case "$a" in --print-to-pdf=*) printf %s "$a" > "${a#--print-to-pdf=}";; esac; done'
)
"""A browser that leaves the option as its PDF."""


def test_the_named_browser_comes_first_then_the_first_that_is_installed(tmp_path, monkeypatch):
    for name in ("chromium-browser", "google-chrome", "mine"):
        program(tmp_path / name, "")
    monkeypatch.setenv("PATH", str(tmp_path))

    monkeypatch.setenv("CHROMIUM", "mine")
    assert find_browser() == str(tmp_path / "mine")
    monkeypatch.delenv("CHROMIUM")
    assert find_browser() == str(tmp_path / "chromium-browser")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("", r"none of chromium, chromium-browser, google-chrome .* CHROMIUM"),
        ("/nowhere/chromium", "got '/nowhere/chromium'; correct or unset it"),
    ],
)
def test_without_a_browser_the_names_that_are_looked_for_are_said(
    tmp_path, monkeypatch, named, message
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHROMIUM", named)

    with pytest.raises(ConfigError, match=message):
        print_book(tmp_path / "x.pdf")


def test_what_the_browser_leaves_is_the_pdf(tmp_path):
    made = printed(str(program(tmp_path / "good", PRINTS)), tmp_path / "page.html")

    assert made.startswith(b"--print-to-pdf=")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo one >&2; echo no room >&2; exit 3", "must print a PDF, it ended with 3: no room"),
        (f"{PRINTS}; exit 4", "must print a PDF, it ended with 4: it said nothing"),
        ("exit 0", "must print a PDF, it ended with 0: it said nothing"),
    ],
)
def test_a_browser_that_fails_is_named_with_its_last_word(tmp_path, script, said):
    with pytest.raises(ConfigError, match=f"bad {said}"):
        printed(str(program(tmp_path / "bad", script)), tmp_path / "page.html")


def test_a_browser_that_hangs_is_stopped_and_a_folder_cannot_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(preset, "PATIENCE", 0.2)

    with pytest.raises(ConfigError, match=r"must print within 0\.2 s"):
        printed(str(program(tmp_path / "slow", "exec sleep 20")), tmp_path / "page.html")
    with pytest.raises(ConfigError, match="cannot be started"):
        printed(str(tmp_path), tmp_path / "page.html")


def test_a_book_with_warnings_is_not_printed_and_an_older_pdf_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("CHROMIUM", str(program(tmp_path / "good", PRINTS)))
    monkeypatch.setattr(preset, "build_book", lambda builder: builder != "singlehtml")
    output = tmp_path / "book.pdf"
    output.write_bytes(b"older")

    with pytest.raises(ConfigError, match="must build without warnings"):
        print_book(output)

    assert output.read_bytes() == b"older"


@pytest.mark.slow
@pytest.mark.browser
@needs_chromium
def test_the_whole_book_is_printed(tmp_path):
    made = print_book(tmp_path / "new" / "book.pdf").read_bytes()

    pages = len(re.findall(rb"/Type\s*/Page\b", made))
    chapters = (ROOT / "book" / "_toc.yml").read_text().count("file: ")
    assert made.startswith(b"%PDF-")
    assert pages > chapters, "each chapter begins on a page of its own"
    assert b"/Outlines" in made
    _look_at_the_printed_page()


SEEN = "e => e.getClientRects().length > 0"
WIDE = f"""found => found.filter({SEEN}).filter(
    e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.caption?.textContent)"""
UNSEEN_IN_PRINT = (".bd-sidebar-primary", ".copybtn", "a.headerlink", ".bd-header-article")


def _look_at_the_printed_page():
    """From a dark screen, at the width of a sheet: white, unfolded, nothing cut or pressed."""
    theme = "document.documentElement.dataset.theme"
    with launched() as browser:
        page = browser.new_page(color_scheme="dark", viewport={"width": 680, "height": 1000})
        page.goto(preset.SINGLE.as_uri())
        page.wait_for_selector("mjx-container svg")
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(theme) == "light"
        for what in UNSEEN_IN_PRINT:
            assert not page.eval_on_selector_all(what, f"found => found.filter({SEEN}).length")
        assert page.eval_on_selector_all("table", WIDE) == []
        unfolded = f"found => found.every({SEEN})"
        assert page.eval_on_selector_all(".sd-summary-content", unfolded)
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(theme) == "dark"
