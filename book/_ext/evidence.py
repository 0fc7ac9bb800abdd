"""Sphinx extension: stages the evidence when a build begins; MathJax and icons when it ends."""

from pathlib import Path
from typing import Any

from sphinx.errors import ExtensionError
from sphinx.util import logging

from psannlm.config.schema import ConfigError
from psannlm.publish import staging

logger = logging.getLogger(__name__)


def stage(app: Any, config: Any) -> None:
    """Bring results/ up to date before the table of contents is read."""
    try:
        staged = staging.prepare(Path(app.srcdir))
    except ConfigError as error:
        raise ExtensionError(str(error)) from None
    for warning in staged.warnings:
        logger.warning(warning)
    config.myst_substitutions = staged.constants
    config.external_toc_path = str(Path(app.srcdir) / staging.CONTENTS)


def finish(app: Any, error: Exception | None) -> None:
    """Put MathJax into the built book, and take out the icons that it does not show."""
    if error or app.builder.format != "html":
        return
    if not staging.copy_mathjax(Path(app.outdir)):
        logger.warning("sphinx-mathjax-offline is not installed: formulas stay TeX source")
    staging.lighten(Path(app.outdir))


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("config-inited", stage, priority=10)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
