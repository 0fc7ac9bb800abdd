"""The course of a training, fixed before its first step: how many, what happens when, what rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.train.batches import Batches

# What may differ when a training goes on: it changes where or how steps run, not what they do.
FREE = frozenset(
    {
        "preset", "device", "parallel", "compile", "pass_tokens", "loss_chunk_tokens", "corpus",
        "checkpoint_steps", "keep_checkpoints", "target_perplexity", "ngram_order", "prompts",
        "sample_tokens", "temperature", "top_p", "grad_checkpoint", "tokenizer_file",
    }
)  # fmt: skip


def course(config: TrainingConfig) -> dict[str, Any]:
    """The parameters that decide what every step does."""
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in FREE}


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
        return {
            "step": step,
            "epoch": sequences / self.n_windows,
            "tokens": sequences * self.context_length,
        }


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
