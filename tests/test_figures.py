"""Figures fit the page around them, say what they show, and come out the same every time."""

import re
import xml.etree.ElementTree as ET

import pytest

from psannlm.model.bases import BASES
from psannlm.report import figures
from psannlm.report.tables import throughput_table
from tests.synthetic import throughput_config, throughput_records

CONFIG = throughput_config(
    base=("respsann", "sgrpsann"), batch_tokens=(32, 64), mode=("forward", "train_step")
)
SPEEDS = {"respsann": 800.0, "sgrpsann": 900.0, "transformer": 1000.0}
TABLE = throughput_table(
    throughput_records(CONFIG, SPEEDS), CONFIG, timestamp="20260101_000000", device="a CPU"
)
DRAWN = {
    "speed": lambda: figures.throughput_figure(TABLE),
    "ceiling": lambda: figures.ceiling_figure(TABLE),
    "sine": figures.sine_figure,
}
each_figure = pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)


@each_figure
def test_a_panel_is_valid_xml_with_a_text_for_those_who_cannot_see_it(draw):
    roots = [ET.fromstring(svg) for svg in draw().panels.values()]

    assert {root.attrib["role"] for root in roots} == {"img"}
    assert len({root.attrib["aria-label"] for root in roots}) == len(roots) > 1


@each_figure
def test_a_figure_takes_the_colours_and_font_of_the_page(draw):
    drawn = draw().html

    assert "currentColor" in drawn
    assert figures.INK not in drawn
    assert "sans-serif" not in drawn


@each_figure
def test_a_figure_is_the_same_every_time(draw):
    assert draw().html == draw().html


def test_every_base_has_a_colour_of_its_own():
    colours = figures.palette()

    assert len({tuple(colour) for colour in colours.values()}) == len(BASES)


def test_a_base_keeps_its_colour_beside_others():
    assert figures.palette(["new"])["respsann"] == figures.palette()["respsann"]


def test_a_table_in_which_everything_failed_still_draws():
    failed = TABLE.assign(status="failed")

    assert "<svg" in figures.throughput_figure(failed).html
    assert "<svg" in figures.ceiling_figure(failed).html


def test_every_label_of_the_table_stands_in_the_legend():
    words = set(re.findall(r">([^<>]+)</text>", figures.throughput_figure(TABLE).html))

    assert set(TABLE["label"]) <= words
