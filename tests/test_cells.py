"""Cells of measurement are saved one by one, and an interrupted run keeps what it had."""

import pytest
import torch
from psannlm.evidence.cells import CELLS

from psannlm.evidence import cells
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from tests.synthetic import record, start_manifest, throughput_config

CONFIG = throughput_config()
ONE, TWO = ([record(label=label, repeat=0)] for label in ("respsann", "transformer"))


@pytest.fixture
def page(tmp_path):
    run = Run.start("benchmarks", start_manifest("throughput", CONFIG), reports=tmp_path)
    return Page("throughput", CONFIG, run, torch.device("cpu"))


def test_a_run_that_has_measured_nothing_holds_nothing(page):
    assert cells.recorded(page.run, CELLS) == []
    assert cells.done(page.run, CELLS) == set()


def test_what_was_collected_is_in_the_folder(page):
    assert cells.collect(page, [ONE, TWO], CELLS, total=2) == ONE + TWO
    assert cells.recorded(page.run, CELLS) == ONE + TWO
    assert cells.done(page.run, CELLS) == {ONE[0].key, TWO[0].key}


def test_a_cell_is_saved_before_the_next_is_measured(page):
    def measure():
        yield ONE
        assert cells.recorded(page.run, CELLS) == ONE
        yield TWO

    cells.collect(page, measure(), CELLS, total=2)


def test_a_run_goes_on_with_what_it_had(page):
    cells.collect(page, [ONE], CELLS, total=2)

    assert cells.collect(page, [TWO], CELLS, total=2) == ONE + TWO


def test_a_run_without_its_samples_has_measured_nothing(page):
    cells.collect(page, [ONE], CELLS, total=1)
    page.run.artifacts.discard("samples.csv")

    assert cells.recorded(page.run, CELLS) == []
