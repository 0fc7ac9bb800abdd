"""A run folder keeps every record of memory, and its timed steps as a table."""

import pandas as pd
import pytest
import torch

from psannlm.evidence import cells
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Page
from psannlm.pages.memory.cells import MEMORY
from tests.synthetic import start_manifest
from tests.synthetic_memory import failed_record, memory_config, memory_record

ONE, TWO = memory_record(seconds=(0.1, 0.2)), failed_record(grad_checkpoint=True)


@pytest.fixture
def page(tmp_path):
    config = memory_config()
    run = Run.start("benchmarks", start_manifest("memory", config), reports=tmp_path)
    return Page("memory", config, run, torch.device("cpu"))


def test_a_run_goes_on_with_the_records_that_it_had(page):
    cells.collect(page, [[ONE]], MEMORY, total=2)

    assert cells.done(page.run, MEMORY) == {ONE.key}
    assert cells.collect(page, [[TWO]], MEMORY, total=2) == [ONE, TWO]
    assert cells.recorded(page.run, MEMORY) == [ONE, TWO]


def test_every_timed_step_is_a_row(page):
    cells.collect(page, [[ONE], [TWO]], MEMORY, total=2)

    samples = pd.read_csv(page.run.folder / "samples.csv")

    assert list(samples["seconds"]) == [0.1, 0.2]
    assert list(samples["step"]) == [0, 1]
    assert set(samples["base"]) == {"respsann"}
