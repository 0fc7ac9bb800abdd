"""What a comparison with the published package is asked to do.

Knows nothing of torch, nor of files.
"""

from typing import ClassVar, Literal

from psannlm.config.measurement import ProcessSettings
from psannlm.config.schema import AnyOf, OneOrMore, Rule, Text, Tokens

Work = Literal["forward", "train_step", "generate", "saved"]
Setting = Literal["defaults", "best"]


class PeerConfig(ProcessSettings):
    """Everything that notebooks/peer.ipynb may vary."""

    peer: Text
    """The published package by name and version, such as `psannlm==2.0.1`."""

    base: OneOrMore[Text]
    """Bases, of the same name in both packages."""

    batch_tokens: Tokens
    """Tokens per step, B * T with T = context_length."""

    work: OneOrMore[Work]
    """What is measured: a forward pass, a training step, generation, bytes saved for backward."""

    setting: OneOrMore[Setting]
    """Each package as it comes, and with the fastest choices that it offers."""

    prompt_tokens: Tokens
    new_tokens: Tokens
    """Of generation: tokens given, and tokens made one after the other."""

    protocol_batch_tokens: AnyOf[Tokens]
    """Batches at which both packages repeat the original's own protocol; none leaves it out."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *ProcessSettings.rules,
        Rule(
            ("batch_tokens", "context_length"),
            lambda tokens, context: tokens % context == 0,
            "batch_tokens must be a multiple of context_length, got {} and {}",
        ),
        Rule(
            ("prompt_tokens", "new_tokens", "context_length"),
            lambda prompt, new, context: prompt + new <= context,
            "prompt_tokens and new_tokens must fit in context_length, got {}, {} and {}",
        ),
    )
