"""What a run is asked to do: typed, frozen configurations that let nothing else in.

Knows nothing of torch, nor of files: parameters.py builds these from what a user wrote.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from psannlm.architecture import Architecture, ModelConfig
from psannlm.course import Course, Device, Precision, Preset
from psannlm.peer_config import PeerConfig
from psannlm.schema import (
    AnyOf,
    Count,
    Length,
    NGramOrder,
    NotNegative,
    OneOrMore,
    Positive,
    Rule,
    Seed,
    Share,
    Strict,
    Text,
    Tokens,
)
from psannlm.shootout_config import ShootoutConfig

Half = Literal["bf16", "fp16"]
Mode = Literal["forward", "train_step"]
Parallel = Literal["ddp", "fsdp"]
Variant = Literal["plain_sine", "plain_loss"]
Check = Literal[
    "GPU-01", "GPU-02", "GPU-03", "GPU-04", "GPU-05", "GPU-06", "GPU-07", "GPU-08", "FAST"
]
"""Names of the checks of the validation page; FAST holds fast paths against plain ones."""


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


class TrainingConfig(Course):
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
        *Course.rules,
        Rule(("base",), lambda base: len(base) == 1, "base must be one name, got {}"),
    )

    @property
    def network(self) -> ModelConfig:
        """The network that is trained."""
        return self.network_of(self.base[0])


class ValidationConfig(Architecture):
    """Everything that notebooks/validation.ipynb may vary."""

    preset: Preset
    base: OneOrMore[Text]
    only: AnyOf[Check]
    """Checks that run; none named means all."""

    corpus: Text
    """Path of the text that is fitted, one paragraph a line."""

    batch: Count
    """B, sequences of a batch, each context_length tokens long."""

    precision: OneOrMore[Half]
    """What is held against fp32."""

    n_seeds: Count
    """Seeds of weights, each with text of its own, that precisions are compared on."""

    fit_steps: Count
    """Optimizer steps in which a network has to learn a short text."""

    learning_rate: Positive
    """Of those steps."""

    compile: bool
    """Whether the compiled network is held against the eager one too."""

    min_seconds: Positive
    """Least time that the timed steps of a speed take together."""

    min_steps: Count
    """Least number of timed steps of a speed."""

    timeout_seconds: Positive
    """A process of a check that runs longer is stopped, and the check fails."""

    device: Device
    seed: Seed


class MemoryConfig(Architecture):
    """Everything that notebooks/memory.ipynb may vary."""

    preset: Preset
    base: OneOrMore[Text]
    batch_tokens: OneOrMore[Tokens]
    """Tokens per step, B * T; bases are compared at the first, all together make a curve."""

    contexts: AnyOf[Length]
    """Lengths of sequences, beside context_length, that make a curve at the first batch_tokens."""

    precision: OneOrMore[Precision]
    variants: AnyOf[Variant]
    """Paths that are measured beside the default ones, to see what these save."""

    loss_chunk_tokens: Tokens
    """Tokens whose logits exist at one time."""

    peer: str
    """Published package that is measured beside, such as `psannlm==2.0.1`; empty for none."""

    device: Device
    n_repeats: Count
    """Fresh processes per row."""

    min_seconds: Positive
    """Least time that the timed steps of one process take together."""

    min_steps: Count
    """Least number of timed steps of one process."""

    timeout_seconds: Positive
    """A process that runs longer is stopped and becomes a row that says so."""

    learning_rate: Positive
    seed: Seed

    rules: ClassVar[tuple[Rule, ...]] = (
        *Architecture.rules,
        Rule(
            ("grad_checkpoint",),
            lambda on: not on,
            "grad_checkpoint is not a parameter here: off and on are both measured, got {}",
        ),
        Rule(
            ("batch_tokens", "context_length"),
            lambda tokens, context: all(t % context == 0 for t in tokens),
            "batch_tokens must be multiples of context_length, got {} and {}",
        ),
        Rule(
            ("batch_tokens", "contexts"),
            lambda tokens, contexts: all(tokens[0] % context == 0 for context in contexts),
            "the first of batch_tokens must be a multiple of all contexts, got {} and {}",
        ),
    )


CONFIGS: Mapping[str, type[Strict]] = {
    "validation": ValidationConfig,
    "throughput": ThroughputConfig,
    "memory": MemoryConfig,
    "tiny_corpus": TrainingConfig,
    "shootout": ShootoutConfig,
    "peer": PeerConfig,
}
"""The configuration of each notebook, in the order in which a report runs them."""
