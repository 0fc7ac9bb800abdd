"""Differences of shares that items can show."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from psannlm.config.schema import ConfigError
from psannlm.pages.shootout.proportions import smallest_effect


def power(n: int, p: float, q: float) -> float:
    """Chance that a pooled two-sided z test at 5% separates the shares, over all outcomes."""
    right = np.arange(n + 1)
    probabilities = np.outer(binom.pmf(right, n, p), binom.pmf(right, n, q))
    pooled = (right[:, None] + right) / (2 * n)
    error = np.sqrt(2 * pooled * (1 - pooled) / n)
    with np.errstate(invalid="ignore"):
        z = (right[:, None] - right) / n / error
    return float(probabilities[np.abs(np.nan_to_num(z)) > norm.ppf(0.975)].sum())


@pytest.mark.parametrize(("n", "p"), [(256, 0.25), (256, 0.5), (1000, 0.1), (60, 0.25)])
def test_the_smallest_effect_is_found_four_times_in_five(n, p):
    q = p + smallest_effect(n, p)

    assert power(n, p, q) == pytest.approx(0.8, abs=0.02)


def test_more_items_show_smaller_effects():
    effects = [smallest_effect(n, 0.25) for n in (64, 256, 1024)]

    assert effects == sorted(effects, reverse=True)


def test_too_few_items_show_nothing():
    assert smallest_effect(2, 0.5) == math.inf


@pytest.mark.parametrize(
    ("n", "p", "message"),
    [
        (0, 0.5, "n_items must be at least 1, got 0"),
        (9, 1.0, "p must be at least 0 and less than 1, got 1.0"),
        (9, -0.1, "p must be at least 0 and less than 1, got -0.1"),
    ],
)
def test_what_has_no_room_for_an_effect_is_refused(n, p, message):
    with pytest.raises(ConfigError, match=message):
        smallest_effect(n, p)
