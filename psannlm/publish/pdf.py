"""The book as one PDF: all pages in one, printed by Chromium with formulas typeset."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.files import write_atomically
from psannlm.run import preset as runner

OUTPUT = ROOT / "_build" / "psannlm-report.pdf"
SINGLE = ROOT / "_build" / "singlehtml" / "intro.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 300  # seconds after which a browser is stopped
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
    # Milliseconds of the page's own clock, which runs ahead while MathJax typesets.
    "--virtual-time-budget=60000",
)  # fmt: skip


def make(output: Path = OUTPUT) -> Path:
    """Build the book as one page and print it; ConfigError says what is missing."""
    browser = find_browser()
    if not runner.build_book("singlehtml"):
        raise ConfigError(
            "the book must build without warnings before it is printed; they stand above: "
            "mend them and print again"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, printed(browser, SINGLE))
    return output


def find_browser() -> str:
    """The browser that prints: `$CHROMIUM`, or the first that is installed; else ConfigError."""
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else BROWSERS:
        if found := shutil.which(name):
            return found
    said = f"a PDF needs Chromium or Chrome, none of {', '.join(BROWSERS)} is on the path; install "
    said += "one, or name its program in CHROMIUM"
    if named:
        said = f"CHROMIUM must name a program that runs, got {named!r}; correct or unset it"
    raise ConfigError(said)


def printed(browser: str, page: Path) -> bytes:
    """The PDF of a page, as its print style has it; ConfigError if the browser leaves none."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Path(folder) / "book.pdf"
        own = (f"--user-data-dir={folder}/profile", f"--print-to-pdf={made}", page.as_uri())
        try:
            done = subprocess.run(
                [browser, *FLAGS, *own], capture_output=True, text=True, timeout=PATIENCE
            )
        except OSError as error:
            said = f"{browser} cannot be started: {error.strerror}; name another in CHROMIUM"
            raise ConfigError(said) from None
        except subprocess.TimeoutExpired:
            said = f"{browser} must print within {PATIENCE} s and did not; try again with less load"
            raise ConfigError(said) from None
        if done.returncode or not made.is_file():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            said = f"{browser} must print a PDF, it ended with {done.returncode}: {last}"
            raise ConfigError(f"{said}; name another in CHROMIUM")
        return made.read_bytes()
