"""The smallest difference that shares of right answers can show."""

import math

from scipy.optimize import brentq
from scipy.stats import norm

from psannlm.config.schema import ConfigError

CONFIDENCE = 0.95
POWER = 0.8
"""Chance with which a difference that is there is found."""


def smallest_effect(n_items: int, p: float) -> float:
    """How much more than `p` a second share must be so that n items of each are likely to show it.

    With 80% power at 5% two-sided. Solved for d, with q = p + d and m = p + d / 2, from
    n = (z(0.975) sqrt(2 m (1 - m)) + z(0.8) sqrt(p (1 - p) + q (1 - q)))^2 / d^2
    (Fleiss, Levin, Paik 2003, Statistical Methods for Rates and Proportions, 4.2). Items of both
    are taken as independent: two networks on the same items often show smaller differences.

    Args:
        n_items: Answers of each.
        p: The lower share, such as the chance of a guess.

    Returns:
        A difference of shares; infinity if so few items cannot show any.

    Raises:
        ConfigError: There is no item, or `p` is not from 0 to less than 1.
    """
    if n_items < 1:
        raise ConfigError(f"n_items must be at least 1, got {n_items}")
    if not 0 <= p < 1:
        raise ConfigError(f"p must be at least 0 and less than 1, got {p}")
    z_level, z_power = norm.ppf(1 - (1 - CONFIDENCE) / 2), norm.ppf(POWER)

    def lack(d: float) -> float:
        """How far d falls short of what n items show."""
        middle, q = p + d / 2, p + d
        under_equal = math.sqrt(2 * middle * (1 - middle))
        under_d = math.sqrt(p * (1 - p) + max(q * (1 - q), 0.0))
        return float(z_level * under_equal + z_power * under_d - d * math.sqrt(n_items))

    if lack(1 - p) > 0:
        return math.inf
    return float(brentq(lack, 0, 1 - p))
