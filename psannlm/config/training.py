"""How a network is trained, or measured in fresh processes: what all that do so share.

Knows nothing of torch, nor of files.
"""

from typing import ClassVar, Literal

from psannlm.config import schema
from psannlm.config.network import Architecture, ModelConfig

Preset = Literal["smoke", "cpu", "gpu"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]  # auto: bf16 where it is native, else fp32
Device = Literal["auto", "cpu", "cuda"]
Optimizer = Literal["adamw", "muon"]
Parallel = Literal["ddp", "fsdp"]


class TrainingSettings(Architecture):
    """A training but for its base, its learning rate and its seed.

    All ranks share the tokens of an optimizer step; each runs passes of `pass_tokens`, forward and
    backward, until its part of the step is accumulated.
    """

    preset: Preset
    corpus: schema.File  # a paragraph a line
    train_megabytes: schema.NotNegative  # 10**6 bytes from the start of the split; 0 is all
    validation_megabytes: schema.NotNegative  # likewise
    tokenizer: Literal["bytes", "bpe", "gpt2"]
    tokenizer_file: schema.OptionalFile  # GPT-2's ranks, for `gpt2`; else empty
    epochs: schema.Positive
    batch_tokens: schema.Tokens  # of an optimizer step, over all ranks and passes
    pass_tokens: schema.Tokens  # of one forward and backward pass of one rank
    loss_chunk_tokens: schema.Tokens  # tokens whose logits exist at one time
    optimizer: Optimizer
    schedule: Literal["cosine", "wsd"]
    warmup_fraction: schema.Fraction  # share of the steps in which the rate rises from zero
    decay_fraction: schema.Fraction  # in which it falls, for `wsd`; `cosine` falls after warm-up
    final_fraction: schema.Fraction  # learning rate at the end, as a share of the highest
    weight_decay: schema.NotNegative
    beta1: schema.Momentum
    beta2: schema.Momentum
    clip_norm: schema.Positive  # gradients are scaled down to this norm if theirs is larger
    precision: Precision
    compile: bool
    device: Device
    evaluations: schema.Count  # an epoch, evenly spaced; the last one ends it
    checkpoint_steps: schema.Count

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        *Architecture.rules,
        schema.multiple_of("batch_tokens", "pass_tokens"),
        schema.multiple_of("pass_tokens", "context_length"),
        schema.Rule(
            ("tokenizer", "vocab_size"),
            lambda kind, size: {"bytes": 257, "gpt2": 50257}.get(kind, size) == size,
            "tokenizer {} has a vocab_size of its own (bytes 257, gpt2 50257), got {}",
        ),
        schema.Rule(
            ("tokenizer", "tokenizer_file"),
            lambda kind, path: (kind == "gpt2") == bool(path),
            "tokenizer {} and tokenizer_file {!r}: gpt2 needs the file of its ranks, others none",
        ),
        schema.Rule(
            ("warmup_fraction", "decay_fraction"),
            lambda warmup, decay: warmup + decay <= 1,
            "warmup_fraction and decay_fraction must be at most 1 together, got {} and {}",
        ),
    )


class TrainingConfig(TrainingSettings):
    """Everything that notebooks/tiny_corpus.ipynb, and a training by command, may vary."""

    base: schema.OneOrMore[schema.Text]  # the one base that is trained
    learning_rate: schema.Positive  # the highest of the schedule
    parallel: Parallel  # how several ranks of torchrun share the work
    keep_checkpoints: schema.Count  # newest checkpoints that stay; the best one stays beside them
    target_perplexity: schema.Positive
    ngram_order: schema.NGramOrder  # of the n-gram model it is compared with, in bytes
    prompts: schema.AnyOf[schema.Text]  # what the finished network continues
    sample_tokens: schema.Count
    temperature: schema.NotNegative
    top_p: schema.Share
    seed: schema.Seed

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        *TrainingSettings.rules,
        schema.Rule(("base",), lambda base: len(base) == 1, "base must be one name, got {}"),
    )

    @property
    def network(self) -> ModelConfig:
        """The network that is trained."""
        return self.network_of(self.base[0])


class ProcessSettings(Architecture):
    """Which networks are measured, in how many processes, and for how long."""

    preset: Preset
    base: schema.AnyOf[schema.Text]  # none means every base: a run's configuration names them
    precision: schema.OneOrMore[Precision]
    device: Device
    n_repeats: schema.Count  # fresh processes per row
    min_seconds: schema.Positive  # least time that the timed steps of one process take together
    min_steps: schema.Count  # least number of timed steps of one process
    timeout_seconds: schema.Positive  # a process that runs longer becomes a failed row
    learning_rate: schema.Positive
    seed: schema.Seed


class BatchSettings(ProcessSettings):
    """The same at one batch or more."""

    batch_tokens: schema.OneOrMore[schema.Tokens]  # tokens per step, B * T

    rules: ClassVar[tuple[schema.Rule, ...]] = (
        *ProcessSettings.rules,
        schema.Rule(
            ("batch_tokens", "context_length"),
            lambda tokens, context: all(t % context == 0 for t in tokens),
            "batch_tokens must be multiples of context_length, got {} and {}",
        ),
    )
