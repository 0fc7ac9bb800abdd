"""Sphinx extension: stages the evidence when a build begins; MathJax and icons when it ends."""

import os
import sys
from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError
from sphinx.util import logging

# The checkout that is built counts, not the one that is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.files import unlock
from psannlm.publish import staging

logger = logging.getLogger(__name__)


def stage(app: Any, config: Any) -> None:
    """Bring results/ up to date before the table of contents is read, one build at a time."""
    book = Path(app.srcdir)
    if not (book.parent.samefile(ROOT) or "PSANNLM_REPORTS" in os.environ):
        raise ExtensionError(
            f"the package must be of the folder of the book, {book.parent}, got that of {ROOT}; "
            "copy the whole project, or name the evidence in PSANNLM_REPORTS"
        )
    app.srcdir = app.confdir = book = _writable(book, Path(app.outdir))
    try:
        app.held = staging.wait_for_others(book, logger.info)
        staged = staging.prepare(book)
    except ConfigError as error:
        raise ExtensionError(str(error)) from None
    for warning in staged.warnings:
        logger.warning(warning)
    config.myst_substitutions = staged.constants
    config.external_toc_path = str(book / staging.CONTENTS)


def _writable(book: Path, output: Path) -> Path:
    """The book or, of a checkout that is read-only, a copy beside the output: pages are staged."""
    if os.access(book, os.W_OK):
        return book
    copy = output.parent / "source"
    for path in (path for path in book.rglob("*") if path.is_file()):
        name = path.relative_to(book)
        if name.parts[0] != "results":
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(path.read_bytes())
    return copy


def finish(app: Any, error: Exception | None) -> None:
    """Put MathJax into the built book, take out the icons that it does not show, let others in."""
    if not error and app.builder.format == "html":
        if not staging.copy_mathjax(Path(app.outdir)):
            logger.warning("sphinx-mathjax-offline is not installed: formulas stay TeX source")
        staging.lighten(Path(app.outdir))
    if app.held:
        unlock(app.held)


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", stage, priority=10)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
