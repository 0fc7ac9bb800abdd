"""A shuffled order of any length that is computed position by position and never stored.

N is the length, m the least number with m * m >= N. A position is a pair of digits below m, which
Feistel rounds carry to another pair: left, right -> right, left + f(right) mod m. Each round can be
undone, so this permutes the m * m pairs; from a pair that is N or more it goes on until one is
less, which permutes the numbers below N.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

N_ROUNDS = 6


def shuffled(positions: NDArray[np.int64], length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """What stands at each of `positions` when the numbers below `length` are shuffled.

    Args:
        positions: Each from 0 to N - 1.
        length: N.
        seed: Of the training.
        epoch: Of the training; each has an order of its own.

    Returns:
        As many numbers, each from 0 to N - 1.
    """
    side = np.uint64(math.isqrt(length - 1) + 1)
    keys = _keys(seed, epoch)
    found = _permuted(positions.astype(np.uint64), side, keys)
    while (beyond := found >= length).any():
        found[beyond] = _permuted(found[beyond], side, keys)
    return found.astype(np.int64)


@functools.lru_cache(maxsize=4)
def _keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    state = np.random.SeedSequence((seed, epoch)).generate_state(N_ROUNDS, np.uint64)
    return state.astype(np.uint64)


def _permuted(
    numbers: NDArray[np.uint64], side: np.uint64, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    left, right = np.divmod(numbers, side)
    for key in keys:
        left, right = right, (left + _hashed(right + key) % side) % side
    return left * side + right


def _hashed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Values whose every bit depends on all bits, by the finish of SplitMix64 (Steele 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
