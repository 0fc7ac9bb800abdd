"""The course of a training, fixed before its first step: its steps, their tokens and rates.

B sequences a step; T tokens a sequence; N windows of T + 1 tokens, each T tokens after the one
before it, so that every token but the first is predicted once an epoch. Position k of a training
is window shuffled(k mod N) of epoch k // N: a step's batch follows from its number alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.train.data import Tokens

# What may differ when a training goes on: it changes where or how steps run, not what they do.
FREE = {
    "preset", "device", "parallel", "compile", "pass_tokens", "loss_chunk_tokens", "corpus",
    "checkpoint_steps", "keep_checkpoints", "target_perplexity", "ngram_order", "prompts",
    "sample_tokens", "temperature", "top_p", "grad_checkpoint", "tokenizer_file",
}  # fmt: skip


def course(config: TrainingConfig) -> dict[str, Any]:
    """The parameters that decide what every step does."""
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in FREE}


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
                f"tokens, got {len(self.tokens.ids)} with context_length {self.context_length}; "
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

        Token ids and the ids that follow them, each int64 (b, T), b = B / (world * n_micro): all
        shares of a step together are the same B rows, however they are shared.
        """
        n_rows = self.batch_sequences // (world * n_micro)
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


def shuffled(positions: NDArray[np.int64], length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """What stands at each of `positions` when the numbers below `length` are shuffled.

    The order is computed position by position and never stored. With m the least number whose
    square is `length` or more, a position is a pair of digits below m, which Feistel rounds carry
    to another pair: left, right -> right, left + f(right) mod m. Each round can be undone, so this
    permutes the m * m pairs; from a pair beyond `length` it goes on until one is not. Each seed and
    epoch has an order of its own.
    """
    side = np.uint64(math.isqrt(length - 1) + 1)
    keys = np.random.SeedSequence((seed, epoch)).generate_state(6, np.uint64).astype(np.uint64)
    found = positions.astype(np.uint64)
    moving = np.full(len(found), True)
    while moving.any():
        left, right = np.divmod(found[moving], side)
        for key in keys:
            left, right = right, (left + _hashed(right + key) % side) % side
        found[moving] = left * side + right
        moving = found >= length
    return found.astype(np.int64)


def _hashed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Values whose every bit depends on all bits, by the finish of SplitMix64 (Steele 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class Plan:
    """Steps, and what happens at each."""

    n_steps: int
    n_windows: int  # of the training split: an epoch
    context_length: int
    batch_sequences: int  # windows of an optimizer step, over all ranks
    pass_sequences: int  # windows of one pass of one rank
    n_passes: int  # of each rank a step
    evaluations: frozenset[int]  # steps after which the validation split is evaluated
    epoch_ends: Mapping[int, int]  # last step of each epoch -> its number
    checkpoint_steps: int

    @classmethod
    def of(cls, config: TrainingConfig, batches: Batches, world: int) -> "Plan":
        """The plan of a training on `world` ranks; ConfigError if they cannot share the batch."""
        if config.batch_tokens % (config.pass_tokens * world):
            raise ConfigError(
                "batch_tokens must be a multiple of pass_tokens times the number of ranks, got "
                f"{config.batch_tokens} and {config.pass_tokens} x {world}; change one of them"
            )
        n_steps = batches.steps(config.epochs)
        ends = {min(n_steps, batches.steps(e)): e for e in range(1, math.ceil(config.epochs) + 1)}
        n_marks = math.floor(config.epochs * config.evaluations)
        per_mark = Fraction(batches.n_windows, batches.batch_sequences * config.evaluations)
        marks = {math.ceil(i * per_mark) for i in range(1, n_marks + 1)}
        return cls(
            n_steps=n_steps,
            n_windows=batches.n_windows,
            context_length=config.context_length,
            batch_sequences=batches.batch_sequences,
            pass_sequences=config.pass_tokens // config.context_length,
            n_passes=config.batch_tokens // (config.pass_tokens * world),
            evaluations=frozenset(marks | set(ends) | {n_steps}),
            epoch_ends=ends,
            checkpoint_steps=config.checkpoint_steps,
        )

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is written after `step`."""
        return step % self.checkpoint_steps == 0 or step == self.n_steps

    def place(self, step: int) -> dict[str, Any]:
        """Step, epochs and tokens done after `step`, as loss.csv names them."""
        sequences = step * self.batch_sequences
        epoch, tokens = sequences / self.n_windows, sequences * self.context_length
        return {"step": step, "epoch": epoch, "tokens": tokens}


def rate_at(step: int, n_steps: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer step `step`, counted from 1, of `n_steps`.

    It rises linearly over the warm-up. Then `cosine` falls along half a cosine to its final share
    at the last step; `wsd` stays, and falls linearly over the last steps (Hu et al. 2024).
    """
    n_warmup = round(config.warmup_fraction * n_steps)
    if step <= n_warmup:
        return config.learning_rate * step / n_warmup
    is_cosine = config.schedule == "cosine"
    n_falling = n_steps - n_warmup if is_cosine else round(config.decay_fraction * n_steps)
    done = step - (n_steps - n_falling)
    if done <= 0:
        return config.learning_rate
    share, low = done / n_falling, config.final_fraction
    left = 0.5 * (1 + math.cos(math.pi * share)) if is_cosine else 1 - share
    return config.learning_rate * (low + (1 - low) * left)
