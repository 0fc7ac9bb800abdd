"""The figure of the comparison shows every base and setting, and draws whatever there is."""

import re

import pytest
from psannlm.pages.peer.cells import PUBLISHED

from psannlm.pages.peer import figures as peer_figures
from psannlm.pages.peer.tables import peer_table
from tests.synthetic_peer import peer_config, peer_records

CONFIG = peer_config()


def drawn(**changes):
    rows = peer_table(
        peer_records(CONFIG, **changes), CONFIG, timestamp="20260101_000000", device="a CPU"
    )
    return peer_figures.ratios(rows)


@pytest.mark.slow
def test_a_panel_stands_for_each_work_and_precision_with_every_base_and_setting():
    figure = drawn()

    assert list(figure.panels) == [
        "training step, fp32",
        "kept for backward, fp32",
    ]
    for name, panel in figure.panels.items():
        words = set(re.findall(r">([^<>]+)</text>", panel))
        of = "bytes" if name.startswith("kept") else "speed"
        assert words >= {"respsann", "sgrpsann", "defaults", "best", f"ours / published, {of}"}


def test_without_anything_to_compare_the_caption_says_so():
    figure = drawn(failing=[PUBLISHED])

    assert not figure.panels
    assert "could be compared" in figure.caption
