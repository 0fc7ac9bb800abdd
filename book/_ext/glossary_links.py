"""Sphinx extension: the first mention of a term on a page leads to the glossary."""

import re
from pathlib import Path
from typing import Any

from psannlm.publish.staging import link_terms

GLOSSARY = "glossary"
EVERYDAY = {"measure", "place", "row", "run", "setting"}
"""Terms that prose uses in their everyday sense too often to be linked."""


def terms(source: Path) -> list[str]:
    """The terms of the glossary, as its page lists them."""
    text = (source / f"{GLOSSARY}.md").read_text(encoding="utf-8")
    block = text.split("```{glossary}")[1].split("```")[0]
    found: list[str] = re.findall(r"^(\S.*)$", block, re.MULTILINE)
    return [term for term in found if term not in EVERYDAY]


def link(app: Any, page: Any) -> None:
    """Link the terms of a page that was read."""
    if app.env.docname != GLOSSARY:
        link_terms(page, app.config.glossary_terms)


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    # A new term reads every page anew.
    app.add_config_value("glossary_terms", terms(Path(app.srcdir)), "env")
    app.connect("doctree-read", link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
