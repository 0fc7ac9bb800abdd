"""A built book keeps the icons that it shows; the first mention of a term leads to the glossary."""

import shutil
from pathlib import Path

import pydata_sphinx_theme
import pytest
from docutils import nodes
from docutils.utils import new_document
from fontTools.ttLib import TTFont
from sphinx.addnodes import pending_xref

from psannlm.publish import staging

STATIC = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
BARS, BELL, SUN = 0xF0C9, 0xF0F3, 0xF185


@pytest.fixture
def site(tmp_path):
    for name in (staging.SCRIPT, staging.SHEET, staging.FONT):
        target = tmp_path / "_static" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(STATIC / name, target)
    (tmp_path / "page.html").write_text('<i class="fa-solid fa-bars"></i>')
    return tmp_path


def test_shown_icons_stay_and_others_go(site):
    staging.lighten(site)
    staging.lighten(site)  # of a build with nothing new

    sheet = (site / "_static" / staging.SHEET).read_text()
    with TTFont(site / "_static" / staging.FONT) as font:
        signs = set(font.getBestCmap())
    assert ".fa-bars:before" in sheet
    assert ".fa-sun:before" not in sheet
    assert "fa-solid-900.woff2" not in sheet
    assert BARS in signs
    assert SUN not in signs
    assert (site / "_static" / staging.SCRIPT).stat().st_size < 100


def test_a_sign_that_a_style_sheet_writes_by_number_or_as_it_is_stays(site):
    own = site / "_static" / "own.css"
    own.write_text(f'.a {{ content: "{chr(BELL)}"; }} .b {{ content: "\\f185"; }}', "utf-8")

    staging.lighten(site)

    with TTFont(site / "_static" / staging.FONT) as font:
        assert {BELL, SUN} <= set(font.getBestCmap())


def test_a_book_of_another_theme_is_left_as_it_is(tmp_path):
    (tmp_path / "page.html").write_text("<p>one</p>")

    staging.lighten(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


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

    staging.link_terms(document, TERMS)

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

    staging.link_terms(document, TERMS)

    assert linked(document) == [("smoke run", "smoke run")]
