"""A repeat is asked for with as many processes as is usual, on the device of the run."""

import pytest
import torch
from psannlm.rerun.asked import MOST, RerunRequest
from psannlm.rerun.surroundings import EnvironmentDiff

from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import load
from psannlm.pages.throughput.config import ThroughputConfig
from tests.synthetic import throughput_config, throughput_run


@pytest.fixture
def ask(tmp_path):
    run = load(throughput_run(tmp_path))
    here = EnvironmentDiff(torch.device("cpu"), (), {}, {})
    return lambda repeats: RerunRequest(run, here, repeats, lambda _: None)


def test_the_configuration_is_that_of_the_run(ask):
    assert ask(None).configuration(ThroughputConfig) == throughput_config()


def test_as_many_as_published_up_to_what_is_usual_unless_said(ask):
    assert ask(None).times(MOST + 4) == MOST
    assert ask(None).times(2) == 2
    assert ask(None).times(0) == 1
    assert ask(None).times(5, usual=1) == 1
    assert ask(9).times(2) == 9


def test_what_one_repeat_decides_is_done_once(ask):
    ask(None).refuse_repeats()
    ask(1).refuse_repeats()

    with pytest.raises(ConfigError, match="repeats must be 1 on the page throughput"):
        ask(2).refuse_repeats()
