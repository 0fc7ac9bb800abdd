"""What a published row predicts of a repeat: the interval that new processes should fall in.

The interval of a published median says where the median of endless repeats lies. A few new
processes scatter by themselves as well, so they are held to a prediction interval: for the mean of
m new values, given n published ones with mean y and standard deviation s (n - 1 in the
denominator),

    y +- t * s * sqrt(1/m + 1/n),

t the quantile of Student's distribution with n - 1 degrees of freedom (W. Q. Meeker, G. J. Hahn
and L. A. Escobar, Statistical Intervals, 2nd ed., Wiley 2017, chapter 4). Rates, times and ratios
err by factors: of these y and s are taken over logarithms, and the means are geometric.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student

LEVEL = 0.01
"""Share of repeats that the intervals leave outside, over all that is judged of a row together.

OUTSIDE speaks against a published number, so it should be rare where the number is right. The
formula is exact for normal logarithms; where they have the tails of Student's distribution with 3
degrees of freedom, intervals made for 1% leave out up to 3.5%."""

SURE = f"{1 - LEVEL:.0%}"
"""What an interval is called by."""

FEWEST = 2
"""Published values without which there is no spread, and no interval."""


@dataclass(frozen=True)
class Expected:
    """Where the mean of new values should lie."""

    low: float
    high: float

    def covers(self, value: float) -> bool:
        """Whether `value` lies inside; no number does not."""
        return self.low <= value <= self.high


def expected_mean(published: Sequence[float], n_new: int, *, judged: int = 1) -> Expected | None:
    """Where the mean of new values should lie.

    Args:
        published: One value a process, or a training.
        n_new: New values.
        judged: How many means are judged together; each then gets its share of LEVEL, by
            Bonferroni's inequality.

    Returns:
        None of fewer than FEWEST values.
    """
    if len(published) < FEWEST:
        return None
    n = len(published)
    quantile = float(student.ppf(1 - LEVEL / judged / 2, n - 1))
    half = quantile * stdev(published) * math.sqrt(1 / n_new + 1 / n)
    middle = fmean(published)
    return Expected(middle - half, middle + half)


def expected_rate(
    published: Sequence[float], n_new: int, *, judged: int = 1, floor: float = 0.0
) -> Expected | None:
    """Where the geometric mean of new rates, times or ratios should lie.

    Args:
        published: One a process, all positive.
        n_new: New processes.
        judged: As of `expected_mean`.
        floor: Noise floor of the run: how far from 1 a ratio of equals came. The interval is
            wider by it at both ends.

    Returns:
        None of fewer than FEWEST values.
    """
    found = expected_mean([math.log(value) for value in published], n_new, judged=judged)
    if found is None:
        return None
    return Expected(math.exp(found.low) / (1 + floor), math.exp(found.high) * (1 + floor))
