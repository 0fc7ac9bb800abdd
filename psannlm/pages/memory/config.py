"""What the memory page is asked to measure."""

from typing import ClassVar, Literal

from psannlm.config.network import Architecture
from psannlm.config.schema import (
    AnyOf,
    Count,
    Length,
    OneOrMore,
    Positive,
    Rule,
    Seed,
    Text,
    Tokens,
)
from psannlm.config.training import Device, Precision, Preset

Variant = Literal["plain_sine", "plain_loss"]


class MemoryConfig(Architecture):
    """Everything that notebooks/memory.ipynb may vary."""

    preset: Preset
    base: AnyOf[Text]
    """None named means every base: the configuration of a run names them all."""

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
