"""Links from the first mention of a term on a page to its entry in the glossary."""

import re
from collections.abc import Collection, Iterator

from docutils import nodes
from sphinx.addnodes import pending_xref

WHERE = (nodes.paragraph, nodes.admonition, nodes.note, nodes.warning)
"""Prose; tables, headings and captions stay as they are."""

NOT_IN = (
    nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.raw, nodes.title,
    nodes.table, nodes.caption, nodes.target, pending_xref,
)  # fmt: skip


def link_terms(page: nodes.document, terms: Collection[str]) -> None:
    """Put a reference to the glossary in place of each term's first mention in the prose of a page.

    A mention may be in the plural or begin a sentence. Of two terms that begin at the same place,
    the longer one is meant.

    Args:
        page: A document as it was read; changed in place.
        terms: As the glossary spells them.
    """
    waiting = {term.lower(): term for term in terms}
    for text in list(_prose(page)):
        if not waiting:
            return
        parts: list[nodes.Node] = []
        rest = str(text)
        while waiting and (found := _pattern(waiting).search(rest)):
            mention = found.group()
            term = waiting.pop(_singular(mention.lower(), waiting))
            parts += [nodes.Text(rest[: found.start()]), _reference(term, mention)]
            rest = rest[found.end() :]
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(rest)])


def _pattern(waiting: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(waiting, key=len, reverse=True)
    words = "|".join(re.escape(term) for term in longest_first)
    return re.compile(rf"(?<![\w/-])(?:{words})s?(?![\w/-])", re.IGNORECASE)


def _singular(mention: str, waiting: Collection[str]) -> str:
    return mention if mention in waiting else mention.removesuffix("s")


def _prose(page: nodes.document) -> Iterator[nodes.Text]:
    """Texts of paragraphs that stand in nothing that is set apart."""
    for text in page.findall(nodes.Text):
        above = list(_ancestors(text))
        if any(isinstance(node, WHERE) for node in above) and not any(
            isinstance(node, NOT_IN) for node in above
        ):
            yield text


def _ancestors(node: nodes.Node) -> Iterator[nodes.Node]:
    parent = node.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def _reference(term: str, mention: str) -> pending_xref:
    reference: pending_xref = pending_xref(
        "", refdomain="std", reftype="term", reftarget=term, refexplicit=True, refwarn=True
    )
    reference.append(nodes.inline(mention, mention, classes=["xref", "std", "std-term"]))
    return reference
