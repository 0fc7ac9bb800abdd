"""The pages of the report, in the order in which a run makes them and the book shows them."""

import functools
import importlib
from collections.abc import Mapping
from typing import Any

from psannlm.evidence.page import Page

NAMES = ("validation", "throughput", "memory", "tiny_corpus", "shootout", "peer")
"""Folders below pages/: each has a module `page` with its PAGE."""


@functools.cache
def pages() -> Mapping[str, Page[Any, Any]]:
    """Every page by its name."""
    return {name: importlib.import_module(f"psannlm.pages.{name}.page").PAGE for name in NAMES}
