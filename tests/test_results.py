"""The notebook of results shows what its parameters choose, and refuses what there is not."""

import pytest

from psannlm.config.parse import parse
from psannlm.config.schema import ConfigError
from psannlm.evidence.notebook import default_parameters
from psannlm.evidence.runs import Refused
from psannlm.pages.registry import pages
from psannlm.publish import history
from psannlm.publish.history import Results, ResultsConfig
from tests.histories import history_run
from tests.trainings import training_run

ALL = {"page": "", "base": "", "machine": "", "preset": "", "reports": ""}
BOTH = {}, {"base": "transformer", "label": "transformer"}


def asking(**asked):
    return ResultsConfig(**ALL | asked)


@pytest.fixture
def runs(tmp_path):
    """Two machines, two pages, two presets, and a run that is refused."""
    return [
        history_run(tmp_path, "throughput", *BOTH),
        history_run(tmp_path, "throughput", *BOTH),
        history_run(tmp_path, "throughput", *BOTH, machine="another"),
        history_run(tmp_path, "validation", preset="gpu"),
        Refused(tmp_path / "x", "x: broken"),
    ]


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({}, [1, 2, 3, 4]),
        ({"page": "throughput"}, [1, 2, 3]),
        ({"page": "validation"}, [4]),
        ({"base": "transformer"}, [1, 2, 3]),
        ({"machine": "another"}, [3]),
        ({"preset": "gpu"}, [4]),
        ({"page": "throughput", "machine": "a machine"}, [1, 2]),
        ({"page": "shootout"}, []),
    ],
)
def test_runs_are_those_that_were_asked_for_and_all_that_were_refused(runs, asked, numbers):
    chosen = Results(asking(**asked), runs).chosen

    assert chosen == [runs[number - 1] for number in numbers] + [runs[-1]]


def test_tables_have_rows_of_the_chosen_base_and_machine_alone(runs):
    found = Results(asking(base="transformer", machine="a machine"), runs)

    best, changes = found.best().data, found.regressions().data

    assert best.count("<tr>") == 1 + 1
    assert "<td>transformer</td>" in best
    assert "<td>respsann</td>" not in best + changes
    assert "Of 1 compared numbers" in changes
    assert "another" not in best + changes


@pytest.mark.parametrize(("base", "is_told"), [("transformer", True), ("sgrpsann", False)])
def test_a_pair_that_cannot_be_compared_is_told_for_each_of_its_bases(runs, base, is_told):
    found = Results(asking(base=base, machine="another"), runs)

    assert ("machine: another, before a machine" in found.regressions().data) == is_told


def test_what_was_chosen_is_said_with_the_number_of_runs(runs):
    asked = Results(asking(page="validation", preset="gpu"), runs)

    assert asked.about().data == "Chosen: page validation, preset gpu; 2 of 5 runs."
    assert "no two of equal" not in asked.trends().data
    assert "Validation on a machine: one complete run." in asked.trends().data


def test_nothing_measured_shows_empty_tables():
    found = Results(asking(), [])

    assert found.about().data == "Chosen: everything; 0 of 0 runs."
    assert "no run yet" in found.all_runs().data
    assert "no complete run yet" in found.best().data
    assert "nothing to compare" in found.regressions().data


def test_unknown_names_are_refused_all_at_once_with_the_nearest_and_what_there_is(tmp_path):
    training_run(tmp_path)
    asked = {"page": "thruput", "base": "respsan", "machine": "B", "preset": "cpus"}

    with pytest.raises(ConfigError) as refused:
        history.results(asking(**asked, reports=str(tmp_path)))

    for said in (
        f"unknown page 'thruput', did you mean 'throughput'? There are: {', '.join(pages())}",
        "unknown base 'respsan', did you mean 'respsann'? There are: respsann",
        "unknown machine 'B'",
        "unknown preset 'cpus', did you mean 'cpu'? There are: smoke, cpu, gpu",
    ):
        assert said in str(refused.value)


def test_a_folder_that_is_not_there_is_refused_and_an_empty_one_has_no_names(tmp_path):
    with pytest.raises(ConfigError, match=r"reports: no such folder '.*nowhere'; name one that"):
        history.results(asking(reports=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match="There are: none, for there is no run yet"):
        history.results(asking(base="x", reports=str(tmp_path)))

    assert history.results(asking(reports=str(tmp_path))).runs == []


def test_the_notebook_declares_what_its_configuration_knows_and_chooses_all():
    declared = default_parameters(history.NAME)

    assert declared == ALL == dict(parse(ResultsConfig, declared, source="it"))


def test_outside_a_notebook_it_says_how_to_run_it():
    with pytest.raises(ConfigError, match=r"notebooks/results.ipynb must be run as a notebook"):
        history.start()
