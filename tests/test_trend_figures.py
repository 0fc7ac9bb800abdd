"""Trends are drawn where there are any, with a text for those who cannot see them."""

import re

import pytest

from psannlm.publish.trend_figures import MOST_PANELS, figures
from psannlm.publish.trends import trends
from tests.histories import history_run


def test_a_lone_run_draws_nothing(tmp_path):
    assert not list(figures(trends([history_run(tmp_path, "throughput", 1)])))


@pytest.mark.slow
def test_two_runs_draw_each_base_with_its_interval_and_say_from_when_to_when(tmp_path):
    rows = {}, {"base": "transformer", "label": "transformer", "status": "failed"}
    runs = [history_run(tmp_path, "throughput", 1 + i, *rows) for i in range(2)]

    [figure] = figures(trends(runs))

    [panel] = figure.panels.values()
    assert 'aria-label="Throughput on a machine, run after run' in panel
    assert ">respsann<" in panel
    assert ">transformer<" not in panel, "it was never measured"
    assert ">tokens/s<" in panel
    assert "2 complete runs of equal parameters, from 2026-01-01 10:20 to" in figure.caption
    assert not list(figures(trends(runs), "sgrpsann"))


@pytest.mark.slow
def test_many_runs_and_many_settings_stay_legible(tmp_path):
    rows = [{"batch_tokens": 2**i} for i in range(MOST_PANELS + 2)]
    runs = [history_run(tmp_path, "throughput", 1 + i, *rows) for i in range(9)]

    [figure] = figures(trends(runs))

    assert len(figure.panels) == MOST_PANELS
    assert len(re.findall(r">2026-01-\d\d<", next(iter(figure.panels.values())))) <= 4


@pytest.mark.slow
def test_every_page_can_be_drawn(tmp_path):
    pages = ("validation", "memory", "tiny_corpus", "shootout", "peer")
    runs = [
        history_run(tmp_path, page, 2 * i + j, {"base": "respsann"})
        for i, page in enumerate(pages)
        for j in (1, 2)
    ]

    assert len(list(figures(trends(runs)))) == len(pages)
