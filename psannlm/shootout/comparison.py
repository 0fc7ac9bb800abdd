"""How far arms differ: paired differences with intervals, corrected verdicts, shared places."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["better", "worse", "not separated", "baseline", "A/A"]


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, nats per token, with its interval; negative is better."""

    mean: float
    low: float
    high: float
    p: float
    """Chance of a mean as far from zero if there were no difference."""

    n: int
    """Pairs."""


@dataclass(frozen=True)
class Comparison:
    """An arm against another, on the same seeds and the same documents."""

    arm: str
    other: str
    seeds: Difference
    """Of validation losses, a pair a seed: would other trainings say the same?"""

    documents: Difference
    """Of validation losses, a pair a document, weighted by tokens: would other texts?"""

    test: Difference
    """Of test losses, a pair a seed."""

    p: float
    """The greater of those over seeds and over documents."""

    p_holm: float
    """The same after Holm's correction for all comparisons with the baseline."""

    verdict: Verdict
