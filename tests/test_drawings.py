"""Drawings share a page without sharing a name, and look as they did."""

import re
from xml.etree import ElementTree

from psannlm.evidence import figures as drawings

ONE = """<svg aria-label="0.12345 of all"><metadata><x>1</x></metadata>
 <g id="axes_1"><defs><path id="m1" d="M 1.23456 -0.98765
L 2 3.10101
"/></defs>
  <clipPath id="p1"/>
  <use xlink:href="#m1" x="1.23456" style="stroke-width: 0.12345"/>
  <g clip-path="url(#p1)"/>
  <text style="font-size: 10px; font-family: 'A', inherit; fill: red">0.12345 s</text></g></svg>"""


def names(html: str) -> list[str]:
    return re.findall(r'\sid="([^"]*)"', html)


def test_names_are_told_apart_and_still_refer_to_what_they_did():
    page = drawings.with_unique_ids(f"<figure>{ONE}<p id='note'>0.12345</p>{ONE}</figure>", "cell")

    assert sorted(names(page)) == ["cell-1-m1", "cell-1-p1", "cell-2-m1", "cell-2-p1"]
    for number in (1, 2):
        assert page.count(f'href="#cell-{number}-m1"') == 1
        assert page.count(f'"url(#cell-{number}-p1)"') == 1


def test_places_are_rounded_what_people_read_is_not_and_has_the_font_of_its_page():
    page = drawings.slim(ONE, "a")

    assert 'd="M 1.23 -0.98 L 2 3.10 "' in page
    assert 'x="1.23"' in page
    assert 'aria-label="0.12345 of all"' in page
    assert ">0.12345 s</text>" in page
    assert "stroke-width: 0.12345" in page
    assert 'style="font-size: 10px; fill: red"' in page
    assert "metadata" not in page


def test_what_is_no_drawing_stays_as_it_is():
    words = "<p id='a'>x=\"1.23456\"  >  <</p>"

    assert drawings.with_unique_ids(words, "cell") == words


def test_the_panels_of_a_figure_share_no_name():
    def draw(axes):
        axes.plot([1, 2], [3, 4], marker="o", label="line")

    page = drawings.compose("lines", {"one": draw, "two": draw}, "two lines").html

    assert len(set(names(page))) == len(names(page)) > 0
    for drawing in drawings.DRAWING.findall(page):
        assert len(ElementTree.fromstring(drawing).findall(".//{*}use")) > 0
        for _, name in drawings.USE.findall(drawing):
            assert f' id="{name}"' in drawing
