"""A training made again from the same seed reaches the same digits, or is near elsewhere."""

import pytest

from psannlm.config.schema import ConfigError
from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import load
from psannlm.pages.tiny_corpus.rerun import NEAR, SAME, compared
from psannlm.run import repeat
from tests.trainings import training_run


@pytest.fixture
def row(tmp_path):
    return rows_of(load(training_run(tmp_path)))[0]


def verdicts(row, shift, *, same_digits):
    metrics = dict(row.values) | {"val_loss": row.values["val_loss"] + shift}
    return [q.inside for q in compared(row, metrics, same_digits=same_digits).quantities]


def test_on_the_same_machine_every_digit_repeats(row):
    assert verdicts(row, 0.0, same_digits=True) == [True, True, None]
    assert verdicts(row, 1e-12, same_digits=True) == [False, True, None]


def test_elsewhere_a_loss_may_differ_by_less_than_an_effect(row):
    assert verdicts(row, 0.004, same_digits=False) == [True, True, None]
    assert verdicts(row, -0.006, same_digits=False) == [False, True, None]


def test_the_rule_is_told(row):
    assert compared(row, dict(row.values), same_digits=True).rules == (SAME,)
    assert compared(row, dict(row.values), same_digits=False).rules == (NEAR,)


def test_another_text_is_refused_before_anything_is_trained(tmp_path):
    folder = training_run(tmp_path)

    with pytest.raises(ConfigError, match=r"sample.txt has sha256 .* corpus build sample"):
        repeat.rerun(folder)
