"""What a comparison with the published package is asked to do."""

from typing import ClassVar, Literal

from psannlm.config.schema import AnyOf, OneOrMore, Rule, Text, Tokens, multiple_of
from psannlm.config.training import ProcessSettings


class PeerConfig(ProcessSettings):
    """Everything that notebooks/peer.ipynb may vary."""

    peer: Text  # the published package by name and version, such as `psannlm==2.0.1`
    base: OneOrMore[Text]  # of the same name in both packages
    batch_tokens: Tokens  # of a step, B * T with T = context_length
    work: OneOrMore[Literal["forward", "train_step", "generate", "saved"]]  # saved for backward
    setting: OneOrMore[Literal["defaults", "best"]]  # as it comes, or with its fastest choices
    prompt_tokens: Tokens  # of generation, given
    new_tokens: Tokens  # of generation, made one after the other
    protocol_batch_tokens: AnyOf[Tokens]  # of the original's own protocol; none leaves it out

    rules: ClassVar[tuple[Rule, ...]] = (
        *ProcessSettings.rules,
        multiple_of("batch_tokens", "context_length"),
        Rule(
            ("prompt_tokens", "new_tokens", "context_length"),
            lambda prompt, new, context: prompt + new <= context,
            "prompt_tokens and new_tokens must fit in context_length, got {}, {} and {}",
        ),
    )
