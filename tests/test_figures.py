"""Figures fit the page around them, say what they show, and come out the same every time."""

import xml.etree.ElementTree as ET

import pytest

from psannlm.evidence import figures
from psannlm.evidence.page import RunInfo
from psannlm.model.bases import BASES
from psannlm.pages.memory import figures as memory_figures
from psannlm.pages.memory.tables import MEMORY, tabulate
from psannlm.pages.shootout.arms import all_arms
from psannlm.pages.throughput import figures as throughput_figures
from psannlm.pages.throughput.page import PAGE as THROUGHPUT
from psannlm.pages.tiny_corpus import figures as training_figures
from psannlm.publish import build
from tests.synthetic import throughput_config, throughput_records
from tests.synthetic_memory import memory_config, memory_records
from tests.trainings import trained, training_config

CONFIG = throughput_config(
    base=("respsann", "sgrpsann"), batch_tokens=(32, 64), mode=("forward", "train_step")
)
SPEEDS = {"respsann": 800.0, "sgrpsann": 900.0, "transformer": 1000.0}
RUN = {"run": "20260101_000000", "environment": {"device": "a CPU"}}
[TABLE] = THROUGHPUT.tabulate(throughput_records(CONFIG, SPEEDS), RunInfo(CONFIG, RUN)).values()
MEASURED = memory_config(n_repeats=1, contexts=(), precision=("fp32",))
ROWS = tabulate(memory_records(MEASURED), RunInfo(MEASURED, RUN))[MEMORY.file]
TRAINED = trained(training_config())
DRAWN = {
    "speed": lambda: throughput_figures.speed(TABLE),
    "ceiling": lambda: throughput_figures.ceiling(TABLE),
    "sine": build.sine_figure,
    "losses": lambda: training_figures.losses(TRAINED),
    "yardsticks": lambda: training_figures.yardsticks(TRAINED),
    "sines": lambda: training_figures.sines(TRAINED),
    "breakdown": lambda: memory_figures.breakdown(ROWS, MEASURED),
    "growth": lambda: memory_figures.growth(ROWS, MEASURED, "saved"),
    "course": lambda: training_figures.course(TRAINED, 1.0),
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_panels_are_valid_xml_in_the_colours_of_the_page_with_a_text_and_always_the_same(draw):
    figure = draw()
    roots = [ET.fromstring(svg) for svg in figure.panels.values()]

    assert {root.attrib["role"] for root in roots} == {"img"}
    assert len({root.attrib["aria-label"] for root in roots}) == len(roots) > 0
    assert "currentColor" in figure.html
    assert figures.INK not in figure.html
    assert "sans-serif" not in figure.html
    assert draw().html == figure.html


def test_every_base_and_arm_has_a_colour_and_a_marker_that_it_keeps_beside_others():
    arms = list(all_arms())

    assert len({tuple(colour) for colour in figures.palette().values()}) == len(BASES)
    assert figures.palette(["new"])["respsann"] == figures.palette()["respsann"]
    assert len({tuple(figures.palette(arms)[arm]) for arm in arms}) == len(arms)
    assert len({figures.markers(arms)[arm] for arm in arms}) == len(arms)
    for arm in arms:
        assert figures.palette([arm])[arm] == figures.palette(arms)[arm]
        assert figures.markers([arm, "new"])[arm] == figures.markers(arms[::-1])[arm]
    assert figures.palette(["gelu"])["gelu"] == figures.palette()["transformer"]
    assert figures.markers(["gelu"])["gelu"] == figures.markers()["transformer"]


def test_a_figure_without_panels_is_its_caption():
    figure = figures.compose("nothing", {}, "There is nothing to <draw>.")

    assert "There is nothing to &lt;draw&gt;." in figure.html
    assert list(figure._repr_mimebundle_()) == ["text/html"]
