"""How networks are measured in fresh processes: what all such measurements share.

Knows nothing of torch, nor of files.
"""

from typing import ClassVar

from psannlm.config.network import Architecture
from psannlm.config.schema import AnyOf, Count, OneOrMore, Positive, Rule, Seed, Text, Tokens
from psannlm.config.training import Device, Precision, Preset


class ProcessSettings(Architecture):
    """Which networks are measured, in how many processes, and for how long."""

    preset: Preset
    base: AnyOf[Text]  # none named means every base: the configuration of a run names them all
    precision: OneOrMore[Precision]
    device: Device
    n_repeats: Count  # fresh processes per row
    min_seconds: Positive  # least time that the timed steps of one process take together
    min_steps: Count  # least number of timed steps of one process
    timeout_seconds: Positive  # a process that runs longer is stopped and becomes a failed row
    learning_rate: Positive
    seed: Seed


class BatchSettings(ProcessSettings):
    """The same at one batch or more."""

    batch_tokens: OneOrMore[Tokens]  # tokens per step, B * T

    rules: ClassVar[tuple[Rule, ...]] = (
        *ProcessSettings.rules,
        Rule(
            ("batch_tokens", "context_length"),
            lambda tokens, context: all(t % context == 0 for t in tokens),
            "batch_tokens must be multiples of context_length, got {} and {}",
        ),
    )
