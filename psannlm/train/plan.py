"""The course of a training, fixed before its first step: how many steps, and what happens when."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.train.batches import Batches
from psannlm.train.data import Data

FREE = frozenset(
    {
        "preset", "device", "parallel", "compile", "pass_tokens", "loss_chunk_tokens", "corpus",
        "checkpoint_steps", "keep_checkpoints", "target_perplexity", "ngram_order", "prompts",
        "sample_tokens", "temperature", "top_p", "grad_checkpoint", "tokenizer_file",
    }
)  # fmt: skip
"""What may differ when a training goes on: it changes where or how steps run, not what they do."""


@dataclass(frozen=True)
class Plan:
    """Steps, and what happens at each."""

    n_steps: int
    n_windows: int
    """Windows of the training split: an epoch."""

    context_length: int
    batch_sequences: int
    """Windows of an optimizer step, over all ranks."""

    pass_sequences: int
    """Windows of one pass of one rank."""

    n_passes: int
    """Passes of each rank a step."""

    evaluations: frozenset[int]
    """Steps after which the validation split is evaluated."""

    epoch_ends: Mapping[int, int]
    """Last step of each epoch -> its number."""

    checkpoint_steps: int

    @classmethod
    def of(cls, config: TrainingConfig, batches: Batches, world: int) -> "Plan":
        """The plan of a training on `world` ranks.

        Raises:
            ConfigError: The batch cannot be split over ranks and passes.
        """
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

    def evaluates(self, step: int) -> bool:
        """Whether the validation split is evaluated after `step`."""
        return step in self.evaluations

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


def course(config: TrainingConfig) -> dict[str, Any]:
    """The parameters that decide what every step does."""
    return {k: v for k, v in config.model_dump(mode="json").items() if k not in FREE}


def facts(config: TrainingConfig, data: Data) -> dict[str, Any]:
    """What all ranks must agree on."""
    return {
        "the configuration": config.model_dump(mode="json"),
        "the training text": data.train.sha256,
        "the validation text": data.validation.sha256,
        "the tokenizer": data.tokenizer.sha256,
        "the version of torch": torch.__version__,
    }
