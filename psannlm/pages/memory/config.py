"""What the memory page is asked to measure."""

from typing import ClassVar, Literal

from psannlm.config.schema import AnyOf, Length, Rule, Tokens
from psannlm.config.training import BatchSettings

Variant = Literal["plain_sine", "plain_loss"]


class MemoryConfig(BatchSettings):
    """Everything that notebooks/memory.ipynb may vary.

    Bases are compared at the first of `batch_tokens`; all of them together make a curve.
    """

    contexts: AnyOf[Length]  # beside context_length, for a curve at the first of batch_tokens
    variants: AnyOf[Variant]  # paths measured beside the default ones, to see what these save
    loss_chunk_tokens: Tokens  # tokens whose logits exist at one time
    peer: str  # published package measured beside, such as `psannlm==2.0.1`; empty for none

    rules: ClassVar[tuple[Rule, ...]] = (
        *BatchSettings.rules,
        Rule(
            ("grad_checkpoint",),
            lambda on: not on,
            "grad_checkpoint is not a parameter here: off and on are both measured, got {}",
        ),
        Rule(
            ("batch_tokens", "contexts"),
            lambda tokens, contexts: all(tokens[0] % context == 0 for context in contexts),
            "the first of batch_tokens must be a multiple of all contexts, got {} and {}",
        ),
    )
