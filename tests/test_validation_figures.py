"""The figure of a validation shows every base and check, and draws whatever became of them."""

import re

import pytest

from psannlm.pages.validation import figures as validation_figures
from tests.validations import made, made_up_checks, validation_config


@pytest.fixture
def findings(monkeypatch):
    """Of a suite in which everything happens."""
    made_up_checks(monkeypatch)
    return made(validation_config())


def test_every_base_and_every_check_with_a_measure_is_named(findings):
    words = set(re.findall(r">([^<>]+)</text>", validation_figures.bound_ratios(findings).html))

    assert {"respsann", "transformer", "bound", "GPU-01", "GPU-02"} <= words
    assert "GPU-06" not in words


def test_a_run_without_measures_is_a_caption(findings):
    skipped = [finding for finding in findings if finding.status == "skipped"]

    assert "<svg" not in validation_figures.bound_ratios(skipped).html


def test_every_measure_is_a_point(findings, monkeypatch):
    drawn = []

    class Axes:
        def __getattr__(self, name):
            return lambda *given, **named: drawn.append((name, given))

    monkeypatch.setattr(validation_figures, "show_log_across", lambda *given: None)
    validation_figures._strains([f for f in findings if f.measures], Axes())

    points = [x for name, given in drawn if name == "scatter" for x in given[0]]
    assert sorted(points) == sorted([0.5, 250_000 / 299_512.25] * 2 + [10.0, 0.25])
