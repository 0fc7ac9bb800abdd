"""A check made again must end as it did, its measures within their bounds."""

from dataclasses import replace

import pytest

from psannlm.config.schema import ConfigError
from psannlm.pages.validation.rerun import compared
from psannlm.run import repeat
from tests.validations import (
    ENTRIES,
    SOUND,
    made,
    made_up_checks,
    measure,
    validation_config,
    validation_run,
)


@pytest.fixture
def findings(monkeypatch):
    made_up_checks(monkeypatch)
    return {(f.check, f.base): f for f in made(validation_config())}


def test_a_check_that_passes_again_is_inside_and_its_digits_are_counted(findings):
    fine = findings["GPU-01", "respsann"]

    found = compared(fine, fine).quantities

    assert [q.inside for q in found] == [True, True, True, None]
    assert found[-1].measured == "2 of 2"


def test_a_measure_beyond_its_bound_is_outside(findings):
    fine = findings["GPU-01", "respsann"]
    worse = replace(fine, measures=(measure(value=0.6), fine.measures[1]))

    found = compared(fine, worse).quantities

    assert [q.inside for q in found] == [True, False, True, None]
    assert found[1].expected == "at most 0.5"
    assert found[-1].measured == "1 of 2"


def test_another_status_is_outside_and_a_failure_that_repeats_is_not(findings):
    fine, broken = findings["GPU-01", "respsann"], findings["GPU-02", "respsann"]

    assert compared(fine, broken).quantities[0].inside is False
    assert [q.inside for q in compared(broken, broken).quantities] == [True, True, None]


def test_a_measure_that_is_not_made_any_more_is_outside(findings):
    fine = findings["GPU-01", "respsann"]

    found = compared(fine, replace(fine, measures=fine.measures[:1])).quantities

    assert [q.inside for q in found] == [True, True, False, None]


def test_the_check_of_that_base_alone_is_made(tmp_path, monkeypatch):
    checks = made_up_checks(monkeypatch)
    checks.clear()
    checks |= SOUND
    folder, asked = validation_run(tmp_path), []

    def watched(case):
        asked.append((case.base, case.config.base))
        return ENTRIES["GPU-01"].run(case)

    checks["GPU-01"] = checks["GPU-01"]._replace(run=watched)
    outcome = repeat.rerun(folder, 2)

    assert asked == [("transformer", ("transformer",))]
    assert outcome.inside is True
    with pytest.raises(ConfigError, match=r"repeats must be 1 on the page validation.* got 3"):
        repeat.rerun(folder, 2, repeats=3)


@pytest.mark.slow
def test_a_real_check_made_again_gives_the_same_digits(tmp_path):
    folder = validation_run(tmp_path, only=("FAST",), base=("respsann",))

    outcome = repeat.rerun(folder)

    assert outcome.inside is True
    digits = outcome.repeat.quantities[-1]
    assert digits.measured == digits.published
