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

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
SITE = ROOT / "_build" / "html"
AXE = ROOT / "tests" / "node_modules" / "axe-core" / "axe.min.js"
FORWARDS = "index.html"
"""Has no content of its own: it forwards to the landing page."""


def pages() -> list[Path]:
    """Pages of the built book, in the order of their names."""
    found = sorted(SITE.rglob("*.html"))
    return [p for p in found if p.name != FORWARDS and "_static" not in p.parts]


def each_page(page, base: str = "") -> Iterator[Path]:
    """Every page of the book at an address, opened one after the other, its formulas drawn."""
    for path in pages():
        page.goto(f"{base or SITE.as_uri()}/{path.relative_to(SITE).as_posix()}")
        page.evaluate("window.MathJax?.startup?.promise")
        yield path


@contextmanager
def launched() -> Iterator[object]:
    """Chromium; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium found")
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


def file_of(address: str, base: str) -> Path:
    """The file behind an address of the book."""
    path = unquote(urlsplit(address).path)
    return Path(path) if base.startswith("file:") else SITE / path.lstrip("/")
