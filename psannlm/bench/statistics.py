"""In which order cells are measured, and what their samples mean: intervals, ratios, verdicts.

The unit of replication is the fresh process: each gives one value, and intervals are over these.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

CONFIDENCE = 0.95
N_RESAMPLES = 9999
SMALLEST_EFFECT = 0.01  # a ratio closer to 1 than this is never called a difference
FEWEST_REPEATS = 6
"""Below this many processes no verdict separates: the widest interval of five values, from the
least to the greatest, covers a median with less than 95% (1 - 2 / 2**5)."""

Verdict = Literal["faster", "slower", "not separated", "baseline", "noise floor"]
SettingT = TypeVar("SettingT")


@dataclass(frozen=True)
class Interval:
    """A median and the bootstrap interval around it."""

    median: float
    low: float
    high: float
    n: int


def median_interval(values: Sequence[float]) -> Interval:
    """Median with its percentile bootstrap interval; of one value, that value alone.

    The resampling is seeded, so that the same samples always give the same interval.
    """
    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        raise ValueError("an interval needs at least one value, got none")
    center = float(np.median(sample))
    if sample.size == 1 or np.all(sample == sample[0]):
        return Interval(center, float(sample[0]), float(sample[0]), sample.size)
    median: Callable[..., NDArray[np.float64]] = np.median
    options: Any = {"confidence_level": CONFIDENCE, "n_resamples": N_RESAMPLES}
    draw = np.random.default_rng(0)
    found: Any = bootstrap((sample,), median, method="percentile", rng=draw, **options)
    low, high = found.confidence_interval
    return Interval(center, float(low), float(high), sample.size)


def ratio_interval(values: dict[int, float], baseline: dict[int, float]) -> Interval | None:
    """Median of the ratios to the baseline with its interval; None if no block has both.

    Both are given by the number of the block, within which ratios are taken.
    """
    shared = sorted(values.keys() & baseline.keys())
    if not shared:
        return None
    return median_interval([values[block] / baseline[block] for block in shared])


def noise_floor(same: Interval | None) -> float | None:
    """How far from 1 the interval of the baseline's ratio to itself reaches; None if unknown."""
    return None if same is None else max(abs(same.low - 1), abs(same.high - 1))


def verdict(ratio: Interval | None, floor: float | None) -> Verdict:
    """Faster or slower than the baseline, or not separated from it.

    A difference needs enough repeats, an interval without 1, and a size above both the noise floor
    and the smallest effect that was declared to matter. Without a floor there is no difference.
    """
    if ratio is None or floor is None or ratio.n < FEWEST_REPEATS or ratio.low <= 1 <= ratio.high:
        return "not separated"
    if abs(ratio.median - 1) <= max(floor, SMALLEST_EFFECT):
        return "not separated"
    return "faster" if ratio.median > 1 else "slower"


class Cell(NamedTuple, Generic[SettingT]):
    """What one process measures, and its place in the run."""

    repeat: int  # number of its block
    order: int  # its own number in the run
    setting: SettingT


def shuffled_blocks(
    settings: Sequence[SettingT], *, n_repeats: int, seed: int, once: Sequence[SettingT] = ()
) -> list[Cell[SettingT]]:
    """The cells of a run, in the order in which they are measured: in blocks, each shuffled anew.

    A machine that grows slower or faster during a run does so for all settings alike, and a ratio
    is taken within a block. Each has all settings; the first those too that repeat exactly, which
    are measured `once`.
    """
    shuffler = random.Random(seed)
    cells: list[Cell[SettingT]] = []
    for repeat in range(n_repeats):
        block = [*settings, *(once if repeat == 0 else ())]
        shuffler.shuffle(block)
        cells += [Cell(repeat, len(cells) + i, setting) for i, setting in enumerate(block)]
    return cells
