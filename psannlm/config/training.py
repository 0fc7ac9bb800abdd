"""How a network is trained: text, steps, optimizer, precision; what all trainings share.

Knows nothing of torch, nor of files.
"""

from typing import ClassVar, Literal

from psannlm.config.network import Architecture, ModelConfig
from psannlm.config.schema import (
    AnyOf,
    Count,
    Fraction,
    Momentum,
    NGramOrder,
    NotNegative,
    OneOrMore,
    Positive,
    Rule,
    Seed,
    Share,
    Text,
    Tokens,
)

Preset = Literal["smoke", "cpu", "gpu"]
Precision = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]
TokenizerKind = Literal["bytes", "bpe", "gpt2"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "wsd"]
Parallel = Literal["ddp", "fsdp"]


class TrainingSettings(Architecture):
    """A training but for its base, its learning rate and its seed."""

    preset: Preset
    corpus: Text
    """Path of the text, one paragraph a line, from the project's folder or absolute."""

    train_megabytes: NotNegative
    """Text that is trained on, from the start of the training split, in 10**6 bytes; 0 is all."""

    validation_megabytes: NotNegative
    """Text that is evaluated on, likewise."""

    tokenizer: TokenizerKind
    tokenizer_file: str
    """GPT-2's ranks, for the tokenizer `gpt2`; empty for the others."""

    epochs: Positive
    batch_tokens: Tokens
    """Tokens of an optimizer step, over all ranks and passes."""

    pass_tokens: Tokens
    """Tokens of one forward and backward pass of one rank; the step accumulates the rest."""

    loss_chunk_tokens: Tokens
    """Tokens whose logits exist at one time."""

    optimizer: Optimizer
    schedule: Schedule
    warmup_fraction: Fraction
    """Share of the steps in which the learning rate rises from zero."""

    decay_fraction: Fraction
    """Share of the steps in which it falls, for `wsd`; `cosine` falls from the warm-up on."""

    final_fraction: Fraction
    """Learning rate at the end, as a share of the highest."""

    weight_decay: NotNegative
    beta1: Momentum
    beta2: Momentum
    clip_norm: Positive
    """Largest norm of all gradients together; larger ones are scaled down to it."""

    precision: Precision
    compile: bool
    device: Device
    evaluations: Count
    """Evaluations an epoch, evenly spaced; the last one ends it."""

    checkpoint_steps: Count

    rules: ClassVar[tuple[Rule, ...]] = (
        *Architecture.rules,
        Rule(
            ("batch_tokens", "pass_tokens"),
            lambda batch, one: batch % one == 0,
            "batch_tokens must be a multiple of pass_tokens, got {} and {}",
        ),
        Rule(
            ("pass_tokens", "context_length"),
            lambda tokens, context: tokens % context == 0,
            "pass_tokens must be a multiple of context_length, got {} and {}",
        ),
        Rule(
            ("tokenizer", "vocab_size"),
            lambda kind, size: {"bytes": 257, "gpt2": 50257}.get(kind, size) == size,
            "tokenizer {} has a vocab_size of its own (bytes 257, gpt2 50257), got {}",
        ),
        Rule(
            ("tokenizer", "tokenizer_file"),
            lambda kind, path: (kind == "gpt2") == bool(path),
            "tokenizer {} and tokenizer_file {!r}: gpt2 needs the file of its ranks, others none",
        ),
        Rule(
            ("warmup_fraction", "decay_fraction"),
            lambda warmup, decay: warmup + decay <= 1,
            "warmup_fraction and decay_fraction must be at most 1 together, got {} and {}",
        ),
    )


class TrainingConfig(TrainingSettings):
    """Everything that notebooks/tiny_corpus.ipynb, and a training by command, may vary."""

    base: OneOrMore[Text]
    """The one base that is trained."""

    learning_rate: Positive
    """The highest of the schedule."""

    parallel: Parallel
    """How several ranks of torchrun share the work."""

    keep_checkpoints: Count
    """Newest checkpoints that stay; the best one stays beside them."""

    target_perplexity: Positive
    ngram_order: NGramOrder
    """Longest context of the n-gram model the network is compared with, plus one, in bytes."""

    prompts: AnyOf[Text]
    """What the finished network continues."""

    sample_tokens: Count
    temperature: NotNegative
    top_p: Share
    seed: Seed

    rules: ClassVar[tuple[Rule, ...]] = (
        *TrainingSettings.rules,
        Rule(("base",), lambda base: len(base) == 1, "base must be one name, got {}"),
    )

    @property
    def network(self) -> ModelConfig:
        """The network that is trained."""
        return self.network_of(self.base[0])
