"""What the throughput page is asked to measure."""

from typing import ClassVar, Literal

from psannlm.config.network import Architecture
from psannlm.config.schema import AnyOf, Count, OneOrMore, Positive, Rule, Seed, Text, Tokens
from psannlm.config.training import Device, Precision, Preset

Mode = Literal["forward", "train_step"]


class ThroughputConfig(Architecture):
    """Everything that notebooks/throughput.ipynb may vary."""

    preset: Preset
    base: AnyOf[Text]
    """None named means every base: the configuration of a run names them all."""

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
