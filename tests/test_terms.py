"""The first mention of a term on a page leads to the glossary, and nothing else does."""

import pytest
from docutils import nodes
from docutils.utils import new_document
from sphinx.addnodes import pending_xref

from psannlm.publish.theme import link_terms

TERMS = ["run", "smoke run", "baseline", "MiB"]


def page(*children: nodes.Node) -> nodes.document:
    document = new_document("page")
    document += list(children)
    return document


def prose(text: str) -> nodes.paragraph:
    return nodes.paragraph(text, text)


def linked(document: nodes.document) -> list[tuple[str, str]]:
    """Mention and term of every link, in order."""
    return [(node.astext(), node["reftarget"]) for node in document.findall(pending_xref)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A run, then another run.\n\nAnd a third run.", [("run", "run")]),
        ("Baselines differ.", [("Baselines", "baseline")]),
        ("A smoke run shows that it runs.", [("smoke run", "smoke run"), ("runs", "run")]),
        ("The smoke runs of a run.", [("smoke runs", "smoke run"), ("run", "run")]),
        ("81 MiB less", [("MiB", "MiB")]),
        ("rerun, run-time and reports/run/x are other words", []),
    ],
)
def test_the_first_mention_as_a_whole_word_in_any_case_and_number_is_a_link(text, expected):
    document = page(*map(prose, text.split("\n\n")))

    link_terms(document, TERMS)

    assert linked(document) == expected
    assert document.astext() == text


def test_of_what_is_set_apart_from_prose_emphasised_words_alone_are_prose():
    link = nodes.reference("run", "run", refuri="#")
    code = nodes.literal("run", "run")
    document = page(
        nodes.section("", nodes.title("run", "run")),
        nodes.paragraph("", "", link, code),
        nodes.literal_block("run", "run"),
        nodes.paragraph("", "", nodes.strong("", "The smoke run")),
    )

    link_terms(document, TERMS)

    assert linked(document) == [("smoke run", "smoke run")]
