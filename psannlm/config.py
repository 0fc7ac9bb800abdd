"""What a run is asked to do: typed, frozen configurations that let nothing else in.

Knows nothing of torch, nor of files: parameters.py builds these from what a user wrote.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from psannlm.schema import (
    AnyOf,
    Count,
    Depth,
    Fraction,
    Length,
    Momentum,
    NGramOrder,
    NotNegative,
    Number,
    OneOrMore,
    Positive,
    Rule,
    Seed,
    Share,
    Strict,
    Text,
    Tokens,
    Vocabulary,
    Whole,
    Width,
)

Positions = Literal["rope", "alibi", "sinusoidal"]
DecayMode = Literal["abs", "relu", "none"]
SinePart = Literal["amplitude", "frequency", "decay"]
Nonlinearity = Literal["gelu", "relu_squared", "swiglu", "gelu_scaled"]
GateMix = Literal["none", "depthwise", "full"]
Wave = Literal["none", "interleave", "replace"]
Preset = Literal["smoke", "cpu", "gpu"]
Precision = Literal["fp32", "bf16", "fp16"]
Mode = Literal["forward", "train_step"]
TokenizerKind = Literal["bytes", "bpe", "gpt2"]
Optimizer = Literal["adamw", "muon"]
Schedule = Literal["cosine", "wsd"]
Parallel = Literal["ddp", "fsdp"]
Device = Literal["auto", "cpu", "cuda"]


class Architecture(Strict):
    """Shape and options that all bases share; those of other bases than the one built are idle."""

    vocab_size: Vocabulary  # V, token ids
    context_length: Length  # most tokens of a sequence
    d_model: Width  # D, width of the residual stream
    n_layers: Depth
    n_heads: Width  # H
    d_mlp: Width  # F, hidden width of an MLP
    positions: Positions = "rope"
    init_std: Positive = 0.02  # standard deviation of the initial weights
    sine_amplitude: Positive = 1.0  # initial A
    sine_frequency: Positive = 1.0  # initial f, radians per unit of z
    sine_decay: Positive = 0.01  # initial d, per unit of g(z)
    decay_mode: DecayMode = "abs"
    learnable: AnyOf[SinePart] = ("amplitude", "frequency", "decay")
    freq_init_std: NotNegative = 0.0  # spread of the initial f over features
    mlp: Nonlinearity = "gelu"  # of the base `transformer`
    gate_n_fft: Annotated[Whole, Field(ge=2, le=4096)] = 64
    gate_strength: Number = 1.0  # initial, learned
    gate_mix: GateMix = "depthwise"
    wave: Wave = "interleave"
    wave_kernel: Annotated[Whole, Field(ge=1, le=64)] = 3
    wave_dilation_growth: Annotated[Whole, Field(ge=1, le=8)] = 2
    grad_checkpoint: bool = False

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            ("d_model", "n_heads"),
            lambda width, heads: width % heads == 0,
            "d_model must be a multiple of n_heads, got {} and {}",
        ),
        Rule(
            ("positions", "d_model", "n_heads"),
            lambda kind, width, heads: kind != "rope" or width % heads or width // heads % 2 == 0,
            "positions: {} needs an even head width, got d_model / n_heads = {} / {}",
        ),
        Rule(
            ("positions", "d_model"),
            lambda kind, width: kind != "sinusoidal" or width % 2 == 0,
            "positions: {} needs an even d_model, got {}",
        ),
        Rule(("gate_n_fft",), lambda n_fft: n_fft % 2 == 0, "gate_n_fft must be even, got {}"),
        Rule(
            ("sine_frequency",),
            lambda frequency: frequency > 1e-5,
            "sine_frequency must be more than 1e-5, got {}",
        ),
    )

    @property
    def d_head(self) -> int:
        """K, the width of one attention head."""
        return self.d_model // self.n_heads


class ModelConfig(Architecture):
    """One network: an architecture with the base it is built as."""

    base: Text


class ThroughputConfig(Architecture):
    """Everything that notebooks/throughput.ipynb may vary."""

    preset: Preset
    base: OneOrMore[Text]
    baseline: Text
    """The base that every ratio is taken against; it is measured twice, for the noise floor."""

    batch_tokens: OneOrMore[Tokens]
    """Tokens per step, B * T with T = context_length."""

    mode: OneOrMore[Mode]
    precision: OneOrMore[Precision]
    compile: bool
    device: Device
    n_repeats: Count
    """Fresh processes per base and batch."""

    min_seconds: Positive
    """Least time that the timed steps of one cell take together."""

    min_steps: Count
    """Least number of timed steps of one cell."""

    timeout_seconds: Positive
    """A cell that runs longer is stopped and becomes a row that says so."""

    learning_rate: Positive
    seed: Seed

    rules: ClassVar[tuple[Rule, ...]] = (
        *Architecture.rules,
        Rule(
            ("batch_tokens", "context_length"),
            lambda tokens, context: all(t % context == 0 for t in tokens),
            "batch_tokens must be multiples of context_length, got {} and {}",
        ),
    )

    def network(self, base: str) -> ModelConfig:
        """The network of `base` in this run's shape."""
        shared = {name: getattr(self, name) for name in Architecture.model_fields}
        return ModelConfig(base=base, **shared)


class TrainingConfig(Architecture):
    """Everything that notebooks/tiny_corpus.ipynb, and a training by command, may vary."""

    preset: Preset
    base: OneOrMore[Text]
    """The one base that is trained."""

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
    learning_rate: Positive
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
    parallel: Parallel
    """How several ranks of torchrun share the work."""

    evaluations: Count
    """Evaluations an epoch, evenly spaced; the last one ends it."""

    checkpoint_steps: Count
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
        *Architecture.rules,
        Rule(("base",), lambda base: len(base) == 1, "base must be one name, got {}"),
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

    @property
    def network(self) -> ModelConfig:
        """The network that is trained."""
        shared = {name: getattr(self, name) for name in Architecture.model_fields}
        return ModelConfig(base=self.base[0], **shared)


CONFIGS: Mapping[str, type[Strict]] = {
    "throughput": ThroughputConfig,
    "tiny_corpus": TrainingConfig,
}
"""The configuration of each notebook, in the order in which a report runs them."""
