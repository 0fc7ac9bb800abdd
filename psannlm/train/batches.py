"""Which tokens each step is trained on, and the windows that a split is evaluated in.

B sequences a step; T tokens a sequence; N windows of T + 1 tokens, each T tokens after the one
before it, so that every token but the first is predicted once an epoch. Position k of a training
is window shuffled(k mod N) of epoch k // N: a step's batch follows from its number alone.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psannlm.config.schema import ConfigError
from psannlm.model.loss import IGNORED
from psannlm.train.data import Tokens


@dataclass(frozen=True)
class Batches:
    """The batches of a training, in any order and for any number of processes."""

    tokens: Tokens
    context_length: int  # T
    batch_sequences: int  # B, over all processes and micro-batches
    seed: int

    def __post_init__(self) -> None:
        if self.n_windows < 1:
            raise ConfigError(
                f"the training split must hold context_length + 1 = {self.context_length + 1} "
                f"tokens, got {self.tokens.n_tokens} with context_length {self.context_length}; "
                "shorten context_length, or give more text"
            )

    @property
    def n_windows(self) -> int:
        """N; up to T - 1 tokens after the last window are never trained on."""
        return self.tokens.n_predicted // self.context_length

    def steps(self, epochs: float) -> int:
        """The fewest steps that take every window `epochs` times."""
        steps = round(epochs * self.n_windows / self.batch_sequences, 6)
        return max(1, math.ceil(steps))  # 1.1 epochs of 10 steps are no 11.000000000000002

    def batch(
        self, step: int, micro: int = 0, n_micro: int = 1, rank: int = 0, world: int = 1
    ) -> tuple[Tensor, Tensor]:
        """The share of micro-batch `micro` of `n_micro`, on `rank` of `world`, in a step from 0.

        Returns:
            Token ids and the ids that follow them, each int64 (b, T), b = B / (world * n_micro).
            All shares of a step together are the same B rows, however they are shared.

        Raises:
            ConfigError: B rows cannot be shared evenly.
        """
        n_shares = world * n_micro
        if self.batch_sequences % n_shares:
            raise ConfigError(
                f"batch_sequences must be a multiple of {n_shares} for {world} processes and "
                f"{n_micro} micro-batches, got {self.batch_sequences}; change one of them"
            )
        if not (0 <= micro < n_micro and 0 <= rank < world):
            raise ValueError(f"no share {micro} of {n_micro}, {rank} of {world}")
        n_rows = self.batch_sequences // n_shares
        first = step * self.batch_sequences + (micro * world + rank) * n_rows
        windows, length = self.windows(np.arange(first, first + n_rows)), self.context_length
        places = windows[:, None] * length + np.arange(length + 1)
        rows = torch.from_numpy(np.asarray(self.tokens.ids)[places].astype(np.int64))
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def windows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The window at each of `positions` of the training."""
        epochs, within = np.divmod(positions, self.n_windows)
        found = np.empty_like(positions)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            found[here] = shuffled(within[here], self.n_windows, self.seed, epoch)
        return found


def evaluation_windows(
    tokens: Tokens, context_length: int, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """All predicted tokens of a split, each once and in order, in b = `batch` windows at once.

    Yields:
        Token ids and the ids that follow them, each int64 (b, T). What the last batch has no
        tokens for has the target IGNORED; all batches are of one shape.
    """
    ids = np.asarray(tokens.ids)
    size = batch * context_length
    for start in range(0, tokens.n_predicted, size):
        part = torch.from_numpy(ids[start : start + size + 1].astype(np.int64))
        missing = size + 1 - len(part)
        inputs = torch.nn.functional.pad(part[:-1], (0, missing))
        targets = torch.nn.functional.pad(part[1:], (0, missing), value=IGNORED)
        yield inputs.view(batch, -1), targets.view(batch, -1)


def shuffled(positions: NDArray[np.int64], length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """What stands at each of `positions` when the numbers below `length` are shuffled.

    The order is computed position by position and never stored. With m the least number whose
    square is `length` or more, a position is a pair of digits below m, which Feistel rounds carry
    to another pair: left, right -> right, left + f(right) mod m. Each round can be undone, so this
    permutes the m * m pairs; from a pair beyond `length` it goes on until one is not. Each seed and
    epoch has an order of its own.
    """
    side, keys = np.uint64(math.isqrt(length - 1) + 1), _keys(seed, epoch)
    found = positions.astype(np.uint64)
    moving = np.full(len(found), True)
    while moving.any():
        left, right = np.divmod(found[moving], side)
        for key in keys:
            left, right = right, (left + _hashed(right + key) % side) % side
        found[moving] = left * side + right
        moving = found >= length
    return found.astype(np.int64)


@functools.lru_cache(maxsize=4)
def _keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    """Of six rounds."""
    return np.random.SeedSequence((seed, epoch)).generate_state(6, np.uint64).astype(np.uint64)


def _hashed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Values whose every bit depends on all bits, by the finish of SplitMix64 (Steele 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
