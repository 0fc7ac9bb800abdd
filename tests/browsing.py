"""The built book in Chromium: its pages, from the file system and from a server of this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from psannlm import ROOT
from psannlm.run import preset as runner

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
AXE = ROOT / "tests" / "node_modules" / "axe-core" / "axe.min.js"
FORWARDS = "index.html"
"""Has no content of its own: it forwards to the landing page."""


def pages() -> list[Path]:
    """Pages of the built book, in the order of their names."""
    found = sorted(SITE.rglob("*.html"))
    return [p for p in found if p.name != FORWARDS and "_static" not in p.parts]


@contextmanager
def launched() -> Iterator[object]:
    """Chromium beside a book that was just built without a warning; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium found")
    assert runner.build_book()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def served() -> Iterator[str]:
    """Address of the book on a server of this machine."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "--directory", str(SITE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert server.stdout is not None
    said = server.stdout.readline()  # Serving HTTP on 127.0.0.1 port 40123 (...) ...
    try:
        yield f"http://127.0.0.1:{said.split(' port ')[1].split()[0]}"
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def open_page(page, address: str) -> None:
    """Go to an address and wait until formulas are drawn."""
    page.goto(address)
    page.evaluate("window.MathJax?.startup?.promise")


def file_of(address: str, base: str) -> Path:
    """The file behind an address of the book."""
    path = unquote(urlsplit(address).path)
    return Path(path) if base.startswith("file:") else SITE / path.lstrip("/")
