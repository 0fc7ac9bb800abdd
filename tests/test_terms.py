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


def test_only_the_first_mention_is_a_link():
    document = page(prose("A run, then another run."), prose("And a third run."))

    link_terms(document, TERMS)

    assert linked(document) == [("run", "run")]
    assert document.astext() == "A run, then another run.\n\nAnd a third run."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Baselines differ.", [("Baselines", "baseline")]),
        ("A smoke run shows that it runs.", [("smoke run", "smoke run"), ("runs", "run")]),
        ("The smoke runs of a run.", [("smoke runs", "smoke run"), ("run", "run")]),
        ("81 MiB less", [("MiB", "MiB")]),
        ("rerun, run-time and reports/run/x are other words", []),
    ],
)
def test_a_mention_is_a_whole_word_in_any_case_and_number(text, expected):
    document = page(prose(text))

    link_terms(document, TERMS)

    assert linked(document) == expected
    assert document.astext() == text


def test_what_is_set_apart_from_prose_is_left_alone():
    link = nodes.reference("run", "run", refuri="#")
    code = nodes.literal("run", "run")
    document = page(
        nodes.section("", nodes.title("run", "run")),
        nodes.paragraph("", "", link, code),
        nodes.literal_block("run", "run"),
    )

    link_terms(document, TERMS)

    assert linked(document) == []


def test_emphasised_words_are_prose_too():
    document = page(nodes.paragraph("", "", nodes.strong("", "The run")))

    link_terms(document, TERMS)

    assert linked(document) == [("run", "run")]
